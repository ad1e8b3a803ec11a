"""What a predictive distribution is worth: the measures of the paper's section 6.1 (equations 12 to 18), and more.

The paper's take probabilities, either of several sampled networks, ``[samples, examples, classes]``,
or of one, ``[examples, classes]``. Samples are averaged first (equation 12); only the expected entropy looks
at them one by one. Sums are taken in float64, logarithms are natural, and what belongs to an example is
averaged over the examples. ValueError is raised where probabilities are not distributions or do not fit the
labels.

The others take what ``utterance_scores`` has: what an uncertainty is good for, which is to answer only when sure and
to notice the unknown, and how sure a difference between two methods is.
"""

import numpy as np
import pandas as pd
import scipy.stats
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

Probabilities = Float[Tensor, "*samples examples classes"]
Labels = Int[Tensor, " examples"]
Column = np.ndarray | pd.Series

# Rounded to half precision, the probabilities of 35 classes still sum to one within this.
SUM_TOLERANCE = 1e-3


def model_average(probabilities: Probabilities) -> Float[Tensor, "examples classes"]:
    """The mean of the sampled networks' probabilities (equation 12), in float64."""
    _check_probabilities(probabilities)
    double = probabilities.double()
    return double.mean(dim=0) if double.ndim == 3 else double


def example_hits(probabilities: Probabilities, labels: Labels) -> Bool[Tensor, " examples"]:
    """Which examples have their label as the most probable class."""
    _check_labels(probabilities, labels)
    return model_average(probabilities).argmax(dim=-1) == labels


def correct_count(probabilities: Probabilities, labels: Labels) -> int:
    """How many examples have their label as the most probable class."""
    return int(example_hits(probabilities, labels).sum())


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """The fraction of correct answers, between 0 and 1."""
    return correct_count(probabilities, labels) / len(labels)


def confusion_matrix(probabilities: Probabilities, labels: Labels) -> Int[Tensor, "classes classes"]:
    """Counts of examples, a row for each true class and a column for each answer."""
    _check_labels(probabilities, labels)
    average = model_average(probabilities)
    classes = average.shape[-1]
    cells = labels * classes + average.argmax(dim=-1)
    return cells.bincount(minlength=classes**2).reshape(classes, classes)


def example_nlls(probabilities: Probabilities, labels: Labels) -> Float[Tensor, " examples"]:
    """The negative log-likelihood of each example, in nats.

    A probability of zero would make it infinite. Since a softmax reaches zero only by underflow, it counts as
    no less than the smallest normal number of the type in which it came (87.3 nats in float32).
    """
    _check_labels(probabilities, labels)
    of_label = model_average(probabilities).gather(-1, labels.long().unsqueeze(-1))
    return -of_label.squeeze(-1).clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float:
    """Equation 13, in nats."""
    return float(example_nlls(probabilities, labels).mean())


def example_brier_scores(probabilities: Probabilities, labels: Labels) -> Float[Tensor, " examples"]:
    """The squared distance of each example's prediction to its one-hot label, summed over classes."""
    _check_labels(probabilities, labels)
    average = model_average(probabilities)
    target = torch.nn.functional.one_hot(labels.long(), average.shape[-1])
    return (average - target).square().sum(dim=-1)


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Equation 14, between 0 and 2."""
    return float(example_brier_scores(probabilities, labels).mean())


def example_entropies(probabilities: Probabilities) -> Float[Tensor, " examples"]:
    """The entropy of each example's averaged prediction, in nats."""
    return torch.special.entr(model_average(probabilities)).sum(dim=-1)


def predictive_entropy(probabilities: Probabilities) -> float:
    """Equation 15: the entropy of the averaged prediction, in nats."""
    return float(example_entropies(probabilities).mean())


def expected_entropy(probabilities: Probabilities) -> float:
    """Equation 16: the mean entropy of the sampled networks' own predictions, in nats."""
    return float(_sample_entropies(probabilities).mean())


def example_mutual_informations(probabilities: Probabilities) -> Float[Tensor, " examples"]:
    """How far the sampled networks disagree about each example, in nats; 0 for one network."""
    return example_entropies(probabilities) - torch.atleast_2d(_sample_entropies(probabilities)).mean(dim=0)


def mutual_information(probabilities: Probabilities) -> float:
    """Equation 17: how far the sampled networks disagree, in nats (Houlsby et al., 2011); 0 for one."""
    return float(example_mutual_informations(probabilities).mean())


def utterance_scores(probabilities: Probabilities, labels: Labels) -> pd.DataFrame:
    """A row for each utterance, whose columns have the measures of the same name as their means.

    nll, entropy (of the averaged prediction) and mutual_information are in nats, brier lies between 0 and 2, correct
    is 0 or 1, and confidence is the probability of the answer.
    """
    columns = {
        "nll": example_nlls(probabilities, labels),
        "brier": example_brier_scores(probabilities, labels),
        "correct": example_hits(probabilities, labels).int(),
        "confidence": model_average(probabilities).amax(dim=-1),
        "entropy": example_entropies(probabilities),
        "mutual_information": example_mutual_informations(probabilities),
    }
    return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def reliability_bins(probabilities: Probabilities, labels: Labels, bins: int = 15) -> pd.DataFrame:
    """Count, mean confidence and accuracy of the examples in each of ``bins`` equal-width bins of confidence."""
    hits, confidence = example_hits(probabilities, labels), model_average(probabilities).amax(dim=-1)
    return confidence_bins(confidence.cpu().numpy(), hits.cpu().numpy(), bins)


def confidence_bins(
    confidence: Shaped[Column, " examples"], correct: Shaped[Column, " examples"], bins: int
) -> pd.DataFrame:
    """``reliability_bins`` of what ``utterance_scores`` has.

    Bin b of B holds the confidences in ((b-1)/B, b/B], as in Guo et al. (2017). An empty bin has the count 0
    and no confidence or accuracy (NaN).
    """
    if bins < 1:
        raise ValueError(f"Confidence needs at least one bin, not {bins}.")
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    table = pd.DataFrame(
        {
            "bin": np.searchsorted(inner_edges, confidence, side="left"),
            "confidence": np.asarray(confidence),
            "accuracy": np.asarray(correct, dtype=float),
        }
    ).groupby("bin")
    return table.mean().assign(count=table.size()).reindex(range(bins)).fillna({"count": 0}).astype({"count": int})


def expected_calibration_error(probabilities: Probabilities, labels: Labels, bins: int = 15) -> float:
    """Equation 18: the gap between confidence and accuracy of each equal-width bin, weighted by its count."""
    table = reliability_bins(probabilities, labels, bins)
    gaps = (table["accuracy"] - table["confidence"]).abs()
    return float((gaps * table["count"]).sum() / table["count"].sum())


def summary(probabilities: Probabilities, labels: Labels, bins: int = 15) -> dict[str, float | int]:
    """One row of Table 1: accuracy in percent, the exact count of correct answers, and the measures above."""
    return {
        "accuracy": 100 * accuracy(probabilities, labels),
        "correct": correct_count(probabilities, labels),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels, bins),
        "entropy": predictive_entropy(probabilities),
        "mutual_information": mutual_information(probabilities),
        "brier": brier_score(probabilities, labels),
    }


def risk_coverage(uncertainty: Shaped[Column, " utterances"], correct: Shaped[Column, " utterances"]) -> pd.DataFrame:
    """Columns coverage, the share that is answered, and risk, the share of errors in it: the most certain come first.

    A point for each value of the uncertainty, so that utterances that tie are answered together. The curve of Geifman
    & El-Yaniv, "Selective classification for deep neural networks" (2017). Raises ValueError without an utterance and
    where an uncertainty is not a number.
    """
    _check_numbers(uncertainty)
    table = pd.DataFrame({"uncertainty": np.asarray(uncertainty), "wrong": 1 - np.asarray(correct, dtype=float)})
    answered = table.groupby("uncertainty")["wrong"].agg(["size", "sum"]).cumsum().reset_index(drop=True)
    return pd.DataFrame({"coverage": answered["size"] / len(table), "risk": answered["sum"] / answered["size"]})


def risk_coverage_area(uncertainty: Shaped[Column, " utterances"], correct: Shaped[Column, " utterances"]) -> float:
    """AURC: the mean over utterances of the risk among those at least as certain, between 0 and 1; less is better.

    An uncertainty that says nothing has the error rate. Geifman, Uziel & El-Yaniv, "Bias-reduced uncertainty
    estimation for deep neural classifiers" (2019). Raises as ``risk_coverage``.
    """
    curve = risk_coverage(uncertainty, correct)
    return float(np.diff(curve["coverage"], prepend=0) @ curve["risk"])


def detection_auroc(known: Shaped[Column, " known"], unknown: Shaped[Column, " unknown"]) -> float:
    """How well an uncertainty tells unknown from known: the probability that it is higher for an unknown utterance.

    Utterances that tie count one half; 0.5 is chance. It is the Mann-Whitney U over the number of pairs (Hanley &
    McNeil, 1982). Raises ValueError without utterances on either side and where an uncertainty is not a number.
    """
    _check_numbers(known)
    _check_numbers(unknown)
    # The test's p-value is not used; its asymptotic form costs least.
    wins = scipy.stats.mannwhitneyu(unknown, known, method="asymptotic").statistic
    return float(wins / (len(known) * len(unknown)))


def paired_bootstrap(
    differences: Float[np.ndarray, "seeds utterances"], resamples: int, seed: int
) -> tuple[float, float, float]:
    """The mean difference between two methods on the same utterances, and both ends of its 95 % interval.

    Differences are averaged over seeds first; then utterances are drawn anew with replacement (Efron's percentile
    interval). So it covers the choice of test utterances, for these trained networks. It does not cover seeds: how far
    another training would move the difference, the spread over seeds has to tell. Raises ValueError with fewer than
    two utterances and where a difference is not a number.
    """
    _check_numbers(differences)
    of_utterances = differences.mean(axis=0)
    # In batches: all resamples at once would take gigabytes.
    interval = scipy.stats.bootstrap(
        (of_utterances,), np.mean, n_resamples=resamples, batch=100, method="percentile", rng=seed
    ).confidence_interval
    return float(of_utterances.mean()), float(interval.low), float(interval.high)


def grouped_rank_correlation(
    first: Shaped[Column, " networks"],
    second: Shaped[Column, " networks"],
    groups: Shaped[Column, " networks"],
    resamples: int,
    seed: int,
) -> tuple[float, float, float]:
    """Spearman's rank correlation, and both ends of its 95 % interval where members of a group are not independent.

    Whole groups are drawn anew with replacement (a cluster bootstrap, Efron's percentile interval), and ranks taken
    anew. With few groups such an interval is too narrow rather than too wide. A draw in which either is constant has no
    correlation and is left out. Raises ValueError without a value and where one is not a number.
    """
    _check_numbers(first)
    _check_numbers(second)
    values, groups = np.stack([first, second]), np.asarray(groups)
    members = [np.flatnonzero(groups == group) for group in dict.fromkeys(groups)]
    drawn = np.random.default_rng(seed).integers(len(members), size=(resamples, len(members)))
    found = [_rank_correlation(values[:, np.concatenate([members[group] for group in draw])]) for draw in drawn]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return _rank_correlation(values), float(low), float(high)


def _rank_correlation(values: Shaped[np.ndarray, "2 networks"]) -> float:
    if (np.ptp(values, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(scipy.stats.rankdata(values, axis=1))[0, 1])


def _sample_entropies(probabilities: Probabilities) -> Float[Tensor, "*samples examples"]:
    _check_probabilities(probabilities)
    return torch.special.entr(probabilities.double()).sum(dim=-1)


def _check_numbers(values: Column) -> None:
    missing = int(np.isnan(values).sum())
    if missing or len(values) == 0:
        raise ValueError(f"Expected at least one value and no NaN; there are {len(values)}, and {missing} NaN.")


def _check_probabilities(probabilities: Tensor) -> None:
    shape = list(probabilities.shape)
    if probabilities.ndim not in (2, 3):
        raise ValueError(f"Probabilities are [samples, examples, classes] or [examples, classes], not {shape}.")
    if 0 in shape:
        raise ValueError(f"Probabilities of shape {shape} hold no prediction to measure.")
    if not probabilities.isfinite().all() or (probabilities < 0).any():
        raise ValueError("Probabilities must be finite and not negative; were logits given, or did training diverge?")
    furthest = float((probabilities.double().sum(dim=-1) - 1).abs().max())
    if furthest > SUM_TOLERANCE:
        raise ValueError(f"Probabilities must sum to one over the classes; one sum is off by {furthest:.2g}.")


def _check_labels(probabilities: Tensor, labels: Tensor) -> None:
    _check_probabilities(probabilities)
    examples, classes = probabilities.shape[-2:]
    if labels.shape != (examples,):
        raise ValueError(
            f"Expected one label for each of {examples} examples, not labels of shape {list(labels.shape)}."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"Labels must lie in 0..{classes - 1}, not in {labels.min()}..{labels.max()}.")
