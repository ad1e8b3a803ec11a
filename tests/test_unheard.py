"""Splits that leave words out: what is heard in training, what is not, and that the rest stays what it was."""

import numpy as np
import pytest
import soundfile

from lib import datasets, features
from lib.datasets.unheard import UNHEARD

SPEAKERS = ("anna", "bert", "theo", "yves")


@pytest.fixture
def root(tmp_path):
    """FSDD's layout: three recordings of each digit by four speakers; each digit is a tone of its own."""
    folder = tmp_path / "fsdd"
    (folder / "recordings").mkdir(parents=True)
    time = np.arange(4_000) / 8_000
    for speaker in SPEAKERS:
        for digit in range(10):
            for index in range(3):
                tone = 0.1 * np.sin(2 * np.pi * (200 + 300 * digit + index) * time)
                soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{index}.wav", tone, 8_000)
    return folder


@pytest.fixture
def hd_root(tmp_path):
    """HD's layout: each digit once in each language by three speakers."""
    folder = tmp_path / "hd"
    (folder / "audio").mkdir(parents=True)
    listed = {"train": [], "test": []}
    for speaker in ("00", "04", "10"):
        for language in ("english", "german"):
            for digit in range(10):
                name = f"lang-{language}_speaker-{speaker}_trial-0_digit-{digit}.flac"
                soundfile.write(folder / "audio" / name, np.full(4_000, 0.1), 16_000)
                listed["test" if speaker == "04" else "train"].append(name)
    for part, names in listed.items():
        (folder / f"{part}_filenames.txt").write_text("\n".join(names) + "\n")
    return folder


def load(root, split):
    return datasets.load("fsdd", split, root)


def said(loaded, part):
    return sorted(path for path, of in zip(loaded.paths, loaded.parts, strict=True) if of == part)


def test_the_words_are_out_of_every_part_and_the_rest_is_numbered_anew(root):
    whole, rest = load(root, None), load(root, "without zero, seven")
    assert rest.class_names == tuple(name for name in whole.class_names if name not in ("zero", "seven"))
    for part in datasets.PARTS:
        assert said(rest, part) == [path for path in said(whole, part) if path[11] not in "07"]
    words = {path: whole.class_names[label] for path, label in zip(whole.paths, whole.labels, strict=True)}
    assert all(rest.class_names[label] == words[path] for path, label in zip(rest.paths, rest.labels, strict=True))


def test_the_unheard_are_the_test_utterances_of_the_others(root):
    whole, rest, unheard = (load(root, split) for split in (None, "without zero, seven", "unheard zero, seven"))
    for part in ("train", "validation"):
        assert said(unheard, part) == said(rest, part)
    assert said(unheard, "test") == [path for path in said(whole, "test") if path[11] in "07"]
    assert set(unheard.part("test").labels) == {UNHEARD}
    assert unheard.class_names == rest.class_names
    assert (unheard.labels[unheard.parts != "test"] >= 0).all()


def test_unheard_words_are_standardised_as_the_heard_are(root, tmp_path):
    rest, unheard = (
        features.extract(load(root, split), tmp_path / "cache") for split in ("without zero", "unheard zero")
    )
    for part in ("train", "validation"):
        assert (rest.part(part).features == unheard.part(part).features).all()
    assert len(unheard.part("test").labels) == 3


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("without eleven", "leaves out 'eleven', which is no class of the set: it has zero"),
        ("unheard german", "leaves out 'german'"),
        ("without zero,one,two,three,four,five,six,seven,eight", "has to leave two classes or more"),
        ("without ", "leaves out '', which is no class"),
        ("without", "has no split called 'without'; its splits are .*, and 'without' or 'unheard' with the names of"),
    ],
)
def test_a_split_that_cannot_be_is_refused(root, split, told):
    with pytest.raises(ValueError, match=told):
        load(root, split)


def test_words_that_the_test_part_does_not_say_cannot_be_the_unheard(root):
    for path in (root / "recordings").glob("4_theo_*"):
        path.unlink()
    assert len(load(root, "without four").class_names) == 9
    with pytest.raises(ValueError, match=r"The test part of 'fsdd' in .* is empty under the split 'unheard four'"):
        load(root, "unheard four")


def test_the_published_counts_are_those_of_the_whole_set(root, monkeypatch):
    seen = []
    monkeypatch.setattr(datasets.fsdd, "SPEAKERS", SPEAKERS)
    monkeypatch.setattr(datasets.fsdd, "check_counts", lambda name, split, found, *_: seen.append((split, found)))
    load(root, "unheard zero")
    assert seen == [("speaker-theo", {"train": 60, "validation": 30, "test": 30})]


def test_a_language_has_a_short_name(hd_root):
    rest, unheard = (datasets.load("hd", split, hd_root) for split in ("without german", "unheard german"))
    assert rest.class_names == unheard.class_names == datasets.hd.CLASS_NAMES[:10]
    assert all("english" in path for path in rest.paths)
    assert all("german" in path for path in unheard.part("test").paths)
    assert len(unheard.part("test")) == 10
    assert datasets.load("hd", "without english", hd_root).class_names == datasets.hd.CLASS_NAMES[10:]
    with pytest.raises(ValueError, match="has to leave two classes or more"):
        datasets.load("hd", "without english, german", hd_root)


def test_the_unheard_are_not_validated_on_where_the_test_part_is(hd_root):
    unheard = datasets.load("hd", "unheard german", hd_root, validation="test")
    assert all("english" in path for path in unheard.part("validation").paths)
    assert all("german" in path for path in unheard.part("test").paths)
