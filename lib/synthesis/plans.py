"""Who says what, how often, and in which part: HD's, SC's and SHD's sets at any size, or in their published counts."""

from collections import Counter

from lib.datasets import hd, sc, shd
from lib.synthesis.sound import Recording, draw_speaker, generator

SAMPLE_RATE = 16_000

# Twelve voices, as HD has, women and men in turn. Speakers 04 and 05 stand in the test part only; of the others'
# recordings it takes a twentieth.
HD_VARIANTS = ("f1", "m1", "f3", "m2", "f2", "m3", "f4", "m4", "Annie", "Alex", "f5", "m7")
HD_TEST_SPEAKERS = ("04", "05")
HD_TEST_SHARE = 0.05
HD_SAMPLE_RATE = 48_000  # at full size only: a small set is to be read quickly

# Of the speakers, more than SC's own tenth in the validation and the test part each, so that a small set is tested on
# enough of them.
SC_HELD_OUT_SHARE = 0.15
SC_SPEAKERS = 2_618  # at full size

Plan = tuple[list[Recording], dict[str, list[str]]]


def plan_shd(utterances: int | None, seed: int) -> Plan:
    """The recordings that "synthetic-shd" is heard from: those of "synthetic-hd", or SHD's own number of such."""
    return plan_hd(utterances, seed, shd.PUBLISHED_COUNTS)


def plan_hd(utterances: int | None, seed: int, published: dict[str, int] | None = None) -> Plan:
    """The recordings and the file lists of "synthetic-hd"; None is the `published` size (None: HD's own).

    The speakers say each word equally often; at HD's own size the first of them say theirs once more.
    """
    once = len(HD_VARIANTS) * len(hd.CLASS_NAMES)
    if utterances is not None and utterances < once:
        raise ValueError(f"A synthetic set of HD's words has at least {once} utterances, not {utterances}.")
    published = hd.PUBLISHED_COUNTS[0] if published is None else published
    each, more = divmod(sum(published.values()), once) if utterances is None else (round(utterances / once), 0)
    sample_rate = HD_SAMPLE_RATE if utterances is None else SAMPLE_RATE
    recordings, draws = [], {}
    for number, variant in enumerate(HD_VARIANTS):
        identity = f"{number:02d}"
        speaker = draw_speaker(generator(seed, identity))._replace(variant=variant)
        for label, word in enumerate(hd.CLASS_NAMES):
            language, accent = ("english", speaker.accent) if label < 10 else ("german", "de")
            for trial in range(each + (number * len(hd.CLASS_NAMES) + label < more)):
                file_name = f"lang-{language}_speaker-{identity}_trial-{trial}_digit-{label % 10}.flac"
                recordings.append(Recording(f"audio/{file_name}", speaker, accent, word, sample_rate, None))
                draws[file_name] = -1 if identity in HD_TEST_SPEAKERS else generator(seed, file_name).random()
    share = sorted(draws.values())[published["test"]] if utterances is None else HD_TEST_SHARE
    lists = {"train_filenames.txt": [], "test_filenames.txt": []}
    for file_name, draw in draws.items():
        lists["test_filenames.txt" if draw < share else "train_filenames.txt"].append(file_name)
    return recordings, lists


def plan_sc(utterances: int | None, seed: int) -> Plan:
    """The recordings and the file lists of "synthetic-sc"; None is SC's own size, in its counts under both splits.

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
        speakers = {parts: round(SC_SPEAKERS * n / sum(counts.values())) for parts, n in counts.items()}
    else:
        if utterances < 4 * len(sc.WORDS):
            raise ValueError(f"'synthetic-sc' has at least {4 * len(sc.WORDS)} utterances, not {utterances}.")
        limits = (20,)
        held_out = round(SC_HELD_OUT_SHARE * (total := round(utterances / len(sc.WORDS))))
        speakers = {("train",): total - 2 * held_out, ("validation",): held_out, ("test",): held_out}
        counts = {parts: number * len(sc.WORDS) for parts, number in speakers.items()}

    recordings, lists = [], {"validation_list.txt": [], "testing_list.txt": []}
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
            recordings.append(Recording(path, speaker, speaker.accent, word, SAMPLE_RATE, SAMPLE_RATE))
            if parts[0] != "train":
                lists["validation_list.txt" if parts[0] == "validation" else "testing_list.txt"].append(path)
        said[parts] += share
    return recordings, lists
