"""Synthetic speech in HD's layout: eSpeak NG says the ten digits in English and in German."""

from collections.abc import Mapping

from lib import synthesis
from lib.datasets import hd
from lib.datasets.dataset import synthetic
from lib.synthesis.sound import SETTINGS, Recording, draw_speaker, generator

# Twelve voices, as HD has, women and men in turn. Speakers 04 and 05 stand in the test part only; of the others'
# recordings it takes a twentieth.
VOICES = ("f1", "m1", "f3", "m2", "f2", "m3", "f4", "m4", "Annie", "Alex", "f5", "m7")
TEST_SPEAKERS = ("04", "05")
TEST_SHARE = 0.05

SAMPLE_RATE = 16_000
FULL_SAMPLE_RATE = 48_000  # HD's own, at full size only: a small set is to be read quickly


def plan(utterances: int | None, seed: int, published: Mapping[str, int] | None = None) -> synthesis.Plan:
    """Plan the recordings and the file lists; with ``utterances`` None in the ``published`` counts (None: HD's own).

    The speakers say each word equally often; at HD's own size the first of them say theirs once more.
    """
    once = len(VOICES) * len(hd.CLASS_NAMES)
    if utterances is not None and utterances < once:
        raise ValueError(f"a synthetic set of HD's words has at least {once} utterances, not {utterances}")
    published = hd.PUBLISHED_COUNTS[0] if published is None else published
    each, more = divmod(sum(published.values()), once) if utterances is None else (round(utterances / once), 0)
    sample_rate = FULL_SAMPLE_RATE if utterances is None else SAMPLE_RATE
    recordings, draws = [], {}
    for number, variant in enumerate(VOICES):
        identity = f"{number:02d}"
        speaker = draw_speaker(generator(seed, identity))._replace(variant=variant)
        for label, word in enumerate(hd.CLASS_NAMES):
            language, accent = ("english", speaker.accent) if label < 10 else ("german", "de")
            for trial in range(each + (number * len(hd.CLASS_NAMES) + label < more)):
                file_name = f"lang-{language}_speaker-{identity}_trial-{trial}_digit-{label % 10}.flac"
                recordings.append(Recording(f"audio/{file_name}", speaker, accent, word, sample_rate, None))
                draws[file_name] = -1 if identity in TEST_SPEAKERS else generator(seed, file_name).random()
    share = sorted(draws.values())[published["test"]] if utterances is None else TEST_SHARE
    lists = {file_name: [] for file_name in hd.LISTS.values()}
    for file_name, draw in draws.items():
        lists[hd.LISTS["test" if draw < share else "train"]].append(file_name)
    return recordings, lists


SYNTHETIC_HD = synthetic(hd.HD, "synthetic-hd", 1_440, settings={"voices": VOICES} | SETTINGS, plan=plan)
