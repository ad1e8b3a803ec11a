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


def test_accuracy_agrees_with_torchmetrics(predicted):
    probabilities, labels = predicted
    reference = torchmetrics.classification.MulticlassAccuracy(CLASSES, average="micro")
    average = metrics.model_average(probabilities)
    assert metrics.accuracy(probabilities, labels) == pytest.approx(float(reference(average, labels)), abs=1e-7)
    assert metrics.correct_count(probabilities, labels) == int((average.argmax(-1) == labels).sum())


def test_confusion_matrix_agrees_with_scikit_learn(predicted):
    probabilities, labels = predicted
    answers = metrics.model_average(probabilities).argmax(-1)
    reference = sklearn.metrics.confusion_matrix(labels, answers, labels=range(CLASSES))
    np.testing.assert_array_equal(metrics.confusion_matrix(probabilities, labels), reference)


def test_confusion_matrix_has_true_classes_in_rows():
    probabilities = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.1, 0.1]])
    matrix = metrics.confusion_matrix(probabilities, torch.tensor([0, 0]))
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_negative_log_likelihood_agrees_with_scikit_learn(predicted):
    probabilities, labels = predicted
    average = metrics.model_average(probabilities)
    # scikit-learn warns where float32 rounding leaves a sum beside one.
    average = average / average.sum(-1, keepdim=True)
    reference = sklearn.metrics.log_loss(labels, average, labels=range(CLASSES))
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(reference, rel=1e-6)


def test_brier_score_agrees_with_scikit_learn(predicted):
    probabilities, labels = predicted
    average = metrics.model_average(probabilities)
    average = average / average.sum(-1, keepdim=True)
    reference = sklearn.metrics.brier_score_loss(labels, average, labels=range(CLASSES), scale_by_half=False)
    assert metrics.brier_score(probabilities, labels) == pytest.approx(reference, rel=1e-6)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_agrees_with_torchmetrics(predicted, bins):
    probabilities, labels = predicted
    reference = torchmetrics.classification.MulticlassCalibrationError(CLASSES, n_bins=bins, norm="l1")
    expected = float(reference(metrics.model_average(probabilities), labels))
    assert metrics.expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-6)


def test_entropies_agree_with_scipy():
    probabilities, _ = predictions()
    double = probabilities.double().numpy()
    of_average = scipy.stats.entropy(double.mean(0), axis=-1)
    np.testing.assert_allclose(metrics.example_entropies(probabilities), of_average, rtol=1e-5)
    assert metrics.predictive_entropy(probabilities) == pytest.approx(of_average.mean(), rel=1e-6)
    expected = scipy.stats.entropy(double, axis=-1).mean()
    assert metrics.expected_entropy(probabilities) == pytest.approx(expected, rel=1e-6)


def test_mutual_information_agrees_with_the_mean_divergence_from_the_average():
    probabilities, _ = predictions()
    double = probabilities.double().numpy()
    divergence = scipy.stats.entropy(double, double.mean(0, keepdims=True), axis=-1).mean()
    assert metrics.mutual_information(probabilities) == pytest.approx(divergence, rel=1e-6)


def test_samples_in_full_disagreement_have_the_information_of_one_coin():
    probabilities = torch.eye(2).unsqueeze(1).expand(2, 3, 2)
    assert metrics.expected_entropy(probabilities) == 0
    assert metrics.mutual_information(probabilities) == pytest.approx(math.log(2), rel=1e-15)


def test_uniform_predictions():
    probabilities, labels = torch.full((4, 5, 35), 1 / 35, dtype=torch.float64), torch.arange(5)
    assert metrics.predictive_entropy(probabilities) == pytest.approx(math.log(35))
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(math.log(35))
    assert metrics.brier_score(probabilities, labels) == pytest.approx(1 - 1 / 35)
    assert metrics.mutual_information(probabilities) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("probabilities", [torch.eye(4), torch.eye(4).expand(3, 4, 4)])
def test_certain_and_right(probabilities):
    labels = torch.arange(4)
    assert metrics.summary(probabilities, labels) == {
        "accuracy": 100,
        "correct": 4,
        "nll": 0,
        "ece": 0,
        "entropy": 0,
        "mutual_information": 0,
        "brier": 0,
    }


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


def test_one_network_measures_as_one_sample():
    probabilities, labels = predictions(samples=1)
    assert metrics.summary(probabilities, labels) == metrics.summary(probabilities[0], labels)
    assert metrics.mutual_information(probabilities[0]) == 0


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    probabilities = torch.tensor([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0], [0.9, 0.1]], dtype=torch.float64)
    bins = metrics.reliability_bins(probabilities, torch.tensor([0, 1, 0, 0]), bins=4)
    assert bins["count"].tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(bins["confidence"], [math.nan, 0.5, 0.75, 0.95])
    np.testing.assert_allclose(bins["accuracy"], [math.nan, 1, 0, 1])
    error = metrics.expected_calibration_error(probabilities, torch.tensor([0, 1, 0, 0]), bins=4)
    assert error == pytest.approx((0.5 + 0.75 + 2 * 0.05) / 4)


def test_bins_hold_every_example_once():
    probabilities, labels = predictions(sharpness=10)
    bins = metrics.reliability_bins(probabilities, labels)
    assert len(bins) == 15
    assert bins["count"].sum() == len(labels)
    assert (bins["accuracy"] * bins["count"]).sum() == metrics.correct_count(probabilities, labels)


def test_summary_takes_the_number_of_bins():
    probabilities, labels = predictions()
    fewer = metrics.summary(probabilities, labels, bins=3)
    assert fewer["ece"] == metrics.expected_calibration_error(probabilities, labels, 3)
    assert fewer["ece"] != metrics.summary(probabilities, labels)["ece"]


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
    # Gibbs: the average does no worse than its samples do on the mean.
    single = np.mean([metrics.negative_log_likelihood(sample, labels) for sample in probabilities])
    assert row["nll"] <= single + slack


@given(seed=st.integers(0, 2**16))
def test_the_order_of_examples_and_samples_does_not_matter(seed):
    probabilities, labels = predictions(samples=3, examples=20, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    examples, samples = torch.randperm(20, generator=generator), torch.randperm(3, generator=generator)
    shuffled = metrics.summary(probabilities[samples][:, examples], labels[examples])
    assert shuffled == pytest.approx(metrics.summary(probabilities, labels), rel=1e-9, abs=1e-12)


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
    for refusal in (
        lambda: metrics.summary(probabilities, labels),
        lambda: metrics.expected_entropy(probabilities),
        lambda: metrics.predictive_entropy(probabilities),
    ):
        with pytest.raises(ValueError, match=message):
            refusal()


@pytest.mark.parametrize("labels", [[0, 2], [-1, 0]])
def test_a_label_beyond_the_classes_is_refused(labels):
    with pytest.raises(ValueError, match=r"lie in 0\.\.1"):
        metrics.accuracy(torch.full((2, 2), 0.5), torch.tensor(labels))


@pytest.mark.usefixtures("shapes_unchecked")
def test_labels_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="each of 2 examples"):
        metrics.brier_score(torch.full((2, 2), 0.5), torch.tensor([0, 1, 0]))


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("shape", [(2,), (1, 1, 2, 2)])
def test_other_shapes_of_probabilities_are_refused(shape):
    with pytest.raises(ValueError, match="samples, examples, classes"):
        metrics.predictive_entropy(torch.full(shape, 0.5))


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="at least one bin"):
        metrics.reliability_bins(torch.full((2, 2), 0.5), torch.tensor([0, 1]), bins=0)


# Utterance by utterance


def test_utterance_scores_have_the_measures_as_their_means(predicted):
    probabilities, labels = predicted
    scores = metrics.utterance_scores(probabilities, labels)
    row = metrics.summary(probabilities, labels)
    assert list(scores) == ["nll", "brier", "correct", "confidence", "entropy", "mutual_information"]
    for name in ("nll", "brier", "entropy", "mutual_information"):
        assert scores[name].mean() == pytest.approx(row[name], rel=1e-12)
    assert scores["correct"].sum() == row["correct"]
    bins = metrics.reliability_bins(probabilities, labels, bins=1)
    assert scores["confidence"].mean() == pytest.approx(bins["confidence"][0], rel=1e-12)


def test_utterance_scores_worked_out_by_hand():
    # The first is averaged to (3/4, 1/4); on the second the networks agree, and both are wrong.
    probabilities = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.5], [1.0, 0.0]]], dtype=torch.float64)
    first, second = metrics.utterance_scores(probabilities, torch.tensor([0, 1])).to_dict("records")
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert first == pytest.approx(
        {
            "nll": -math.log(0.75),
            "brier": 0.125,
            "correct": 1,
            "confidence": 0.75,
            "entropy": entropy,
            "mutual_information": entropy - 0.5 * math.log(2),
        }
    )
    clamped = -math.log(torch.finfo(torch.float64).tiny)
    assert second == pytest.approx(
        {"nll": clamped, "brier": 2, "correct": 0, "confidence": 1, "entropy": 0, "mutual_information": 0}
    )


# Risk and coverage


def risk_among_the_as_certain(uncertainty, correct):
    return np.mean([1 - correct[uncertainty <= own].mean() for own in uncertainty])


def test_the_most_certain_are_answered_first():
    curve = metrics.risk_coverage(np.array([0.3, 0.1, 0.2, 0.4]), np.array([0, 1, 1, 1]))
    np.testing.assert_allclose(curve["coverage"], [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve["risk"], [0, 0, 1 / 3, 1 / 4])
    area = metrics.risk_coverage_area(np.array([0.3, 0.1, 0.2, 0.4]), np.array([0, 1, 1, 1]))
    assert area == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)


def test_what_ties_is_answered_together():
    curve = metrics.risk_coverage(np.array([2, 1, 2, 1]), np.array([True, False, True, True]))
    np.testing.assert_allclose(curve, [[0.5, 0.5], [1, 0.25]])


@given(
    utterances=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30),
    seed=st.integers(0, 2**16),
)
def test_the_area_is_the_mean_risk_among_those_as_certain_in_whatever_order(utterances, seed):
    table = pd.DataFrame(utterances, columns=["uncertainty", "correct"])
    area = metrics.risk_coverage_area(table["uncertainty"], table["correct"])
    expected = risk_among_the_as_certain(table["uncertainty"].to_numpy(), table["correct"].to_numpy())
    assert area == pytest.approx(expected, abs=1e-12)
    shuffled = table.sample(frac=1, random_state=seed)
    again = metrics.risk_coverage(shuffled["uncertainty"], shuffled["correct"])
    pd.testing.assert_frame_equal(again, metrics.risk_coverage(table["uncertainty"], table["correct"]))
    assert again.iloc[-1].tolist() == pytest.approx([1, 1 - table["correct"].mean()])
    # Only the order counts, not the values.
    assert metrics.risk_coverage_area(np.exp(table["uncertainty"]), table["correct"]) == area


def test_the_areas_of_the_best_and_of_no_order():
    correct = np.repeat([1, 0], [700, 300])
    perfect = metrics.risk_coverage_area(np.arange(1000.0), correct)
    assert perfect == pytest.approx(sum(wrong / (700 + wrong) for wrong in range(1, 301)) / 1000)
    # In the limit r + (1 - r) log(1 - r) for an error rate r, as in Geifman et al. (2019).
    assert perfect == pytest.approx(0.3 + 0.7 * math.log(0.7), abs=2e-4)
    assert metrics.risk_coverage_area(np.zeros(1000), correct) == pytest.approx(0.3)
    assert metrics.risk_coverage_area(-np.arange(1000.0), correct) > 0.3


# Detection of the unknown


@pytest.mark.parametrize("decimals", [1, 6])
def test_detection_agrees_with_scikit_learn_and_torchmetrics(decimals):
    noise = np.random.default_rng(0)
    known, unknown = noise.gamma(1, size=300).round(decimals), noise.gamma(2, size=170).round(decimals)
    found = metrics.detection_auroc(known, unknown)
    values, kinds = np.concatenate([known, unknown]), np.repeat([0, 1], [300, 170])
    assert found == pytest.approx(sklearn.metrics.roc_auc_score(kinds, values), abs=1e-12)
    # torchmetrics would take values beyond [0, 1] for logits.
    shares = torch.tensor(values / values.max())
    reference = torchmetrics.classification.BinaryAUROC()(shares, torch.tensor(kinds))
    assert found == pytest.approx(float(reference), abs=1e-6)


@pytest.mark.parametrize(
    ("known", "unknown", "expected"),
    [([0, 1], [2, 3], 1), ([2, 3], [0, 1], 0), ([1, 1], [1, 1, 1], 0.5), ([0, 1], [1], 0.75), ([1], [2], 1)],
)
def test_detection_worked_out_by_hand(known, unknown, expected):
    assert metrics.detection_auroc(pd.Series(known), pd.Series(unknown)) == expected


# The paired bootstrap


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_interval_of_normal_differences_has_the_known_width(seeds):
    differences = np.random.default_rng(0).normal(0.5, 1, size=(seeds, 2000))
    mean, low, high = metrics.paired_bootstrap(differences, 4000, seed=1)
    error = differences.mean(axis=0).std(ddof=1) / math.sqrt(2000)
    assert mean == pytest.approx(differences.mean(), rel=1e-12)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert (high + low) / 2 == pytest.approx(mean, abs=0.1 * error)


def test_the_interval_covers_the_true_mean_about_95_times_in_100():
    noise = np.random.default_rng(0)
    covered = 0
    for repeat in range(400):
        # What the accuracies of two methods differ by: mostly nothing.
        draws = noise.choice([-1.0, 0.0, 1.0], p=[0.1, 0.75, 0.15], size=(1, 300))
        _, low, high = metrics.paired_bootstrap(draws, 500, seed=repeat)
        covered += low <= 0.05 <= high
    # 0.95 ± 3 standard errors of 400 trials.
    assert covered / 400 == pytest.approx(0.95, abs=0.033)


def test_seeds_are_averaged_and_not_counted_as_utterances():
    once = np.random.default_rng(0).normal(size=(1, 50))
    assert metrics.paired_bootstrap(np.repeat(once, 4, axis=0), 200, 0) == pytest.approx(
        metrics.paired_bootstrap(once, 200, 0), rel=1e-12
    )


def test_the_bootstrap_repeats_itself_by_its_seed():
    differences = np.random.default_rng(0).normal(size=(3, 40))
    assert metrics.paired_bootstrap(differences, 200, 7) == metrics.paired_bootstrap(differences, 200, 7)
    assert metrics.paired_bootstrap(differences, 200, 7) != metrics.paired_bootstrap(differences, 200, 8)


@pytest.mark.parametrize("value", [0.0, 0.1, -2.0])
def test_differences_that_are_all_the_same_have_a_point_as_interval(value):
    found = metrics.paired_bootstrap(np.full((3, 101), value), 200, 0)
    assert found == pytest.approx((value, value, value), abs=1e-15)


@pytest.mark.parametrize(
    "measured",
    [
        lambda values: metrics.risk_coverage(values, np.ones(len(values))),
        lambda values: metrics.risk_coverage_area(values, np.ones(len(values))),
        lambda values: metrics.detection_auroc(values, np.ones(3)),
        lambda values: metrics.detection_auroc(np.ones(3), values),
        lambda values: metrics.paired_bootstrap(values[None, :], 10, 0),
    ],
)
def test_what_is_no_number_or_no_utterance_is_refused(measured):
    with pytest.raises(ValueError, match="1 NaN"):
        measured(np.array([0.5, math.nan, 0.1]))
    with pytest.raises(ValueError, match=r"at least one|two or more"):
        measured(np.array([]))


def test_the_bootstrap_refuses_one_utterance():
    with pytest.raises(ValueError, match="two or more"):
        metrics.paired_bootstrap(np.zeros((3, 1)), 10, 0)


def test_bins_of_the_scores_are_those_of_the_predictions():
    probabilities = torch.rand(5, 60, 4).softmax(dim=-1)
    labels = torch.randint(4, (60,))
    scores = metrics.utterance_scores(probabilities, labels)
    pd.testing.assert_frame_equal(
        metrics.confidence_bins(scores["confidence"].to_numpy(), scores["correct"].to_numpy(), bins=7),
        metrics.reliability_bins(probabilities, labels, bins=7),
    )


# The rank correlation


def ranked(networks=40, seed=0):
    """Values rounded so that some tie."""
    numbers = np.random.default_rng(seed).normal(size=(2, networks))
    return numbers[0].round(1), (numbers[0] + numbers[1]).round(1)


def test_the_rank_correlation_is_scipys():
    first, second = ranked()
    found, low, high = metrics.grouped_rank_correlation(first, second, np.arange(40), 4000, seed=0)
    assert found == pytest.approx(scipy.stats.spearmanr(first, second).statistic, rel=1e-12)
    interval = scipy.stats.bootstrap(
        (first, second), lambda *pair: scipy.stats.spearmanr(*pair).statistic, paired=True, vectorized=False,
        n_resamples=4000, method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx(tuple(interval), abs=0.02)


def test_the_rank_correlation_counts_groups_and_not_their_members():
    first, second = ranked(12)
    names = np.array(list("abcdefghijkl"))
    once = metrics.grouped_rank_correlation(first, second, names, 500, seed=0)
    thrice = metrics.grouped_rank_correlation(*(np.repeat(column, 3) for column in (first, second, names)), 500, seed=0)
    assert thrice == pytest.approx(once, rel=1e-9)


def test_the_rank_correlation_leaves_out_draws_that_have_none():
    pair, names = np.array([1.0, 2.0]), np.array(["a", "b"])
    assert metrics.grouped_rank_correlation(pair, pair + 2, names, 50, seed=0) == pytest.approx((1, 1, 1))


def test_the_rank_correlation_refuses_what_is_not_a_number():
    with pytest.raises(ValueError, match="1 NaN"):
        metrics.grouped_rank_correlation(np.array([1.0, math.nan]), np.array([1.0, 2.0]), np.array([0, 1]), 5, seed=0)
