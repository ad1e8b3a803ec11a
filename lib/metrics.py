"""The measures of the paper's section 6.1 (equations 12 to 18): what a predictive distribution is worth.

They take class probabilities of several sampled networks, ``[samples, examples, classes]``, or of one network,
``[examples, classes]``. Samples are averaged first (equation 12); only the expected entropy looks at them one by one.
Sums are taken in float64, and logarithms are natural. A function ``example_...`` returns a value for each example, of
which the paper's measure is the mean. Labels are whole numbers of any type. All raise ``ValueError`` where
probabilities are not distributions or do not fit the labels.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

Probabilities = Float[Tensor, "*samples examples classes"]
Column = np.ndarray | pd.Series
Labels = Shaped[Tensor | Column, " examples"] | list

# Rounded to half precision, the probabilities of 35 classes still sum to one within this (bfloat16: within its eps).
SUM_TOLERANCE = 1e-3


def model_average(probabilities: Probabilities) -> Float[Tensor, "examples classes"]:
    """The mean of the sampled networks' probabilities (equation 12), in float64."""
    _check_probabilities(probabilities)
    double = probabilities.detach().double()
    return double.mean(dim=0) if double.ndim == 3 else double


def example_hits(probabilities: Probabilities, labels: Labels) -> Bool[Tensor, " examples"]:
    """Whether each example's label is its most probable class."""
    average = model_average(probabilities)
    return average.argmax(dim=-1) == class_indices(average, labels)


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """The fraction of correct answers, between 0 and 1."""
    return int(example_hits(probabilities, labels).sum()) / len(labels)


def confusion_matrix(probabilities: Probabilities, labels: Labels) -> Int64[Tensor, "classes classes"]:
    """Counts of examples, with a row for each true class and a column for each answer."""
    average = model_average(probabilities)
    classes = average.shape[-1]
    cells = class_indices(average, labels) * classes + average.argmax(dim=-1)
    return cells.bincount(minlength=classes**2).reshape(classes, classes)


def example_nlls(probabilities: Probabilities, labels: Labels) -> Float[Tensor, " examples"]:
    """The negative log-likelihood of each example, in nats.

    A probability of zero would make it infinite. Since a softmax reaches zero only by underflow, it counts as
    no less than the smallest normal number of the type in which it came (87.3 nats in float32).
    """
    average = model_average(probabilities)
    of_label = average.gather(-1, class_indices(average, labels).unsqueeze(-1))
    return -of_label.squeeze(-1).clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def negative_log_likelihood(probabilities: Probabilities, labels: Labels) -> float:
    """Equation 13, in nats."""
    return float(example_nlls(probabilities, labels).mean())


def example_brier_scores(probabilities: Probabilities, labels: Labels) -> Float[Tensor, " examples"]:
    """The squared distance of each example's prediction to its one-hot label, summed over classes."""
    average = model_average(probabilities)
    target = torch.nn.functional.one_hot(class_indices(average, labels), average.shape[-1])
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
    """Equation 17: how far the sampled networks disagree, in nats (Houlsby et al., 2011); 0 for one network."""
    return float(example_mutual_informations(probabilities).mean())


def reliability_bins(probabilities: Probabilities, labels: Labels, bins: int = 15) -> pd.DataFrame:
    """``confidence_bins`` of these predictions."""
    hits, confidence = example_hits(probabilities, labels), model_average(probabilities).amax(dim=-1)
    return confidence_bins(confidence.cpu().numpy(), hits.cpu().numpy(), bins)


def confidence_bins(
    confidence: Shaped[Column, " examples"], correct: Shaped[Column, " examples"], bins: int = 15
) -> pd.DataFrame:
    """Count, mean confidence and accuracy of the examples in each of ``bins`` equal-width bins of confidence.

    Bin b of B holds the confidences in ((b-1)/B, b/B], as in Guo et al. (2017). An empty bin has the count 0
    and no confidence or accuracy (NaN). Raises ``ValueError`` for less than one bin, and for a confidence that is none.
    """
    if bins < 1:
        raise ValueError(f"confidences need at least one bin, not {bins}")
    confidence = np.asarray(confidence, dtype=float)
    if not np.all((confidence >= 0) & (confidence <= 1 + SUM_TOLERANCE)):  # or NaN
        raise ValueError("confidences must be numbers between 0 and 1")
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    table = pd.DataFrame(
        {
            "bin": np.searchsorted(inner_edges, confidence, side="left"),
            "confidence": confidence,
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
        "correct": int(example_hits(probabilities, labels).sum()),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": expected_calibration_error(probabilities, labels, bins),
        "entropy": predictive_entropy(probabilities),
        "mutual_information": mutual_information(probabilities),
        "brier": brier_score(probabilities, labels),
    }


def utterance_scores(probabilities: Probabilities, labels: Labels) -> pd.DataFrame:
    """A row for each utterance, whose columns have the measures of the same name as their means.

    The columns ``nll``, ``entropy`` (of the averaged prediction) and ``mutual_information`` are in nats, ``brier`` lies
    between 0 and 2, ``correct`` is 0 or 1, and ``confidence`` is the probability of the answer.
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


def _sample_entropies(probabilities: Probabilities) -> Float[Tensor, "*samples examples"]:
    _check_probabilities(probabilities)
    return torch.special.entr(probabilities.detach().double()).sum(dim=-1)


def _check_probabilities(probabilities: Tensor) -> None:
    shape = list(probabilities.shape)
    if probabilities.ndim not in (2, 3):
        raise ValueError(f"probabilities are [samples, examples, classes] or [examples, classes], not {shape}")
    if 0 in shape:
        raise ValueError(f"probabilities of shape {shape} hold no prediction to measure")
    if not probabilities.isfinite().all() or (probabilities < 0).any():
        raise ValueError("probabilities must be finite and not negative; were logits given, or did training diverge?")
    furthest = float((probabilities.detach().double().sum(dim=-1) - 1).abs().max())
    if furthest > max(SUM_TOLERANCE, torch.finfo(probabilities.dtype).eps):
        raise ValueError(f"probabilities must sum to one over the classes; one sum is off by {furthest:.2g}")


def class_indices(predicted: Float[Tensor, "examples classes"], labels: Labels) -> Int64[Tensor, " examples"]:
    """The labels in 64 bits, where the predictions are: products and indices of fewer bits would overflow."""
    examples, classes = predicted.shape
    labels = torch.as_tensor(labels, device=predicted.device)
    if labels.shape != (examples,):
        raise ValueError(f"give one label for each of {examples} examples, not labels of shape {list(labels.shape)}")
    indices = labels.long()
    if labels.is_floating_point() and not torch.equal(indices.to(labels), labels):
        raise ValueError("labels must be whole numbers, the indices of classes")
    if indices.min() < 0 or indices.max() >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, not in {indices.min()}..{indices.max()}")
    return indices
