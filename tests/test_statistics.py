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
from scipy import optimize, stats

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
    pairs = {"one": ("ivon", "map"), "other": ("map", "ivon"), "of another table": ("swag", "map")}
    first, second = statistics.differences(rows, "nll", pairs).to_dict("records")
    gap = np.array([0.4, 0.02, 0.1, 0.05])  # the fifth seed is Adam's alone
    interval = stats.ttest_rel(ivon, adam[:4]).confidence_interval()
    assert [first[name] for name in ("pair", "method", "reference")] == ["one", "ivon", "map"]
    assert first["difference"] == pytest.approx(gap.mean()) == -second["difference"]
    assert (first["from"], first["to"]) == pytest.approx((interval.low, interval.high))
    assert (second["from"], second["to"]) == pytest.approx((-interval.high, -interval.low))
    (single,) = statistics.differences(rows[rows["seed"] == 1], "nll", {"": ("map", "ivon")}).to_dict("records")
    assert single["difference"] == pytest.approx(-0.4)
    assert np.isnan([single["from"], single["to"]]).all()


def test_differences_are_taken_group_by_group_and_measure_by_measure():
    rows = table1(map=[[0.5, 0.6, 0.4], [1.0, 2.0]], ivon=[[0.9, 0.62, 0.5], [3.0, 1.0]])
    pair = {"IVON − Adam": ("ivon", "map")}
    found = statistics.differences(rows, ["nll", "brier"], pair, ["dataset"])
    assert list(found) == ["dataset", "measure", "pair", "method", "reference", "difference", "from", "to"]
    assert found[["dataset", "measure"]].to_numpy().tolist() == [
        [f"set{number}", measure] for measure in ("nll", "brier") for number in (0, 1)
    ]
    for row in found.to_dict("records"):
        of_group = rows[rows["dataset"] == row["dataset"]]
        (alone,) = statistics.differences(of_group, row["measure"], pair).to_dict("records")
        assert {name: row[name] for name in alone} == alone


def test_a_ratio_is_that_of_geometric_means():
    rows = table1(map=[[0.5, 0.6, 0.4]], ivon=[[0.9, 0.62, 0.5]])
    (found,) = statistics.ratios(rows, "nll", {"": ("ivon", "map")}).to_dict("records")
    expected = stats.gmean([0.9, 0.62, 0.5]) / stats.gmean([0.5, 0.6, 0.4])
    low, high = np.exp(stats.ttest_rel(*np.log([[0.9, 0.62, 0.5], [0.5, 0.6, 0.4]])).confidence_interval())
    assert (found["difference"], found["from"], found["to"]) == pytest.approx((expected, low, high))


def balanced(seeds=5):
    """NLLs of two methods under three settings, [settings, seeds], and their rows."""
    values = np.random.default_rng(0).normal(size=(2, 3, seeds))
    rows = [
        {"method": method, "variant": f"setting {setting}", "seed": seed, "nll": values[number, setting, seed]}
        for number, method in enumerate(("map", "ivon"))
        for setting in range(3)
        for seed in range(seeds)
    ]
    return values, pd.DataFrame(rows)


def test_the_main_effect_of_a_balanced_design_is_that_of_the_seeds_means():
    (adam, ivon), rows = balanced()
    pair = {"": ("ivon", "map")}
    (found,) = statistics.pooled(rows.sample(frac=1, random_state=0), "nll", pair, "variant").to_dict("records")
    interval = stats.ttest_1samp((ivon - adam).mean(axis=0), 0).confidence_interval()
    assert found["difference"] == pytest.approx((ivon - adam).mean())
    assert (found["from"], found["to"]) == pytest.approx(tuple(interval))
    # A setting that moves both methods alike, or one that differs between the settings and not between seeds, is none.
    shifted = rows.assign(nll=rows["nll"] + rows["variant"].map({f"setting {number}": number for number in range(3)}))
    np.testing.assert_allclose(
        statistics.pooled(shifted, "nll", pair, "variant")[["from", "to"]].to_numpy()[0], tuple(interval)
    )
    for unbalanced in (rows[1:], pd.concat([rows, rows[:1]])):
        with pytest.raises(ValueError, match="give each method and seed all of it once"):
            statistics.pooled(unbalanced, "nll", pair, "variant")


def test_intervals_stand_beside_what_chance_would_exclude():
    found = pd.DataFrame({"from": [-1, 0.1, 1.1, np.nan], "to": [1, 0.5, 2, np.nan]})
    assert statistics.beside_chance(found) == "2 of 3 intervals exclude 0; by chance alone about 0.2 would."
    assert statistics.beside_chance(found, none=1).startswith("2 of 3 intervals exclude 1;")


def test_one_more_seed_lies_within_its_interval_95_times_in_100():
    seeds = np.random.default_rng(0).normal(3, 2, size=(4, 20_000))
    found = statistics.student_intervals(pd.DataFrame(seeds[:3]), one_more=True)
    covered = ((found["from"] <= seeds[3]) & (seeds[3] <= found["to"])).mean()
    assert covered == pytest.approx(0.95, abs=5 * (0.95 * 0.05 / 20_000) ** 0.5)
    # m ± t s sqrt(1 + 1/n): of three seeds t is 4.303, and w is 5.0 s.
    half = found["to"] - found["mean"]
    np.testing.assert_allclose(half, 4.302653 * np.sqrt(4 / 3) * seeds[:3].std(axis=0, ddof=1), rtol=1e-6)


# Over seeds and speakers


def scores_of(speakers, **methods):
    """A row for each method, seed and utterance, from arrays [seeds, utterances]."""
    return pd.concat(
        pd.DataFrame(
            {"method": method, "seed": seed, "utterance": range(len(values)), "speaker": speakers, "nll": values}
        )
        for method, seeds in methods.items()
        for seed, values in enumerate(seeds)
    )


def test_a_line_is_followed_as_scipy_fits_it_with_the_error_of_further_seeds():
    x, y = np.array([1, 2, 4, 8, 8]), np.array([0.1, -0.2, -0.1, -0.4, -0.5])
    (slope, level), error = optimize.curve_fit(lambda x, slope, level: slope * np.log(x) + level, x, y)
    away = np.array([np.log(32), 1])
    around = np.square(y - slope * np.log(x) - level).sum() / 3
    half = stats.t.ppf(0.975, 3) * np.sqrt(away @ error @ away + around / 3)
    expected = away @ (slope, level)
    found = statistics.extrapolated(x, y, 32, seeds=3)
    np.testing.assert_allclose(found, (expected, expected - half, expected + half), rtol=1e-6)
    with pytest.raises(ValueError, match="three values or more, not 2"):
        statistics.extrapolated(x[:2], y[:2], 32, 3)


def test_the_means_of_further_seeds_lie_where_the_line_says_95_times_in_100():
    generator = np.random.default_rng(0)
    x = np.repeat([1, 2, 4, 8, 16], 3)
    ys = 0.3 - 0.2 * np.log(x) + generator.normal(0, 0.1, (2000, len(x)))
    further = 0.3 - 0.2 * np.log(64) + generator.normal(0, 0.1, (2000, 3)).mean(axis=1)
    ends = np.array([statistics.extrapolated(x, y, 64, seeds=3)[1:] for y in ys])
    covered = ((ends[:, 0] < further) & (further < ends[:, 1])).mean()
    assert 0.94 < covered < 0.96


def test_differences_of_utterances_are_crossed_and_paired_by_seed_and_utterance():
    generator = np.random.default_rng(0)
    plain, gap = generator.exponential(5.0, (3, 400)), generator.normal(0.3, 1.0, (3, 400))
    alone = np.full((1, 400), 99.0)  # a seed that only one of the methods has, and does not count
    speakers = np.char.add("speaker ", (np.arange(400) // 7).astype(str))
    scores = scores_of(speakers, map=np.concatenate([plain, alone]), ivon=plain + gap).sample(frac=1, random_state=0)
    (row,) = statistics.differences(scores, "nll", {"": ("ivon", "map")}).to_dict("records")
    found = row["difference"], row["from"], row["to"]
    np.testing.assert_allclose(found, statistics.crossed_interval(gap, speakers))
    (single,) = statistics.differences(scores[scores["seed"] == 1], "nll", {"": ("ivon", "map")}).to_dict("records")
    assert single["difference"] == pytest.approx(gap[1].mean())
    assert np.isnan(single["from"])


def test_the_main_effect_of_utterances_is_crossed():
    gaps = np.random.default_rng(0).normal(size=(2, 3, 40))
    speakers = np.arange(40) // 4
    scores = pd.concat(
        scores_of(speakers, map=np.zeros((3, 40)), ivon=gap).assign(variant=name)
        for name, gap in zip("ab", gaps, strict=True)
    )
    (row,) = statistics.pooled(scores, "nll", {"": ("ivon", "map")}, "variant").to_dict("records")
    expected = statistics.crossed_interval(gaps.mean(axis=0), speakers)
    np.testing.assert_allclose((row["difference"], row["from"], row["to"]), expected)


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
        lambda values: statistics.grouped_rank_correlation(values, np.arange(len(values)), np.ones(len(values)), 5, 0),
        lambda values: statistics.grouped_rank_correlation(np.arange(len(values)), values, np.ones(len(values)), 5, 0),
    ],
)
def test_what_is_no_number_or_nothing_is_refused(measured):
    with pytest.raises(ValueError, match="1 NaN"):
        measured(np.array([0.5, math.nan, 0.1]))
    with pytest.raises(ValueError, match=r"at least one|two or more"):
        measured(np.array([]))


def test_the_crossed_interval_asks_for_two_seeds_and_two_speakers():
    for seeds, speakers in ((3, 1), (1, 3)):
        with pytest.raises(ValueError, match=f"needs two of each, not {seeds} and {speakers}"):
            statistics.crossed_interval(np.zeros((seeds, 6)), np.resize(np.arange(speakers), 6))
    with pytest.raises(ValueError, match="1 NaN"):
        statistics.crossed_interval(np.array([[0, 1, math.nan], [0, 1, 2]]), np.arange(3))


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


@pytest.mark.parametrize(("seeds", "least"), [(5, 940), (2, 885)])
@pytest.mark.parametrize(("of_seed", "of_voice", "of_both"), [(0.05, 0.3, 0.3), (0.3, 0.1, 0.1), (0.3, 0.3, 0.3)])
def test_the_crossed_interval_over_six_voices_is_seldom_too_narrow(seeds, least, of_seed, of_voice, of_both):
    random, held = np.random.default_rng(0), 0
    for _ in range(1_000):
        drawn = of_seed * random.standard_normal((seeds, 1)) + of_voice * random.standard_normal(6)
        drawn = drawn + of_both * random.standard_normal((seeds, 6))
        _, low, high = statistics.crossed_interval(drawn, np.arange(6))
        held += low <= 0 <= high
    assert least <= held <= 985


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
