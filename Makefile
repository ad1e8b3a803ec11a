# make book       run the notebooks at quick settings and render _build/html/index.html
# make paper      the same at the paper's full size, on the real data sets, or, to see what it takes, on synthetic
#                 speech in their layouts and counts: make paper SPEECH=synthetic; with equal steps for both methods:
#                 make paper PROTOCOL=matched
# make notebooks  run the notebooks at quick settings and put them, executed, in the place of the committed ones
# make test       everything that guards the project
# make bench      measure what training and prediction cost here, and write data/results/bench-*.csv
# make study      train and measure what the results of a study lack (STUDY=neurons), here or on a cluster (SCHEDULER=…)
# make tune       choose the settings of a study's methods on validation data (STUDY=neurons)
# make verify     compute a committed result anew (RESULT=synthetic), all of it or a share of its runs (SHARE=0.1)
# make ledger     write what the results say of the paper's claims anew, into README.md and data/results/claims.csv
# make faults     write the book's tables of what goes wrong anew, as the tests find it (not as root)
# make fuzz       give each reader of what comes from outside 10,000 damaged inputs, or some (READERS="wav spikes")
# make archive    put the results and the built book into _build/archive, as an RO-Crate, and the same zipped beside it
# make pdf        print the book to _build/companion.pdf; it takes a Chromium that is installed
# make lint       style, format and the order of the library's rooms
# make lock       write requirements.txt anew from pyproject.toml
# make clean      remove what was built; the environment, data and stored runs stay

PYTHON ?= python3
PARAMS ?= book/params/quick.yml
SPEECH ?= recorded
PROTOCOL ?= paper
RESULT ?= synthetic
STUDY ?= neurons
THEN_matched := book/params/matched.yml
CLUSTER := $(if $(SCHEDULER),--scheduler $(SCHEDULER))
ENVIRONMENT := .venv/.complete
BIN := .venv/bin

.PHONY: book paper notebooks test ledger faults bench study tune verify fuzz archive pdf lint lock clean

book: $(ENVIRONMENT)
	$(BIN)/python -m lib.book --params $(PARAMS) $(CLUSTER)

paper: $(ENVIRONMENT)
ifeq ($(filter paper matched,$(PROTOCOL)),)
	$(error PROTOCOL is paper or matched, not $(PROTOCOL))
endif
ifeq ($(SPEECH),recorded)
	$(MAKE) book PARAMS="$(strip book/params/paper.yml $(THEN_$(PROTOCOL)))"
else ifeq ($(SPEECH),synthetic)
	$(BIN)/python -m lib.datasets synthetic-hd data/rehearsal/hd --full
	$(BIN)/python -m lib.datasets synthetic-sc data/rehearsal/sc --full
	$(MAKE) book PARAMS="$(strip book/params/paper.yml book/params/rehearsal.yml $(THEN_$(PROTOCOL)))"
else
	$(error SPEECH is recorded or synthetic, not $(SPEECH))
endif

notebooks:
	$(MAKE) book PARAMS=book/params/quick.yml
	cp _build/source/book/*.ipynb book/

test: lint
	$(BIN)/pytest -n 2 tests
	$(BIN)/pytest -n 2 --dist loadfile --nbval book

ledger: $(ENVIRONMENT)
	$(BIN)/python -m lib.ledger

faults: $(ENVIRONMENT)
	$(BIN)/python tests/write_faults.py

bench: $(ENVIRONMENT)
	$(BIN)/python -m lib.benchmark

study: $(ENVIRONMENT)
	$(BIN)/python -m lib.study book/studies/$(STUDY).yml $(CLUSTER)

tune: $(ENVIRONMENT)
	$(BIN)/python -m lib.study book/studies/$(STUDY).yml --tune $(CLUSTER)

verify: $(ENVIRONMENT)
	$(BIN)/python -m lib.study book/studies/$(RESULT).yml --verify $(if $(SHARE),--share $(SHARE)) $(CLUSTER)

archive: $(ENVIRONMENT)
	$(BIN)/python -m lib.archive

pdf: $(ENVIRONMENT)
	$(BIN)/python -m lib.printing

fuzz: $(ENVIRONMENT)
	$(BIN)/python tests/fuzz.py $(READERS)

lint: $(ENVIRONMENT)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

# The stamp is written last, so that a broken installation is not taken for a whole one.
$(ENVIRONMENT): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: name one, as in "make PYTHON=python3.12 book".' >&2; exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

# One lock for every platform. What PyTorch pins for CUDA is left to PyTorch: its CPU-only build does without.
lock:
	rm -rf _build/lock
	$(PYTHON) -m venv _build/lock
	_build/lock/bin/pip install --disable-pip-version-check --quiet uv
	_build/lock/bin/uv pip compile pyproject.toml --extra test --universal --python-version 3.11 \
	  --no-header --no-annotate --quiet --output-file _build/lock/all.txt
	grep -v -E '^(nvidia-|cuda-|triton)' _build/lock/all.txt > _build/lock/requirements.txt
	mv _build/lock/requirements.txt requirements.txt

clean:
	rm -rf _build
