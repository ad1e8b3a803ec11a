"""The declarations agree: what is imported, declared, locked and built, on a visitor's machine and on Binder."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCK = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines()]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
TESTED_WITH = [Requirement(line) for line in PROJECT["optional-dependencies"]["test"]]
TIMED_BESIDE = [Requirement(line) for line in PROJECT["optional-dependencies"]["peers"]]
DECLARED = [Requirement(line) for line in PROJECT["dependencies"]]
NOTEBOOKS = [nbformat.read(path, 4) for path in sorted((ROOT / "book").glob("[!.]*.ipynb"))]
CODE = [cell.source for notebook in NOTEBOOKS for cell in notebook.cells if cell.cell_type == "code"]
CELLS = [ast.parse(TransformerManager().transform_cell(source)) for source in CODE]


def locked(name: str, python: str, platform: str) -> list[Version]:
    """The versions that the lock gives a distribution on one Python (such as 3.11.9) and platform."""
    place = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": platform,
        "platform_system": platform.capitalize(),
        "implementation_name": "cpython",
    }
    return [
        Version(next(iter(line.specifier)).version)
        for line in LOCK
        if canonicalize_name(line.name) == canonicalize_name(name)
        and (line.marker is None or line.marker.evaluate(place))
    ]


def modules(*trees: ast.AST) -> set[str]:
    """What some Python imports, by dotted names; of ``from a import b`` both a and a.b."""
    names = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def distributions(*trees: ast.AST) -> set[str]:
    """The packages of what some Python imports, neither ours, the standard library's nor PyTorch's own Triton."""
    ours = {"lib", "tests", "triton", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    names = {name.partition(".")[0] for name in modules(*trees)} - sys.stdlib_module_names - ours
    known = packages_distributions()
    # What is only timed need not be installed; it is called what it is imported as.
    return {canonicalize_name(known.get(name, [name])[0]) for name in names}


def parsed(folder: str) -> list[ast.AST]:
    return [ast.parse(path.read_text()) for path in (ROOT / folder).rglob("*.py")]


def behind(new: list[ast.AST]) -> list[ast.AST]:
    """The library's files that some Python imports, at once or at second hand."""
    found: dict[Path, ast.AST] = {}
    while new:
        places = [ROOT / name.replace(".", "/") for name in modules(*new) if name.startswith("lib.")]
        files = {file for place in places for file in (place.with_suffix(".py"), *(place.glob("__init__.py")))}
        added = {path: ast.parse(path.read_text()) for path in files - found.keys() if path.is_file()}
        found, new = found | added, [*added.values()]
    return [*found.values()]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("python", ["3.11.0", "3.11.9", "3.12.4", "3.13.1"])
def test_the_lock_holds_one_version_that_each_declaration_allows(python: str, platform: str) -> None:
    for requirement in DECLARED + TESTED_WITH:
        versions = locked(requirement.name, python, platform)
        assert len(versions) == 1, requirement
        assert requirement.specifier.contains(versions[0]), requirement


def test_the_lock_pins_all_and_names_no_index_and_nothing_of_cuda() -> None:
    for requirement in LOCK:
        assert [specifier.operator for specifier in requirement.specifier] == ["=="], requirement
        assert requirement.url is None, requirement
        assert not re.match("nvidia|cuda|triton", requirement.name), requirement


def test_what_is_imported_is_declared() -> None:
    asked = DECLARED, TESTED_WITH, TIMED_BESIDE
    declared, tested, timed = ({canonicalize_name(one.name) for one in some} for some in asked)
    assert distributions(*parsed("lib"), *CELLS) <= declared | timed
    assert distributions(*parsed("tests")) <= declared | tested


def test_colab_gets_what_is_behind_a_notebook_in_the_library_s_ranges() -> None:
    """All but IPython, in which its session runs. What is not behind a notebook is run elsewhere."""
    needed = distributions(*behind(CELLS), *CELLS) - {"ipython"}
    asked = [Requirement(line) for line in (ROOT / "book/colab.txt").read_text().splitlines()]
    assert sorted(map(str, asked)) == sorted(str(one) for one in DECLARED if canonicalize_name(one.name) in needed)


def test_colab_s_torch_is_the_lock_s_where_its_own_does_not_fit() -> None:
    for requirement in DECLARED:
        if requirement.name in ("torch", "torchaudio"):
            (pinned,) = locked(requirement.name, "3.12.4", "linux")
            assert str(requirement.specifier) == f"=={pinned}"


def test_colab_starts_anew_where_a_module_that_is_loaded_was_replaced(monkeypatch, capsys) -> None:
    spec = importlib.util.spec_from_file_location("colab", ROOT / "book/colab.py")
    colab = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(colab)
    restarted, kernel = [], SimpleNamespace(do_shutdown=lambda restart: restarted.append(restart))
    monkeypatch.setattr(colab, "get_ipython", lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setattr(colab.subprocess, "run", lambda *command, **how: None)
    colab.main()
    assert restarted == []
    monkeypatch.setattr(
        colab.subprocess, "run", lambda *command, **how: monkeypatch.setattr(numpy, "__version__", "0.1")
    )
    colab.main()
    assert restarted == [True]
    assert capsys.readouterr().out.startswith("numpy: replaced.")


def test_the_core_is_six_short_files_that_know_nothing_of_the_rooms_but_fast() -> None:
    named = re.findall(r"^\| \[lib/(\w+)\.py\]\(lib/\1\.py\)", (ROOT / "README.md").read_text(), re.MULTILINE)
    core = ["features", "network", "posteriors", "trainers", "metrics", "slices"]
    assert named[:6] == core
    texts = {name: (ROOT / f"lib/{name}.py").read_text() for name in core}
    for name, text in texts.items():
        names = modules(ast.parse(text))
        ours = {one.split(".")[1] for one in names if one.startswith("lib.")}
        assert ours <= {*core, "files"} | ({"fast"} if name == "network" else set()), name
        packages = {one.split(".")[0] for one in names} - sys.stdlib_module_names - {"lib"}
        assert packages <= {"torch", "torchaudio", "numpy", "pandas", "soundfile", "ivon", "jaxtyping", "tqdm"}, name
    lengths = [len(text.splitlines()) for text in texts.values()]
    assert max(lengths) <= 260
    assert sum(lengths) <= 1_250


def test_every_room_has_its_place_in_the_order_of_imports() -> None:
    (contract,) = PYPROJECT["tool"]["importlinter"]["contracts"]
    assert (contract["type"], contract["containers"], contract["exhaustive"]) == ("layers", ["lib"], True)
    placed = [name for layer in contract["layers"] for name in layer.split(" | ")]
    rooms = {path.stem for path in (ROOT / "lib").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert sorted(placed) == sorted(rooms - {"__init__"})


def test_the_checkout_is_an_entry_of_the_path_so_that_no_mere_folder_called_lib_shadows_it(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; build_meta.build_editable('wheel')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (path,) = [name for name in files.namelist() if name.endswith(".pth")]
        assert files.read(path).decode().strip() == str(tmp_path)


def test_torch_and_torchaudio_are_of_one_release() -> None:
    (torch,), (torchaudio,) = (locked(name, "3.11.9", "linux") for name in ("torch", "torchaudio"))
    assert torch.release[:2] == torchaudio.release[:2]


def test_binder_builds_the_lock_with_the_cpu_build_of_torch() -> None:
    (python,) = (line.partition("=")[2] for line in ENVIRONMENT if str(line).startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    (pip,) = (entry["pip"] for entry in ENVIRONMENT if isinstance(entry, dict))
    assert "pip" in ENVIRONMENT
    for name in ("torch", "torchaudio"):
        (version,) = locked(name, f"{python}.9", "linux")
        assert f"{name}=={version}+cpu" in pip
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in pip
    assert pip[-2:] == ["-r requirements.txt", "-e ."]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_first_pages_are_short_and_point_at_what_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    assert len(text.splitlines()) < 100


# The Makefile, on a stand-in for Python

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$0 $*" >> calls\n{script}\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile, the declarations and a stand-in for Python, whose venv makes programs that work."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("python", "pip", "ruff", "lint-imports", "pytest"):
        program(tmp_path / "programs" / name, "exit 0")
    program(tmp_path / "python3", 'case "$*" in "-m venv .venv") mkdir .venv && cp -R programs .venv/bin;; esac')
    return tmp_path


def calls(folder: Path) -> list[str]:
    """The programs called since the last time, each with its arguments."""
    lines = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    (folder / "calls").unlink(missing_ok=True)
    return [line.removeprefix(".venv/bin/") for line in lines]


@needs_make
def test_the_environment_is_made_whole_once_and_again_when_the_lock_changes(folder: Path) -> None:
    program(folder / "programs/pip", "exit 1")
    assert make(folder, "book", "PYTHON=./python3").returncode != 0
    assert calls(folder)[-1].startswith("pip install")
    program(folder / "programs/pip", "exit 0")
    assert make(folder, "book", "PYTHON=./python3").returncode == 0
    first = calls(folder)
    assert [call.split()[0] for call in first] == ["./python3", "./python3", "pip", "pip", "python"]
    assert first[-1] == "python -m lib.book --params book/params/quick.yml"
    assert make(folder, "book", "PYTHON=./python3").returncode == 0
    assert calls(folder) == first[-1:]
    (folder / ".venv/left-over").touch()
    os.utime(folder / "requirements.txt", (2**31, 2**31))
    assert make(folder, "book", "PYTHON=./python3").returncode == 0
    assert calls(folder) == first
    assert not (folder / ".venv/left-over").exists()


@needs_make
@pytest.mark.parametrize("python", ["./old", "./absent"])
def test_a_python_that_is_too_old_or_absent_is_refused_in_one_sentence(folder: Path, python: str) -> None:
    program(folder / "old", "exit 1")
    refused = make(folder, "book", f"PYTHON={python}")
    assert refused.returncode != 0
    assert "Python 3.11 or newer is needed" in refused.stderr
    assert not (folder / ".venv").exists()


@needs_make
def test_a_checkout_may_lie_in_a_folder_of_any_name(folder: Path) -> None:
    odd = folder / "a {b} c's $HOME % [d] ü"
    shutil.copytree(folder, odd, ignore=shutil.ignore_patterns(odd.name))
    assert make(odd, "book", "PYTHON=./python3").returncode == 0
    assert calls(odd)[-1] == "python -m lib.book --params book/params/quick.yml"


@needs_make
def test_make_test_checks_the_cheap_first_and_stops_where_one_fails(folder: Path) -> None:
    checks = [
        "ruff check",
        "ruff format --check",
        "lint-imports",
        "pytest -n 2 tests",
        "pytest -n 2 --dist loadfile --nbval book",
    ]
    assert make(folder, "test", "PYTHON=./python3").returncode == 0
    assert [call.rstrip() for call in calls(folder)[4:]] == checks
    program(folder / ".venv/bin/lint-imports", "exit 1")
    assert make(folder, "test", "PYTHON=./python3").returncode != 0
    assert [call.rstrip() for call in calls(folder)] == checks[:3]


@needs_make
def test_make_paper_runs_the_paper_s_settings_and_can_be_rehearsed_on_synthetic_speech(folder: Path) -> None:
    assert make(folder, "paper", "PYTHON=./python3").returncode == 0
    assert calls(folder)[-1] == "python -m lib.book --params book/params/paper.yml"
    assert make(folder, "paper", "SPEECH=synthetic", "PYTHON=./python3").returncode == 0
    assert calls(folder) == [
        "python -m lib.datasets synthetic-hd data/rehearsal/hd --full",
        "python -m lib.datasets synthetic-sc data/rehearsal/sc --full",
        "python -m lib.book --params book/params/paper.yml book/params/rehearsal.yml",
    ]
    assert make(folder, "paper", "PROTOCOL=matched", "PYTHON=./python3").returncode == 0
    assert calls(folder)[-1] == "python -m lib.book --params book/params/paper.yml book/params/matched.yml"
    both = "SPEECH=synthetic", "PROTOCOL=matched"
    assert make(folder, "paper", *both, "PYTHON=./python3").returncode == 0
    files = [f"book/params/{name}.yml" for name in ("paper", "rehearsal", "matched")]
    assert calls(folder)[-1] == f"python -m lib.book --params {' '.join(files)}"
    for given, said in {"SPEECH=sythetic": "SPEECH is recorded or synthetic, not sythetic",
                        "PROTOCOL=macthed": "PROTOCOL is paper or matched, not macthed"}.items():  # fmt: skip
        refused = make(folder, "paper", given, "PYTHON=./python3")
        assert refused.returncode != 0
        assert said in refused.stderr
        assert not calls(folder)
