"""A finished run names recordings that it has never heard.

They are prepared as its training recordings were, whose statistics lie in its folder, and held against them: what is
unlike them in rate, length or level is said with the answer.
"""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32
from torch import Tensor

from lib import features, metrics, runs
from lib.datasets.folder import resampled
from lib.datasets.speech import Speech, level, read_sound
from lib.features import Frames
from lib.files import or_damaged, write_json
from lib.runs import HEARD, Root, Run

SLACK = {"seconds": 0.01, "level_db": 0.5}  # of no consequence beyond what is usual


@dataclass(frozen=True)
class Answer:
    """What a run says of a recording."""

    path: Path
    probabilities: pd.Series  # of each word, averaged over samples of the weights, the most probable first
    entropy: float  # of the averaged probabilities, in nats
    mutual_information: float  # how far the samples disagree, in nats
    unlike: tuple[str, ...]  # in what the recording is unlike those of the training part

    @property
    def most_entropy(self) -> float:
        """The entropy of one who knows nothing, in nats."""
        return math.log(len(self.probabilities))


def answers(run: Run, paths: Sequence[str | Path], samples: int = 16, data_root: Root = None) -> list[Answer]:
    """What the run says of each recording, averaged over ``samples`` draws of its weights.

    ``data_root`` is where the run's data set lies; it is read only for a run that was trained before runs kept what
    they heard. Raises ``ValueError`` for a file that is no recording, and for a run on spikes.
    """
    heard = heard_by(run, data_root)
    read = [prepared(Path(path), heard) for path in paths]
    names, number = tuple(heard["class_names"]), len(read)
    batch, labels = torch.stack([frames for frames, _ in read]), torch.zeros(number, dtype=torch.int64)
    frames = Frames(batch, labels, np.repeat("test", number), np.repeat("", number), names, run.record["data"])
    probabilities = runs.predicted(run, frames, batch, samples)
    average, entropies = metrics.model_average(probabilities), metrics.example_entropies(probabilities)
    shared = metrics.example_mutual_informations(probabilities)
    return [
        Answer(
            Path(path), pd.Series(average[place], names).sort_values(ascending=False, kind="stable"),
            float(entropies[place]), float(shared[place]), read[place][1],
        )
        for place, path in enumerate(paths)
    ]  # fmt: skip


def heard_by(run: Run, data_root: Root = None) -> dict[str, Any]:
    """The class names of a run, and how its training recordings were prepared; made anew where it is not kept."""
    path = run.folder / HEARD
    if path.exists():
        with or_damaged(path, "delete it: it is made anew from the run's data set"):
            heard = json.loads(path.read_text(encoding="utf-8"))
            itemgetter("recorded_at", "sample_rate", "frames", "class_names", "seconds", "level_db")(heard)
            if {len(heard["mean"]), len(heard["deviation"])} != {heard["num_mel_bins"]}:
                raise ValueError("its statistics are not of its mel bins")
        return heard
    utterances = runs.load_utterances(run.setup, data_root)
    if not isinstance(utterances, Speech):
        raise ValueError(f"{run} was trained on spikes and can name no recording: give a run on recordings")
    with tempfile.TemporaryDirectory() as cache:
        frames = utterances.frames(run.setup.data, Path(cache))
        if frames.fingerprint != run.record["data"]:
            raise ValueError(f"{utterances.root} does not hold the recordings of {run}: give their folder (data_root)")
        heard = frames.heard | {"class_names": list(frames.class_names)}
    with suppress(OSError):  # a folder that can only be read is as good
        write_json(path, heard)
    return heard


def prepared(path: Path, heard: Mapping[str, Any]) -> tuple[Float32[Tensor, "time mel"], tuple[str, ...]]:
    """The features of a recording as the run's training recordings have them, and in what it is unlike these."""
    sound, rate = read_sound(path)
    samples = resampled(sound.mean(axis=1), rate, heard["recorded_at"])
    unlike = [f"{channels} channels, of which the mean is taken"] if (channels := sound.shape[1]) > 1 else []
    least = heard["sample_rate"] * features.FRAME_LENGTH_MS // 1000
    if len(samples) < least:
        raise ValueError(
            f"{path} has {len(samples)} samples at {heard['recorded_at']:,} Hz, fewer than one frame of "
            f"{features.FRAME_LENGTH_MS} ms ({least}): give a whole word"
        )
    if rate != heard["recorded_at"]:
        lost = f", so that there is nothing in it above {rate / 2:,.0f} Hz" if rate < heard["recorded_at"] else ""
        unlike.append(f"recorded at {rate:,} Hz and brought to their {heard['recorded_at']:,} Hz{lost}")
    for value, unit, name in (
        (len(samples) / heard["recorded_at"], "s long", "seconds"),
        (level(torch.from_numpy(samples)), "dB loud", "level_db"),
    ):
        low, high = heard[name]
        if not low - SLACK[name] <= value <= high + SLACK[name]:
            unlike.append(f"{value:.2f} {unit}, where 98 % of them have {low:.2f} to {high:.2f}")
    shape = heard["frames"], heard["num_mel_bins"]
    middle = features.middle_frames(torch.from_numpy(samples), *shape, heard["sample_rate"])
    frames = np.zeros(shape, dtype=np.float32)
    frames[: len(middle)] = (middle - np.array(heard["mean"])) / np.array(heard["deviation"])
    return torch.from_numpy(frames), tuple(unlike)
