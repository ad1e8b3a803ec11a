"""Differences between methods, utterance by utterance."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib import figures, tables


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
    scores = scores_of(map=plain, ivon=plain + gap).sample(frac=1, random_state=0)
    (row,) = tables.utterance_differences(scores, "nll", [("ivon", "map")]).to_dict("records")
    assert (row["method"], row["reference"]) == ("ivon", "map")
    assert row["difference"] == pytest.approx(gap.mean())
    half = stats.sem(gap.mean(axis=0)) * stats.norm.ppf(0.975)
    assert row["to"] - row["from"] == pytest.approx(2 * half, rel=0.1)
    assert row["from"] < row["difference"] < row["to"]


def test_only_seeds_of_both_methods_count():
    scores = scores_of(map=[[1.0, 2.0], [5.0, 5.0]], ivon=[[2.0, 4.0]])
    found = tables.utterance_differences(scores, "nll", [("ivon", "map"), ("map", "ivon")], resamples=100)
    assert list(found["difference"]) == [1.5, -1.5]


def test_differences_over_seeds_have_student_s_interval():
    rows = pd.DataFrame(
        {
            "method": ["map"] * 5 + ["ivon"] * 4,
            "seed": [1, 2, 3, 4, 5, 4, 3, 2, 1],
            "nll": [0.5, 0.6, 0.4, 0.7, 9.0, 0.75, 0.5, 0.62, 0.9],
        }
    )
    gap = np.array([0.4, 0.02, 0.1, 0.05])
    (row,) = tables.seed_differences(rows, "nll", [("ivon", "map")]).to_dict("records")
    assert row["difference"] == pytest.approx(gap.mean())
    expected = stats.t.interval(0.95, 3, gap.mean(), stats.sem(gap))
    assert (row["from"], row["to"]) == pytest.approx(expected)
    (single,) = tables.seed_differences(rows[rows["seed"] == 1], "nll", [("map", "ivon")]).to_dict("records")
    assert single["difference"] == pytest.approx(-0.4)
    assert np.isnan(single["from"])


def test_intervals_are_written_behind_their_differences():
    table = pd.DataFrame({"difference": [0.5], "from": [-0.25], "to": [1.0]}, index=["ivon"])
    assert figures.interval_table({"here": table}, ".2f").loc["ivon", "here"] == "0.50 (-0.25, 1.00)"


def test_rank_correlations_are_taken_over_the_networks_that_have_both():
    generator = np.random.default_rng(0)
    networks = pd.DataFrame(generator.normal(size=(12, 3)), columns=["angularity", "rise", "fall"])
    networks = networks.assign(method=list("aaabbbcccddd"))
    networks.loc[2, "fall"] = np.nan
    found = tables.rank_correlations(networks, ["angularity"], ["rise", "fall"], resamples=50)
    assert found[["measure", "outcome"]].to_numpy().tolist() == [["angularity", "rise"], ["angularity", "fall"]]
    for outcome, row in zip(["rise", "fall"], found.to_dict("records"), strict=True):
        expected = networks["angularity"].corr(networks[outcome], method="spearman")
        assert row["correlation"] == pytest.approx(expected)
        assert row["from"] <= row["correlation"] <= row["to"]
