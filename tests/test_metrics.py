"""The measures against torchmetrics, scikit-learn, scipy and values worked out by hand."""

import math

import jaxtyping
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
import torch
import torchmetrics.classification
from hypothesis import given
from hypothesis import strategies as st

from lib import metrics

CLASSES = 7


def predictions(samples=5, examples=400, classes=CLASSES, sharpness=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(samples, examples, classes, generator=generator)
    labels = torch.where(
        torch.rand(examples, generator=generator) < 0.6,
        logits.mean(0).argmax(-1),
        torch.randint(classes, (examples,), generator=generator),
    )
    return logits.softmax(-1), labels


@pytest.fixture(params=["samples", "one network"])
def predicted(request):
    probabilities, labels = predictions()
    return (probabilities if request.param == "samples" else probabilities[0]), labels


@pytest.fixture
def shapes_unchecked():
    """Lets a wrong shape through to the library's own message, as it goes through outside the tests."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_accuracy_and_confusion_matrix_agree_with_torchmetrics_and_scikit_learn(predicted):
    probabilities, labels = predicted
    average = metrics.model_average(probabilities)
    reference = torchmetrics.classification.MulticlassAccuracy(CLASSES, average="micro")
    assert metrics.accuracy(probabilities, labels) == pytest.approx(float(reference(average, labels)), abs=1e-7)
    matrix = sklearn.metrics.confusion_matrix(labels, average.argmax(-1), labels=range(CLASSES))  # true classes in rows
    np.testing.assert_array_equal(metrics.confusion_matrix(probabilities, labels), matrix)
    assert int(metrics.example_hits(probabilities, labels).sum()) == np.trace(matrix)


def test_likelihood_and_brier_score_agree_with_scikit_learn(predicted):
    probabilities, labels = predicted
    average = metrics.model_average(probabilities)
    # scikit-learn warns where float32 rounding leaves a sum beside one.
    average = average / average.sum(-1, keepdim=True)
    nll = sklearn.metrics.log_loss(labels, average, labels=range(CLASSES))
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(nll, rel=1e-6)
    brier = sklearn.metrics.brier_score_loss(labels, average, labels=range(CLASSES), scale_by_half=False)
    assert metrics.brier_score(probabilities, labels) == pytest.approx(brier, rel=1e-6)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_agrees_with_torchmetrics(predicted, bins):
    probabilities, labels = predicted
    reference = torchmetrics.classification.MulticlassCalibrationError(CLASSES, n_bins=bins, norm="l1")
    expected = float(reference(metrics.model_average(probabilities), labels))
    assert metrics.expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-6)
    assert metrics.summary(probabilities, labels, bins)["ece"] == pytest.approx(expected, abs=1e-6)


def test_entropies_agree_with_scipy():
    probabilities, _ = predictions()
    double = probabilities.double().numpy()
    of_average = scipy.stats.entropy(double.mean(0), axis=-1)
    np.testing.assert_allclose(metrics.example_entropies(probabilities), of_average, rtol=1e-5)
    assert metrics.predictive_entropy(probabilities) == pytest.approx(of_average.mean(), rel=1e-6)
    expected = scipy.stats.entropy(double, axis=-1).mean()
    assert metrics.expected_entropy(probabilities) == pytest.approx(expected, rel=1e-6)
    # The mean divergence of the samples from their average.
    divergence = scipy.stats.entropy(double, double.mean(0, keepdims=True), axis=-1).mean()
    assert metrics.mutual_information(probabilities) == pytest.approx(divergence, rel=1e-6)


def test_uniform_predictions_and_certain_ones_that_disagree():
    probabilities, labels = torch.full((4, 5, 35), 1 / 35, dtype=torch.float64), torch.arange(5)
    assert metrics.predictive_entropy(probabilities) == pytest.approx(math.log(35))
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(math.log(35))
    assert metrics.brier_score(probabilities, labels) == pytest.approx(1 - 1 / 35)
    assert metrics.mutual_information(probabilities) == pytest.approx(0, abs=1e-12)
    coin = torch.eye(2).unsqueeze(1).expand(2, 3, 2)
    assert metrics.expected_entropy(coin) == 0
    assert metrics.mutual_information(coin) == pytest.approx(math.log(2), rel=1e-15)


@pytest.mark.parametrize("probabilities", [torch.eye(4), torch.eye(4).expand(3, 4, 4)])
def test_certain_and_right(probabilities):
    expected = {"accuracy": 100, "correct": 4, "nll": 0, "ece": 0, "entropy": 0, "mutual_information": 0, "brier": 0}
    assert metrics.summary(probabilities, torch.arange(4)) == expected


def test_certain_and_wrong_is_finite():
    probabilities, labels = torch.eye(4), torch.tensor([1, 2, 3, 0])
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(87.336, abs=1e-3)
    assert metrics.brier_score(probabilities, labels) == 2
    assert metrics.expected_calibration_error(probabilities, labels) == 1
    assert metrics.accuracy(probabilities, labels) == 0


def test_samples_are_averaged_before_they_are_measured():
    probabilities = torch.tensor([[[1.0, 0.0]], [[0.25, 0.75]]], dtype=torch.float64)
    label = torch.tensor([1])
    assert metrics.negative_log_likelihood(probabilities, label) == pytest.approx(-math.log(0.375))
    assert metrics.brier_score(probabilities, label) == pytest.approx(2 * 0.625**2)
    assert metrics.accuracy(probabilities, label) == 0


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    probabilities = torch.tensor([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0], [0.9, 0.1]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 0])
    bins = metrics.reliability_bins(probabilities, labels, bins=4)
    assert bins["count"].tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(bins["confidence"], [math.nan, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(bins["accuracy"], [math.nan, 1, 0, 1])
    error = metrics.expected_calibration_error(probabilities, labels, bins=4)
    assert error == pytest.approx((0.5 + 0.75 + 2 * 0.05) / 4)
    with pytest.raises(ValueError, match="at least one bin"):
        metrics.reliability_bins(probabilities, labels, bins=0)


def test_half_precision_is_summed_in_double():
    probabilities, labels = predictions(examples=3000, classes=35, sharpness=0.5)
    exact, rounded = metrics.summary(probabilities, labels), metrics.summary(probabilities.half(), labels)
    assert rounded["nll"] == pytest.approx(exact["nll"], rel=1e-4)
    assert rounded["entropy"] == pytest.approx(exact["entropy"], rel=1e-4)


@given(
    samples=st.integers(1, 4),
    examples=st.integers(1, 12),
    classes=st.integers(2, 35),
    sharpness=st.sampled_from([0.0, 0.1, 1.0, 30.0, 300.0]),
    seed=st.integers(0, 2**16),
)
def test_ranges(samples, examples, classes, sharpness, seed):
    probabilities, labels = predictions(samples, examples, classes, sharpness, seed)
    row = metrics.summary(probabilities, labels)
    slack = 1e-6
    assert row["accuracy"] == pytest.approx(100 * row["correct"] / examples)
    assert row["nll"] >= -slack
    assert 0 <= row["ece"] <= 1 + slack
    assert -slack <= row["mutual_information"] <= row["entropy"] + slack
    assert row["mutual_information"] <= math.log(samples) + slack
    assert row["entropy"] <= math.log(classes) + slack
    assert 0 <= row["brier"] <= 2 + slack
    # Neither the order of examples and samples matters, nor whether one network is one sample or none.
    examples_, samples_ = (torch.randperm(n) for n in (examples, samples))
    shuffled = metrics.summary(probabilities[samples_][:, examples_], labels[examples_])
    assert shuffled == pytest.approx(row, rel=1e-9, abs=1e-9)
    assert metrics.summary(probabilities[:1], labels) == metrics.summary(probabilities[0], labels)
    # Gibbs: the average does no worse than its samples do on the mean.
    single = np.mean([metrics.negative_log_likelihood(sample, labels) for sample in probabilities])
    assert row["nll"] <= single + slack


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (torch.zeros(2, 0, 3), "hold no prediction"),
        (torch.tensor([[0.5, math.nan]]), "finite and not negative"),
        (torch.tensor([[1.5, -0.5]]), "finite and not negative"),
        (torch.tensor([[0.5, 0.4]]), "off by 0.1"),
        (torch.tensor([[3.0, 1.0]]), "sum to one"),
    ],
)
def test_what_is_no_distribution_is_refused(probabilities, message):
    labels = torch.zeros(probabilities.shape[-2], dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        metrics.summary(probabilities, labels)
    for measure in (metrics.expected_entropy, metrics.predictive_entropy):
        with pytest.raises(ValueError, match=message):
            measure(probabilities)


TYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.float32, torch.float64]


@pytest.mark.parametrize("kind", [*TYPES, np.uint8, np.int16, pd.Series, list])
def test_labels_of_any_type_are_measured_alike(kind):
    # 20 classes: 19 * 20 + 19 is more than eight bits hold.
    probabilities, labels = predictions(classes=20)
    others = labels.to(kind) if isinstance(kind, torch.dtype) else labels.tolist()
    if kind not in (*TYPES, list):
        others = pd.Series(others) if kind is pd.Series else np.array(others, dtype=kind)
    matrix = sklearn.metrics.confusion_matrix(labels, probabilities.mean(0).argmax(-1), labels=range(20))
    np.testing.assert_array_equal(metrics.confusion_matrix(probabilities, others), matrix)
    reference = torchmetrics.classification.MulticlassConfusionMatrix(20)
    assert torch.equal(metrics.confusion_matrix(probabilities, others), reference(probabilities.mean(0), labels))
    assert metrics.summary(probabilities, others) == metrics.summary(probabilities, labels)


def test_two_classes_may_be_told_by_booleans_and_halves_are_no_labels():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert metrics.accuracy(probabilities, torch.tensor([False, True])) == 1
    for labels in ([0.5, 1.0], [0.0, math.nan]):
        with pytest.raises(ValueError, match="whole numbers, the indices of classes"):
            metrics.confusion_matrix(probabilities, torch.tensor(labels))


@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, 3e-2), (torch.float16, 3e-3)])
def test_coarse_probabilities_are_measured_in_double(dtype, precision):
    probabilities, labels = predictions(classes=35, sharpness=0.5)
    found = metrics.summary(probabilities.to(dtype), labels)
    for name, value in metrics.summary(probabilities, labels).items():
        assert found[name] == pytest.approx(value, rel=precision, abs=precision), name
    assert metrics.summary(probabilities.requires_grad_(), labels) == metrics.summary(probabilities.detach(), labels)


@pytest.mark.parametrize("confidence", [math.nan, 1.2, -0.1, math.inf])
def test_what_is_no_confidence_is_in_no_bin(confidence):
    with pytest.raises(ValueError, match="numbers between 0 and 1"):
        metrics.confidence_bins(np.array([confidence, 0.4]), np.array([1, 0]), 3)


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0]])
def test_a_label_beyond_the_classes_is_refused(labels):
    with pytest.raises(ValueError, match=r"lie in 0\.\.1"):
        metrics.accuracy(torch.full((2, 2), 0.5), torch.tensor(labels))


@pytest.mark.usefixtures("shapes_unchecked")
def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="each of 2 examples"):
        metrics.brier_score(torch.full((2, 2), 0.5), torch.tensor([0, 1, 0]))
    for shape in ((2,), (1, 1, 2, 2)):
        with pytest.raises(ValueError, match="samples, examples, classes"):
            metrics.predictive_entropy(torch.full(shape, 0.5))


def test_utterance_scores_have_the_measures_as_their_means(predicted):
    probabilities, labels = predicted
    scores = metrics.utterance_scores(probabilities, labels)
    row = metrics.summary(probabilities, labels)
    assert list(scores) == ["nll", "brier", "correct", "confidence", "entropy", "mutual_information"]
    for name in ("nll", "brier", "entropy", "mutual_information"):
        assert scores[name].mean() == pytest.approx(row[name], rel=1e-12)
    assert scores["correct"].sum() == row["correct"]
    bins = metrics.confidence_bins(scores["confidence"].to_numpy(), scores["correct"].to_numpy(), bins=7)
    pd.testing.assert_frame_equal(bins, metrics.reliability_bins(probabilities, labels, bins=7))


def test_utterance_scores_worked_out_by_hand():
    # The first is averaged to (3/4, 1/4); on the second the networks agree, and both are wrong.
    probabilities = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]]], dtype=torch.float64)
    first, second = metrics.utterance_scores(probabilities, torch.tensor([0, 1])).to_numpy()
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert first == pytest.approx([-math.log(0.75), 0.125, 1, 0.75, entropy, entropy - 0.5 * math.log(2)])
    assert second == pytest.approx([-math.log(torch.finfo(torch.float64).tiny), 2, 0, 1, 0, 0])
