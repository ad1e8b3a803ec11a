"""What a predictive distribution is worth: the measures of the paper's section 6.1 (equations 12 to 18).

Every function takes probabilities, either of several sampled networks, ``[samples, examples, classes]``,
or of one, ``[examples, classes]``. Samples are averaged first (equation 12); only the expected entropy looks
at them one by one. Sums are taken in float64, logarithms are natural, and what belongs to an example is
averaged over the examples. ValueError is raised where probabilities are not distributions or do not fit the
labels.
"""

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

Probabilities = Float[Tensor, "*samples examples classes"]
Labels = Int[Tensor, " examples"]

# Rounded to half precision, the probabilities of 35 classes still sum to one within this.
SUM_TOLERANCE = 1e-3


def model_average(probabilities: Probabilities) -> Float[Tensor, "examples classes"]:
    """The mean of the sampled networks' probabilities (equation 12), in float64."""
    _check_probabilities(probabilities)
    double = probabilities.double()
    return double.mean(dim=0) if double.ndim == 3 else double


def correct_count(probabilities: Probabilities, labels: Labels) -> int:
    """How many examples have their label as the most probable class."""
    _check_labels(probabilities, labels)
    return int((model_average(probabilities).argmax(dim=-1) == labels).sum())


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


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float:
    """Equation 13, in nats.

    A probability of zero would make it infinite. Since a softmax reaches zero only by underflow, it counts as
    no less than the smallest normal number of the type in which it came (87.3 nats in float32).
    """
    _check_labels(probabilities, labels)
    of_label = model_average(probabilities).gather(-1, labels.long().unsqueeze(-1))
    return -float(of_label.clamp(min=torch.finfo(probabilities.dtype).tiny).log().mean())


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Equation 14: the squared distance to the one-hot label, summed over classes; between 0 and 2."""
    _check_labels(probabilities, labels)
    average = model_average(probabilities)
    target = torch.nn.functional.one_hot(labels.long(), average.shape[-1])
    return float((average - target).square().sum(dim=-1).mean())


def example_entropies(probabilities: Probabilities) -> Float[Tensor, " examples"]:
    """The entropy of each example's averaged prediction, in nats."""
    return torch.special.entr(model_average(probabilities)).sum(dim=-1)


def predictive_entropy(probabilities: Probabilities) -> float:
    """Equation 15: the entropy of the averaged prediction, in nats."""
    return float(example_entropies(probabilities).mean())


def expected_entropy(probabilities: Probabilities) -> float:
    """Equation 16: the mean entropy of the sampled networks' own predictions, in nats."""
    _check_probabilities(probabilities)
    return float(torch.special.entr(probabilities.double()).sum(dim=-1).mean())


def mutual_information(probabilities: Probabilities) -> float:
    """Equation 17: how far the sampled networks disagree, in nats (Houlsby et al., 2011); 0 for one."""
    return predictive_entropy(probabilities) - expected_entropy(probabilities)


def reliability_bins(probabilities: Probabilities, labels: Labels, bins: int = 15) -> pd.DataFrame:
    """Count, mean confidence and accuracy of the examples in each of ``bins`` equal-width bins of confidence.

    Bin b of B holds the confidences in ((b-1)/B, b/B], as in Guo et al. (2017). An empty bin has the count 0
    and no confidence or accuracy (NaN).
    """
    _check_labels(probabilities, labels)
    if bins < 1:
        raise ValueError(f"Confidence needs at least one bin, not {bins}.")
    confidence, answer = model_average(probabilities).max(dim=-1)
    inner_edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)[1:-1]
    table = pd.DataFrame(
        {
            "bin": torch.bucketize(confidence, inner_edges).cpu().numpy(),
            "confidence": confidence.cpu().numpy(),
            "accuracy": (answer == labels).double().cpu().numpy(),
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
