"""Curves, intervals and correlations against scikit-learn, torchmetrics, scipy and values worked out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
import torch
import torchmetrics.classification
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lib import statistics

# Risk and coverage


def test_the_most_certain_are_answered_first_and_what_ties_together():
    given = np.array([0.3, 0.1, 0.2, 0.4]), np.array([0, 1, 1, 1])
    np.testing.assert_allclose(statistics.risk_coverage(*given), [[0.25, 0], [0.5, 0], [0.75, 1 / 3], [1, 1 / 4]])
    assert statistics.risk_coverage_area(*given) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    curve = statistics.risk_coverage(np.array([2, 1, 2, 1]), np.array([True, False, True, True]))
    assert list(curve) == ["coverage", "risk"]
    np.testing.assert_allclose(curve, [[0.5, 0.5], [1, 0.25]])


@given(
    utterances=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30),
    seed=st.integers(0, 2**16),
)
def test_the_area_is_the_mean_risk_among_those_as_certain_in_whatever_order(utterances, seed):
    table = pd.DataFrame(utterances, columns=["uncertainty", "correct"])
    uncertainty, correct = table["uncertainty"].to_numpy(), table["correct"].to_numpy()
    area = statistics.risk_coverage_area(table["uncertainty"], table["correct"])
    expected = np.mean([1 - correct[uncertainty <= own].mean() for own in uncertainty])
    assert area == pytest.approx(expected, abs=1e-12)
    shuffled = table.sample(frac=1, random_state=seed)
    again = statistics.risk_coverage(shuffled["uncertainty"], shuffled["correct"])
    pd.testing.assert_frame_equal(again, statistics.risk_coverage(table["uncertainty"], table["correct"]))
    assert again.iloc[-1].tolist() == pytest.approx([1, 1 - correct.mean()])
    # Only the order counts, not the values.
    assert statistics.risk_coverage_area(np.exp(table["uncertainty"]), table["correct"]) == area


def test_the_areas_of_the_best_and_of_no_order():
    correct = np.repeat([1, 0], [700, 300])
    perfect = statistics.risk_coverage_area(np.arange(1000.0), correct)
    assert perfect == pytest.approx(sum(wrong / (700 + wrong) for wrong in range(1, 301)) / 1000)
    # In the limit r + (1 - r) log(1 - r) for an error rate r, as in Geifman et al. (2019).
    assert perfect == pytest.approx(0.3 + 0.7 * math.log(0.7), abs=2e-4)
    assert statistics.risk_coverage_area(np.zeros(1000), correct) == pytest.approx(0.3)
    assert statistics.risk_coverage_area(-np.arange(1000.0), correct) > 0.3


# Detection of the unknown


@pytest.mark.parametrize("decimals", [1, 6])
def test_detection_agrees_with_scikit_learn_and_torchmetrics(decimals):
    noise = np.random.default_rng(0)
    known, unknown = noise.gamma(1, size=300).round(decimals), noise.gamma(2, size=170).round(decimals)
    found = statistics.detection_auroc(known, unknown)
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
    assert statistics.detection_auroc(pd.Series(known), pd.Series(unknown)) == expected


# Over seeds


def table1(**methods):
    """Rows of Table 1 from the negative log-likelihoods of each method: [data sets, seeds]."""
    return pd.DataFrame(
        {"dataset": f"set{i}", "method": method, "seed": seed, "accuracy": 50.0 - seed, "nll": nll, "brier": 2 * nll,
         "ece": 0.1}
        for method, sets in methods.items() for i, seeds in enumerate(sets) for seed, nll in enumerate(seeds, start=1)
    )  # fmt: skip


def test_differences_over_seeds_have_student_s_interval():
    adam, ivon = [0.5, 0.6, 0.4, 0.7, 9.0], [0.9, 0.62, 0.5, 0.75]
    rows = table1(map=[adam], ivon=[ivon]).sample(frac=1, random_state=0)
    first, second = statistics.seed_differences(rows, "nll", [("ivon", "map"), ("map", "ivon")]).to_dict("records")
    gap = np.array([0.4, 0.02, 0.1, 0.05])  # the fifth seed is Adam's alone
    interval = stats.ttest_rel(ivon, adam[:4]).confidence_interval()
    assert (first["method"], first["reference"]) == ("ivon", "map")
    assert first["difference"] == pytest.approx(gap.mean()) == -second["difference"]
    assert (first["from"], first["to"]) == pytest.approx((interval.low, interval.high))
    assert (second["from"], second["to"]) == pytest.approx((-interval.high, -interval.low))
    (single,) = statistics.seed_differences(rows[rows["seed"] == 1], "nll", [("map", "ivon")]).to_dict("records")
    assert single["difference"] == pytest.approx(-0.4)
    assert np.isnan([single["from"], single["to"]]).all()


def test_paired_differences_are_those_over_seeds_of_each_data_set_and_measure():
    rows = table1(map=[[0.5, 0.6, 0.4], [1.0], [1.0]], ivon=[[0.9, 0.62, 0.5], [3.0]])
    found = statistics.paired_differences(rows, "ivon", "map")
    assert found.index.to_list() == [(f"set{i}", name) for i in (0, 1) for name in ("accuracy", "brier", "ece", "nll")]
    for measure in ("nll", "brier"):
        of_set = rows[rows["dataset"] == "set0"]
        (expected,) = statistics.seed_differences(of_set, measure, [("ivon", "map")]).to_dict("records")
        row = found.loc[("set0", measure)]
        assert row.to_dict() == pytest.approx({name: expected[name] for name in ("difference", "from", "to")})
    assert found.loc[("set0", "ece")].tolist() == [0, 0, 0]
    assert found.loc[("set1", "nll"), "difference"] == 2
    assert found.loc["set1", ["from", "to"]].isna().all(axis=None)


def test_one_more_seed_lies_within_its_interval_95_times_in_100():
    seeds = np.random.default_rng(0).normal(3, 2, size=(4, 20_000))
    found = statistics.student_intervals(pd.DataFrame(seeds[:3]), one_more=True)
    covered = ((found["from"] <= seeds[3]) & (seeds[3] <= found["to"])).mean()
    assert covered == pytest.approx(0.95, abs=5 * (0.95 * 0.05 / 20_000) ** 0.5)
    # m ± t s sqrt(1 + 1/n): of three seeds t is 4.303, and w is 5.0 s.
    half = found["to"] - found["mean"]
    np.testing.assert_allclose(half, 4.302653 * np.sqrt(4 / 3) * seeds[:3].std(axis=0, ddof=1), rtol=1e-6)


# Over utterances


def scores_of(**methods):
    """A row for each method, seed and utterance, from arrays [seeds, utterances]."""
    return pd.concat(
        pd.DataFrame({"method": method, "seed": seed, "utterance": range(len(values)), "nll": values})
        for method, seeds in methods.items()
        for seed, values in enumerate(seeds)
    )


def test_differences_are_paired_by_seed_and_utterance():
    generator = np.random.default_rng(0)
    plain = generator.exponential(5.0, (3, 400))
    gap = generator.normal(0.3, 1.0, (3, 400))
    alone = np.full((1, 400), 99.0)  # a seed that only one of the methods has, and does not count
    scores = scores_of(map=np.concatenate([plain, alone]), ivon=plain + gap).sample(frac=1, random_state=0)
    (row,) = statistics.utterance_differences(scores, "nll", [("ivon", "map")]).to_dict("records")
    assert (row["method"], row["reference"]) == ("ivon", "map")
    assert row["difference"] == pytest.approx(gap.mean())
    half = stats.sem(gap.mean(axis=0)) * stats.norm.ppf(0.975)
    assert row["to"] - row["from"] == pytest.approx(2 * half, rel=0.1)
    assert row["from"] < row["difference"] < row["to"]


@pytest.mark.parametrize("seeds", [1, 4])
def test_the_interval_of_normal_differences_has_the_known_width(seeds):
    differences = np.random.default_rng(0).normal(0.5, 1, size=(seeds, 2000))
    mean, low, high = statistics.paired_bootstrap(differences, 4000, seed=1)
    error = differences.mean(axis=0).std(ddof=1) / math.sqrt(2000)
    assert mean == pytest.approx(differences.mean(), rel=1e-12)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    assert (high + low) / 2 == pytest.approx(mean, abs=0.1 * error)


def test_the_bootstrap_averages_over_seeds_and_repeats_itself_by_its_seed():
    once = np.random.default_rng(0).normal(size=(1, 50))
    found = statistics.paired_bootstrap(once, 200, 7)
    assert statistics.paired_bootstrap(np.repeat(once, 4, axis=0), 200, 7) == pytest.approx(found, rel=1e-12)
    assert statistics.paired_bootstrap(once, 200, 7) == found != statistics.paired_bootstrap(once, 200, 8)


@pytest.mark.parametrize("value", [0.0, 0.1, -2.0])
def test_differences_that_are_all_the_same_have_a_point_as_interval(value):
    found = statistics.paired_bootstrap(np.full((3, 101), value), 200, 0)
    assert found == pytest.approx((value, value, value), abs=1e-15)


# Rank correlations


def ranked(networks):
    """Values rounded so that some tie."""
    first, noise = np.random.default_rng(0).normal(size=(2, networks))
    return first.round(1), (first + noise).round(1)


def test_the_rank_correlation_is_scipys():
    first, second = ranked(40)
    found, low, high = statistics.grouped_rank_correlation(first, second, np.arange(40), 4000, seed=0)
    assert found == pytest.approx(stats.spearmanr(first, second).statistic, rel=1e-12)
    interval = stats.bootstrap(
        (first, second), lambda *pair: stats.spearmanr(*pair).statistic, paired=True, vectorized=False,
        n_resamples=4000, method="percentile", rng=1,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx(tuple(interval), abs=0.02)


def test_the_rank_correlation_counts_groups_and_not_their_members():
    columns = *ranked(12), np.array(list("abcdefghijkl"))
    once = statistics.grouped_rank_correlation(*columns, 500, seed=0)
    thrice = statistics.grouped_rank_correlation(*(np.repeat(column, 3) for column in columns), 500, seed=0)
    assert thrice == pytest.approx(once, rel=1e-9)
    # A resample of one of these groups alone has no correlation.
    pair = np.array([1.0, 2.0])
    assert statistics.grouped_rank_correlation(pair, pair + 2, np.array(["a", "b"]), 50, seed=0) == pytest.approx(
        (1, 1, 1)
    )


def test_rank_correlations_are_taken_over_the_networks_that_have_both():
    generator = np.random.default_rng(0)
    networks = pd.DataFrame(generator.normal(size=(12, 3)), columns=["angularity", "rise", "fall"])
    networks = networks.assign(method=list("aaabbbcccddd"))
    networks.loc[2, "fall"] = np.nan
    found = statistics.rank_correlations(networks, ["angularity"], ["rise", "fall"], resamples=50)
    assert found[["measure", "outcome"]].to_numpy().tolist() == [["angularity", "rise"], ["angularity", "fall"]]
    for outcome, row in zip(["rise", "fall"], found.to_dict("records"), strict=True):
        expected = networks["angularity"].corr(networks[outcome], method="spearman")
        assert row["correlation"] == pytest.approx(expected)
        assert row["from"] <= row["correlation"] <= row["to"]


@pytest.mark.parametrize(
    "measured",
    [
        lambda values: statistics.risk_coverage(values, np.ones(len(values))),
        lambda values: statistics.risk_coverage_area(values, np.ones(len(values))),
        lambda values: statistics.detection_auroc(values, np.ones(3)),
        lambda values: statistics.detection_auroc(np.ones(3), values),
        lambda values: statistics.paired_bootstrap(values[None, :], 10, 0),
        lambda values: statistics.grouped_rank_correlation(values, np.arange(len(values)), np.ones(len(values)), 5, 0),
        lambda values: statistics.grouped_rank_correlation(np.arange(len(values)), values, np.ones(len(values)), 5, 0),
    ],
)
def test_what_is_no_number_or_nothing_is_refused(measured):
    with pytest.raises(ValueError, match="1 NaN"):
        measured(np.array([0.5, math.nan, 0.1]))
    with pytest.raises(ValueError, match=r"at least one|two or more"):
        measured(np.array([]))
    with pytest.raises(ValueError, match="two or more"):
        statistics.paired_bootstrap(np.zeros((3, 1)), 10, 0)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("of_seed", "of_speaker", "of_both"), [(0.05, 0.3, 0.3), (0, 0.3, 0.3), (0.3, 0.1, 0.1)])
def test_the_crossed_interval_covers_what_it_says(seeds, of_seed, of_speaker, of_both):
    """200 speakers of 1 to 12 utterances; a seed, a speaker, an utterance and the two of them move a difference."""
    random, held = np.random.default_rng(0), 0
    speakers = np.repeat(np.arange(200), random.integers(1, 13, 200))
    for _ in range(1_000):
        drawn = of_seed * random.standard_normal((seeds, 1)) + of_speaker * random.standard_normal(200)[speakers]
        drawn = drawn + of_speaker / 2 * random.standard_normal(len(speakers))
        drawn = drawn + of_both * random.standard_normal((seeds, len(speakers)))
        _, low, high = statistics.crossed_interval(drawn, speakers)
        held += low <= 0 <= high
    assert 930 <= held <= 970


def test_the_crossed_interval_of_one_source_alone_is_students():
    random = np.random.default_rng(0)
    of_seed, of_speaker = random.standard_normal((4, 1)), random.standard_normal((1, 30))
    for values, count in ((of_seed, 4), (of_speaker, 30)):
        mean, low, high = statistics.crossed_interval(np.broadcast_to(values, (4, 30)), np.arange(30))
        expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values, axis=None))
        np.testing.assert_allclose((mean, low, high), (values.mean(), *expected))


def test_a_speaker_s_utterances_count_together():
    """Said twice, nothing is known that was not known."""
    values = np.random.default_rng(0).standard_normal((3, 40))
    twice = statistics.crossed_interval(np.tile(values, 2), np.tile(np.arange(40), 2))
    np.testing.assert_allclose(twice, statistics.crossed_interval(values, np.arange(40)))
    assert statistics.crossed_interval(np.full((3, 4), 0.5), np.arange(4)) == (0.5, 0.5, 0.5)
