"""What measures say of methods: how good an uncertainty is, and how sure a difference between two methods is.

Intervals cover 95 %. Every difference between methods goes through ``differences``: over seeds and speakers together
where each utterance's score is stored, over seeds alone where a number is a network's.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.special
import scipy.stats
from jaxtyping import Float, Shaped

from lib.metrics import Column

COVERED = 0.95
# What is compared in Table 1.
MEASURES = ("accuracy", "nll", "brier", "ece")


def risk_coverage(uncertainty: Shaped[Column, " utterances"], correct: Shaped[Column, " utterances"]) -> pd.DataFrame:
    """The risk of answering only the utterances that are certain enough.

    Columns: ``coverage``, the share of utterances that is answered, the most certain first, and ``risk``, the share of
    errors among these. There is a row for each value of the uncertainty, so that utterances that tie are answered
    together. The curve of Geifman & El-Yaniv, "Selective classification for deep neural networks" (2017). Raises
    ``ValueError`` for no utterance, and where an uncertainty is NaN.
    """
    _check_numbers(uncertainty)
    table = pd.DataFrame({"uncertainty": np.asarray(uncertainty), "wrong": 1 - np.asarray(correct, dtype=float)})
    answered = table.groupby("uncertainty")["wrong"].agg(["size", "sum"]).cumsum().reset_index(drop=True)
    return pd.DataFrame({"coverage": answered["size"] / len(table), "risk": answered["sum"] / answered["size"]})


def risk_coverage_area(uncertainty: Shaped[Column, " utterances"], correct: Shaped[Column, " utterances"]) -> float:
    """AURC: the mean over utterances of the risk among those at least as certain, between 0 and 1; less is better.

    An uncertainty that says nothing has the error rate. Geifman, Uziel & El-Yaniv, "Bias-reduced uncertainty
    estimation for deep neural classifiers" (2019). Raises as ``risk_coverage`` does.
    """
    curve = risk_coverage(uncertainty, correct)
    return float(np.diff(curve["coverage"], prepend=0) @ curve["risk"])


def detection_auroc(known: Shaped[Column, " known"], unknown: Shaped[Column, " unknown"]) -> float:
    """The probability that an uncertainty is higher for an unknown utterance than for a known one.

    Utterances that tie count one half; 0.5 is chance. It is the Mann-Whitney U over the number of pairs (Hanley &
    McNeil, 1982). Raises ``ValueError`` for no utterance on either side, and where an uncertainty is NaN.
    """
    _check_numbers(known, unknown)
    # The test's p-value is not used; its asymptotic form costs least.
    wins = scipy.stats.mannwhitneyu(unknown, known, method="asymptotic").statistic
    return float(wins / (len(known) * len(unknown)))


def student_intervals(values: pd.DataFrame, *, one_more: bool = False) -> pd.DataFrame:
    """Mean of each column over the rows, which are seeds, and both ends of its Student interval.

    The columns of the result are ``mean``, ``from`` and ``to``, and its rows the columns of ``values``. The interval is
    that of the mean; with ``one_more`` it is that in which the number of one more seed would lie. NaN counts as no
    seed, and of one seed there is no interval (NaN).
    """
    mean, seeds = values.mean(), values.count()
    quantile = scipy.special.stdtrit(seeds - 1, (1 + COVERED) / 2)
    half = quantile * values.std() * np.sqrt(one_more + 1 / seeds)
    return pd.DataFrame({"mean": mean, "from": mean - half, "to": mean + half})


def extrapolated(x: Column, y: Column, at: float, seeds: int) -> tuple[float, float, float]:
    """Where a straight line through ``y`` over the logarithm of ``x`` stands ``at`` a further x, and its interval.

    In the interval 95 % of the means of so many further ``seeds`` would lie, if the line is straight and what is around
    it independent, normal and of one width. Raises ``ValueError`` for fewer than three values, or NaN.
    """
    x, y = np.log(np.asarray(x, dtype=float)), np.asarray(y, dtype=float)
    _check_numbers(x, y)
    if len(x) < 3:
        raise ValueError(f"a line with an interval needs three values or more, not {len(x)}")
    line, away = scipy.stats.linregress(x, y), np.log(at) - x.mean()
    there = line.intercept + line.slope * np.log(at)
    around = np.square(y - line.intercept - line.slope * x).sum() / (len(x) - 2)
    error = np.sqrt(around * (1 / seeds + 1 / len(x) + away**2 / np.square(x - x.mean()).sum()))
    half = scipy.special.stdtrit(len(x) - 2, (1 + COVERED) / 2) * error
    return float(there), float(there - half), float(there + half)


def differences(
    rows: pd.DataFrame,
    measures: str | Sequence[str],
    pairs: Mapping[str, tuple[str, str]],
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """The first method's measure less the second's for each pair (by its name), with its interval.

    ``rows`` have the columns ``method``, ``seed``, the measures, and those of ``by``, each group of which is compared
    by itself. Where they have a row for each ``utterance``, with its ``speaker``, the interval is crossed over seeds
    and speakers (``crossed_interval``); else it is Student's over seeds. Only the seeds that both methods have count,
    and one seed has a difference without an interval (NaN). A pair of which a group lacks a method is left out.
    Columns: those of ``by``, measure (where several are given), pair, method, reference, difference, from, to.
    """
    several, within = not isinstance(measures, str), _of_an_utterance(rows)
    groups = rows.groupby([*by], sort=False, observed=True) if by else [((), rows)]
    found = []
    for measure in measures if several else [measures]:
        for key, part in groups:
            columns = ["method", *within] if within else "method"
            wide = part.pivot(index="seed", columns=columns, values=measure).astype(float)
            there = set(part["method"])
            found += [
                (*key, *([measure] if several else []), name, *pair, *_interval(wide[pair[0]] - wide[pair[1]]))
                for name, pair in pairs.items()
                if there.issuperset(pair)
            ]
    columns = [*by, *(["measure"] if several else []), "pair", "method", "reference", "difference", "from", "to"]
    return pd.DataFrame(found, columns=columns)


def ratios(
    rows: pd.DataFrame,
    measures: str | Sequence[str],
    pairs: Mapping[str, tuple[str, str]],
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """How many times the second method's measure the first one's is, as ``differences``, of which 1 is none.

    The measures are positive, and their logarithms are compared, so that a ratio is a geometric mean.
    """
    logarithms = {measure: np.log(rows[measure]) for measure in np.atleast_1d(measures)}
    found = differences(rows.assign(**logarithms), measures, pairs, by)
    return found.assign(**np.exp(found[["difference", "from", "to"]]))


def pooled(
    rows: pd.DataFrame,
    measures: str | Sequence[str],
    pairs: Mapping[str, tuple[str, str]],
    over: str,
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """The main effect of the method in a balanced design: its mean difference over the values of the column ``over``.

    The mean is taken for each seed, and utterance where there are such, and then compared as ``differences`` does: the
    interval is that of the mean over these settings, for other seeds and speakers. Raises ``ValueError`` where a method
    and seed lack one of the settings, or have it twice.
    """
    each = [*by, "method", "seed", *_of_an_utterance(rows)]
    groups = rows.groupby(each, sort=False, observed=True)
    if (groups[over].agg(["size", "nunique"]) != rows[over].nunique()).any(axis=None):
        raise ValueError(f"the mean over {over} is that of a balanced design: give each method and seed all of it once")
    means = groups[list(np.atleast_1d(measures))].mean().reset_index()
    return differences(means, measures, pairs, by)


def decimals(*errors: float) -> int:
    """How many decimals show two digits of an error, of several of their median; three where there is none."""
    known = [error for error in errors if error > 0]
    return int(np.clip(1 - np.floor(np.log10(np.median(known))), 0, 5)) if known else 3


def beside_chance(found: pd.DataFrame, none: float = 0) -> str:
    """How many of the intervals exclude ``none``, no difference, and how many would by chance, as a sentence.

    The latter is the expected number, which holds for comparisons that depend on each other, too.
    """
    there = found.dropna(subset=["from", "to"])
    outside = int(((there["from"] > none) | (there["to"] < none)).sum())
    chance = (1 - COVERED) * len(there)
    return f"{outside} of {len(there)} intervals exclude {none:g}; by chance alone about {chance:.1f} would."


def crossed_interval(
    differences: Float[np.ndarray, "seeds utterances"], speakers: Shaped[Column, " utterances"]
) -> tuple[float, float, float]:
    """The mean of differences between two methods, and both ends of its interval over seeds and speakers together.

    Another training would move the mean, and so would other speakers: each seed meets the same utterances, of which a
    speaker's are not independent. Speakers are taken as clusters of the mean (linearised, since some say more than
    others), seeds and clusters as crossed random effects, whose mean squares add up to the variance of the mean; its
    degrees of freedom are Satterthwaite's (1946). Without speakers give each utterance its own. Raises ``ValueError``
    for fewer than two seeds or speakers, and where a difference is NaN.
    """
    _check_numbers(differences)
    names, of, said = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    seeds, clusters, mean = len(differences), len(names), float(differences.mean())
    if min(seeds, clusters) < 2:
        raise ValueError(f"an interval over seeds and speakers needs two of each, not {seeds} and {clusters}")
    sums = np.stack([np.bincount(of, row, clusters) for row in differences])
    parts = (sums - said * mean) * (clusters / len(of))  # their mean is zero
    by_seed, by_speaker = parts.mean(axis=1, keepdims=True), parts.mean(axis=0, keepdims=True)
    squares = np.array([np.square(of_one).sum() for of_one in (by_seed, by_speaker, parts - by_seed - by_speaker)])
    freedom = np.array([seeds - 1, clusters - 1, (seeds - 1) * (clusters - 1)])
    of_seeds, of_speakers, of_rest = mean_squares = squares * (clusters, seeds, 1) / freedom
    total = of_seeds + of_speakers - of_rest
    counted = np.ones(3, dtype=bool)
    if total < (most := max(of_seeds, of_speakers)):  # no less than either alone would give
        total, counted = most, mean_squares == most
    if total == 0:
        return mean, mean, mean
    half = scipy.special.stdtrit(
        total**2 / (np.square(mean_squares) / freedom)[counted].sum(), (1 + COVERED) / 2
    ) * np.sqrt(total / (seeds * clusters))
    return mean, mean - float(half), mean + float(half)


def rank_correlations(
    networks: pd.DataFrame, predictors: Iterable[str], outcomes: Iterable[str], resamples: int = 2000
) -> pd.DataFrame:
    """Spearman's correlation of each predictor with each outcome over networks, with its interval over methods.

    ``networks`` have a row for each network and the columns ``method`` and those that are named; a network that lacks
    one of the two is left out. Columns: measure, outcome, correlation, from, to.
    """
    rows = []
    for pair in itertools.product(predictors, outcomes):
        have = networks.dropna(subset=pair)
        columns = (have[name] for name in (*pair, "method"))
        rows.append((*pair, *grouped_rank_correlation(*columns, resamples, seed=0)))
    return pd.DataFrame(rows, columns=["measure", "outcome", "correlation", "from", "to"])


def grouped_rank_correlation(
    first: Shaped[Column, " networks"],
    second: Shaped[Column, " networks"],
    groups: Shaped[Column, " networks"],
    resamples: int,
    seed: int,
) -> tuple[float, float, float]:
    """Spearman's rank correlation, and both ends of its interval where members of a group are not independent.

    Whole groups are drawn anew with replacement (a cluster bootstrap, Efron's percentile interval), and ranks taken
    anew. With few groups such an interval is too narrow rather than too wide. A resample in which either is constant
    has no correlation and is left out. Raises ``ValueError`` for no network, and where a value is NaN.
    """
    _check_numbers(first, second)
    values, groups = np.stack([first, second]), np.asarray(groups)
    members = [np.flatnonzero(groups == group) for group in dict.fromkeys(groups)]
    choices = np.random.default_rng(seed).integers(len(members), size=(resamples, len(members)))
    drawn: dict[int, list[np.ndarray]] = {}  # by their length, so that those of one length are ranked together
    for one in choices:
        places = np.concatenate([members[group] for group in one])
        drawn.setdefault(len(places), []).append(places)
    found = np.concatenate([_rank_correlations(values[:, np.stack(same)]) for same in drawn.values()])
    low, high = np.nanpercentile(found, [2.5, 97.5]) if np.isfinite(found).any() else (np.nan, np.nan)
    return float(_rank_correlations(values[:, None])[0]), float(low), float(high)


def _rank_correlations(values: Shaped[np.ndarray, "2 resamples networks"]) -> Float[np.ndarray, " resamples"]:
    """Pearson's correlation of the ranks; NaN where either of the two is constant."""
    ranks = scipy.stats.rankdata(values, axis=-1)
    first, second = ranks - ranks.mean(axis=-1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.divide((first * second).sum(axis=-1), scale, out=np.full_like(scale, np.nan), where=scale > 0)


def _of_an_utterance(rows: pd.DataFrame) -> list[str]:
    return ["utterance", "speaker"] if "utterance" in rows else []


def _interval(gap: pd.Series | pd.DataFrame) -> tuple[float, float, float]:
    """Mean and interval of the differences of seeds, or of seeds and utterances [seeds, (utterance, speaker)]."""
    gap = gap.dropna()
    if gap.ndim == 2 and len(gap) > 1:
        return crossed_interval(gap.to_numpy(), gap.columns.get_level_values("speaker").to_numpy())
    return tuple(student_intervals((gap if gap.ndim == 1 else gap.mean(axis=1)).to_frame()).iloc[0])


def _check_numbers(*columns: Column) -> None:
    for values in columns:
        missing = int(np.isnan(np.asarray(values, dtype=float)).sum())
        if missing or len(values) == 0:
            raise ValueError(f"expected at least one value and no NaN; there are {len(values)}, and {missing} NaN")
