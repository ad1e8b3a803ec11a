"""Splits that hold classes out: what is in training, what is not, and that the rest stays what it was."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from test_datasets import hd_root, load  # noqa: F401

from lib import datasets
from lib.datasets import fsdd, hd
from lib.datasets.dataset import HELD_OUT
from lib.features import PARTS

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


def said(loaded, part):
    return sorted(path for path, of in zip(loaded.paths, loaded.parts, strict=True) if of == part)


def test_the_classes_are_out_of_every_part_and_the_rest_is_numbered_anew(root):
    whole, rest = load("fsdd", root), load("fsdd", root, split="without zero, seven")
    assert rest.class_names == tuple(name for name in whole.class_names if name not in ("zero", "seven"))
    for part in PARTS:
        assert said(rest, part) == [path for path in said(whole, part) if path[11] not in "07"]
    words = {path: whole.class_names[label] for path, label in zip(whole.paths, whole.labels, strict=True)}
    assert all(rest.class_names[label] == words[path] for path, label in zip(rest.paths, rest.labels, strict=True))


def test_the_held_out_are_the_test_utterances_of_these_classes(root):
    splits = (None, "without zero, seven", "held-out zero, seven")
    whole, rest, held_out = (load("fsdd", root, split=split) for split in splits)
    for part in ("train", "validation"):
        assert said(held_out, part) == said(rest, part)
    assert said(held_out, "test") == [path for path in said(whole, "test") if path[11] in "07"]
    assert set(held_out.part("test").labels) == {HELD_OUT}
    assert held_out.class_names == rest.class_names
    assert (held_out.labels[held_out.parts != "test"] >= 0).all()


def test_the_held_out_are_standardised_as_the_others_are(root, tmp_path):
    dataset, frames = datasets.get("fsdd"), []
    for split in ("without zero", "held-out zero"):
        settings = dataset.settings(split=split)
        frames.append(dataset.frames(dataset.load(root, settings), settings, tmp_path / "cache"))
    for part in ("train", "validation"):
        assert (frames[0].part(part).features == frames[1].part(part).features).all()
    assert len(frames[1].part("test").labels) == 3


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("without eleven", "holds out 'eleven', which is no class of the set: zero, one"),
        ("held-out german", "holds out 'german'"),
        ("without zero,one,two,three,four,five,six,seven,eight", "has to leave two classes or more"),
        ("without ", "holds out '', which is no class"),
        ("without", "has no split called 'without': its splits are .*, and 'without' or 'held-out' with the names of"),
    ],
)
def test_a_split_that_cannot_be_is_refused(root, split, told):
    with pytest.raises(ValueError, match=told):
        load("fsdd", root, split=split)


def test_classes_that_the_test_part_does_not_have_cannot_be_the_held_out(root):
    for path in (root / "recordings").glob("4_theo_*"):
        path.unlink()
    assert len(load("fsdd", root, split="without four").class_names) == 9
    with pytest.raises(ValueError, match=r"the test part of 'fsdd' in .* is empty under the split 'held-out four'"):
        load("fsdd", root, split="held-out four")


def test_the_published_counts_are_those_of_the_whole_set(root, monkeypatch):
    seen = []
    monkeypatch.setattr(fsdd, "SPEAKERS", SPEAKERS)
    monkeypatch.setattr(fsdd, "check_counts", lambda name, split, parts, *_: seen.append((split, Counter(parts))))
    load("fsdd", root, split="held-out zero")
    assert seen == [("speaker-theo", {"train": 60, "validation": 30, "test": 30})]


def test_a_language_has_a_short_name(hd_root):  # noqa: F811
    rest, held_out = (load("hd", hd_root, split=split) for split in ("without german", "held-out german"))
    flattered = load("hd", hd_root, split="held-out german", validation="test")
    assert rest.class_names == held_out.class_names == hd.CLASS_NAMES[:10]
    assert all("english" in path for path in (*rest.paths, *flattered.part("validation").paths))
    # The order that a fingerprint of utterances has.
    assert list(dict.fromkeys(flattered.parts.tolist())) == ["train", "test", "validation"]
    for loaded in (held_out, flattered):
        assert len(loaded.part("test")) == 10
        assert all("german" in path for path in loaded.part("test").paths)
    assert load("hd", hd_root, split="without english").class_names == hd.CLASS_NAMES[10:]
    with pytest.raises(ValueError, match="has to leave two classes or more"):
        load("hd", hd_root, split="without english, german")
