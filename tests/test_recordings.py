"""A finished run names recordings: the same answers as in its evaluation, and a word where a recording is unlike."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_world import removed, setup, sound

from lib import datasets, runs
from lib.runs import recordings
from lib.runs.__main__ import main

WORDS, SPEAKERS = ("bed", "yes"), range(12)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Noise of two levels for words, from 0.2 s to 0.31 s long; a run by Adam and one by IVON."""
    root = tmp_path_factory.mktemp("world")
    random, lists = np.random.default_rng(0), {"validation": [], "testing": []}
    for word, loudness in zip(WORDS, (0.02, 0.2), strict=True):
        (root / "sc" / word).mkdir(parents=True)
        for speaker in SPEAKERS:
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            noise = loudness * random.uniform(-1, 1, 3_200 + 160 * (5 * speaker % 12))
            soundfile.write(root / "sc" / name, noise, 16_000, subtype="FLOAT")
            if speaker >= 8:
                lists["validation" if speaker < 10 else "testing"].append(name)
    for part, names in lists.items():
        (root / "sc" / f"{part}_list.txt").write_text("\n".join(names))
    for method in ("map", "ivon"):
        asked = setup(method=method)
        runs.train(asked, frames(root, asked), root / "runs")
    return root


def frames(root: Path, asked=None, snr: float | None = None) -> runs.Frames:
    return runs.load_frames(asked or setup(), root / "sc", snr, root / "features")


def run(world: Path, method: str = "ivon") -> runs.Run:
    return runs.Run(next((world / "runs").glob(f"sc-{method}-*")))


def spoken(world: Path) -> list[Path]:
    speech = datasets.load("sc", world / "sc").part("test")
    return [speech.root / path for path in speech.paths]


@pytest.mark.parametrize("asked", [setup(), setup(filterbank_rate=20_000), setup(num_frames=19)])
def test_a_recording_is_prepared_as_the_data_set_was(world: Path, asked) -> None:
    of_set = frames(world, asked)
    for path, expected in zip(spoken(world), of_set.part("test").features, strict=True):
        assert torch.equal(recordings.prepared(path, of_set.heard)[0], expected)


@pytest.mark.parametrize("method", ["map", "ivon"])
def test_the_answers_are_those_of_the_evaluation(world: Path, method: str) -> None:
    evaluation = runs.evaluate(run(world, method), frames(world), 4, 5)
    answers = recordings.answers(run(world, method), spoken(world), 4)
    named = np.stack([answer.probabilities[list(WORDS)] for answer in answers])
    np.testing.assert_allclose(named, evaluation.probabilities, rtol=1e-6)
    assert np.mean([answer.entropy for answer in answers]) == pytest.approx(evaluation.figures["entropy"])
    disagreement = np.mean([answer.mutual_information for answer in answers])
    assert disagreement == pytest.approx(evaluation.figures["mutual_information"], abs=1e-12)
    assert (disagreement > 0) == (method == "ivon")
    assert all(answer.probabilities.is_monotonic_decreasing and not answer.unlike for answer in answers)


def test_noise_and_copies_do_not_enter_what_was_heard(world: Path) -> None:
    plain = frames(world).heard
    other = frames(world, snr=0.0).heard
    assert {name: other[name] for name in plain} == plain
    assert frames(world, setup(augmented=1)).heard["mean"] == plain["mean"]
    lengths = [(3_200 + 160 * (5 * speaker % 12)) / 16_000 for speaker in range(8)]
    np.testing.assert_allclose(plain["seconds"], np.quantile(np.repeat(lengths, 2), (0.01, 0.99)))


@pytest.mark.parametrize(
    ("rate", "channels", "repeat", "gain", "said"),
    [
        (16_000, 1, 1, 1.0, ""),
        (8_000, 1, 1, 1.0, "recorded at 8,000 Hz and brought to their 16,000 Hz.* nothing in it above 4,000 Hz"),
        (48_000, 1, 1, 1.0, r"recorded at 48,000 Hz and brought to their 16,000 Hz$"),
        (16_000, 2, 1, 1.0, "2 channels, of which the mean is taken"),
        (16_000, 1, 9, 1.0, r"\d\.\d\d s long, where 98 % of them have 0.20 to 0.31"),
        (16_000, 1, 1, 1e-3, r"-\d+\.\d\d dB loud, where 98 % of them have -38.87"),
    ],
)
def test_it_says_in_what_a_recording_is_unlike(world, tmp_path, rate, channels, repeat, gain, said) -> None:
    samples = gain * 0.1 * np.random.default_rng(1).uniform(-1, 1, (int(0.25 * rate) * repeat, channels))
    soundfile.write(tmp_path / "mine.flac", samples, rate)
    (answer,) = recordings.answers(run(world), [tmp_path / "mine.flac"])
    assert len(answer.unlike) == bool(said)
    assert re.search(said, "".join(answer.unlike))
    assert answer.probabilities.sum() == pytest.approx(1)


def test_for_a_run_that_does_not_hold_it_what_was_heard_is_made_from_its_data(world: Path, tmp_path: Path) -> None:
    shutil.copytree(run(world).folder, tmp_path / "run")
    kept = (tmp_path / "run" / "heard.json").read_text()
    (tmp_path / "run" / "heard.json").unlink()
    recordings.answers(runs.Run(tmp_path / "run"), spoken(world), data_root=world / "sc")
    assert (tmp_path / "run" / "heard.json").read_text() == kept


def test_the_command_names_recordings(world: Path, capsys) -> None:
    files = [str(path) for path in spoken(world)]
    assert main(["predict", str(run(world).folder), *files, "--samples", "2"]) == 0
    said = capsys.readouterr().out
    assert all(said.count(word) >= len(files) for word in (*WORDS, "entropy", "mutual information"))
    assert [line for line in said.splitlines() if line in files] == files


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("run", "no-run is no finished run: give the folder that holds its run.json"),
        ("absent", "absent.wav"),
        ("text", "text.wav does not decode as audio"),
        ("short", "short.wav has 160 samples at 16,000 Hz, fewer than one frame of 25 ms"),
        ("samples", "--samples 0 does not fit: it must be a whole number from 1 up"),
        ("heard", "heard.json is damaged or missing .*; delete it: it is made anew"),
        ("other data", "does not hold the recordings of sc-ivon.*: give their folder"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(world: Path, tmp_path: Path, capsys, wrong: str, words: str) -> None:
    folder = shutil.copytree(run(world).folder, tmp_path / run(world).folder.name)
    data, asked = world / "sc", [str(spoken(world)[0])]
    (tmp_path / "text.wav").write_text("RIFF, she said")
    sound("short.wav", seconds=0.01)(tmp_path)
    if wrong in ("absent", "text", "short"):
        asked = [str(tmp_path / f"{wrong}.wav")]
    elif wrong == "heard":
        (folder / "heard.json").write_text("{}")
    elif wrong == "other data":
        (folder / "heard.json").unlink()
        data = shutil.copytree(data, tmp_path / "other")
        removed("other/bed/00000000_nohash_0.wav")(tmp_path)
    named = "no-run" if wrong == "run" else str(folder)
    options = ["--samples", "0" if wrong == "samples" else "2", "--data-root", str(data)]
    assert main(["predict", named, *asked, *options]) == 1
    assert re.search(words, capsys.readouterr().err)
