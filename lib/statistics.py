"""What measures say of methods: how good an uncertainty is, and how sure a difference between two methods is.

Intervals cover 95 %. An interval over seeds says how far another training would move a number, one over utterances how
far other test utterances would move it for these trained networks.
"""

import itertools
from collections.abc import Iterable, Sequence

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


def seed_differences(rows: pd.DataFrame, measure: str, pairs: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """The first method's measure less the second's for each pair of methods, with its interval over seeds.

    ``rows`` have the columns ``method``, ``seed`` and the measure, one row for each method and seed. Only the seeds
    that both methods have count. Columns: method, reference, difference, from, to.
    """
    wide, pairs = rows.pivot(index="seed", columns="method", values=measure).astype(float), list(pairs)
    gaps = pd.DataFrame({number: wide[method] - wide[reference] for number, (method, reference) in enumerate(pairs)})
    return _of_pairs(pairs, student_intervals(gaps).to_numpy().tolist())


def paired_differences(rows: pd.DataFrame, method: str, reference: str) -> pd.DataFrame:
    """The method's figures of Table 1 less the reference's, with their intervals over seeds.

    ``rows`` are those of Table 1. The result has a row for each data set and measure, and the columns difference, from
    and to. Only data sets and seeds that both methods have count.
    """
    wide = rows.pivot(index="seed", columns=["dataset", "method"], values=list(MEASURES)).astype(float)
    gaps = wide.xs(method, axis=1, level="method") - wide.xs(reference, axis=1, level="method")
    found = student_intervals(gaps.dropna(axis=1, how="all")).rename_axis(["measure", "dataset"])
    return found.swaplevel().sort_index().rename(columns={"mean": "difference"})


def utterance_differences(
    scores: pd.DataFrame, measure: str, pairs: Iterable[tuple[str, str]], resamples: int = 10_000
) -> pd.DataFrame:
    """The first method's measure less the second's for each pair of methods, with its interval over utterances.

    ``scores`` have the columns ``method``, ``seed``, ``utterance`` and the measure, of one data set. Only the seeds
    that both methods have count. Columns: method, reference, difference, from, to.
    """
    wide = scores.pivot(index="seed", columns=["method", "utterance"], values=measure).astype(float)
    pairs = list(pairs)
    gaps = [(wide[method] - wide[reference]).dropna().to_numpy() for method, reference in pairs]
    return _of_pairs(pairs, [paired_bootstrap(gap, resamples, seed=0) for gap in gaps])


def paired_bootstrap(
    differences: Float[np.ndarray, "seeds utterances"], resamples: int, seed: int
) -> tuple[float, float, float]:
    """The mean difference between two methods on the same utterances, and both ends of its interval over utterances.

    Differences are averaged over seeds first; then utterances are drawn anew with replacement (Efron's percentile
    interval). Raises ``ValueError`` for fewer than two utterances, and where a difference is NaN.
    """
    _check_numbers(differences)
    of_utterances = differences.mean(axis=0)
    # In batches: all resamples at once would take gigabytes.
    interval = scipy.stats.bootstrap(
        (of_utterances,), np.mean, n_resamples=resamples, batch=100, method="percentile", rng=seed
    ).confidence_interval
    return float(of_utterances.mean()), float(interval.low), float(interval.high)


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


def _of_pairs(pairs: Sequence[tuple[str, str]], intervals: Iterable[Sequence[float]]) -> pd.DataFrame:
    rows = [(*pair, *interval) for pair, interval in zip(pairs, intervals, strict=True)]
    return pd.DataFrame(rows, columns=["method", "reference", "difference", "from", "to"])


def _check_numbers(*columns: Column) -> None:
    for values in columns:
        missing = int(np.isnan(np.asarray(values, dtype=float)).sum())
        if missing or len(values) == 0:
            raise ValueError(f"expected at least one value and no NaN; there are {len(values)}, and {missing} NaN")
