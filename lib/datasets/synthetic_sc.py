"""Synthetic speech in SC's layout: eSpeak NG says the 35 words of Speech Commands."""

from collections import Counter

from lib import synthesis
from lib.datasets import sc
from lib.datasets.dataset import synthetic
from lib.synthesis.sound import FEMALE, MALE, SETTINGS, Recording, draw_speaker, generator

# Of the speakers, more than SC's own tenth in the validation and the test part each, so that a small set is tested on
# enough of them.
HELD_OUT_SHARE = 0.15
FULL_SPEAKERS = 2_618


def plan(utterances: int | None, seed: int) -> synthesis.Plan:
    """Plan the recordings and the file lists; None is SC's own size, in its counts under both splits.

    Speakers are named so that SC's hash gives their part. Every speaker says every word once; at SC's own size they
    say some of them once more, each going on where the one before ended.
    """
    if utterances is None:
        official, other = sc.PUBLISHED_COUNTS["official"], sc.PUBLISHED_COUNTS["70-10-20"]
        limits = (20, 30)
        counts = {
            ("train", "train"): other["train"],
            ("validation", "validation"): official["validation"],
            ("test", "test"): official["test"],
            ("train", "test"): other["test"] - official["test"],
        }
        speakers = {parts: round(FULL_SPEAKERS * n / sum(counts.values())) for parts, n in counts.items()}
    else:
        if utterances < 4 * len(sc.WORDS):
            raise ValueError(f"'synthetic-sc' has at least {4 * len(sc.WORDS)} utterances, not {utterances}")
        limits = (20,)
        held_out = round(HELD_OUT_SHARE * (total := round(utterances / len(sc.WORDS))))
        speakers = {("train",): total - 2 * held_out, ("validation",): held_out, ("test",): held_out}
        counts = {parts: number * len(sc.WORDS) for parts, number in speakers.items()}

    recordings, lists = [], {file_name: [] for file_name in sc.LISTS.values()}
    names, taken, said = generator(seed, "names"), set(), Counter()
    while any(speakers.values()):
        identity = names.bytes(4).hex()
        parts = tuple(sc.hashed_part(identity, 10, limit) for limit in limits)
        if identity in taken or not speakers[parts]:
            continue
        taken.add(identity)
        speaker = draw_speaker(generator(seed, identity))
        share = -(-(counts[parts] - said[parts]) // speakers[parts])
        speakers[parts] -= 1
        for number in range(share):
            word = sc.WORDS[(said[parts] + number) % len(sc.WORDS)]
            path = f"{word}/{identity}_nohash_{number // len(sc.WORDS)}.wav"
            recordings.append(Recording(path, speaker, speaker.accent, word, sc.SAMPLE_RATE, sc.SAMPLE_RATE))
            if parts[0] != "train":
                lists[sc.LISTS[parts[0]]].append(path)
        said[parts] += share
    return recordings, lists


SYNTHETIC_SC = synthetic(sc.SC, "synthetic-sc", 2_100, settings={"voices": FEMALE + MALE} | SETTINGS, plan=plan)
