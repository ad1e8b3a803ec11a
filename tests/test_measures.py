"""What a study measures of a run: each column against the library's own figures, on a toy set."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lib import experiment, measures, metrics, posteriors, slices
from lib.measures import angularity, common

CHOSEN = {"dataset": "fsdd", "seed": 3, "hidden_sizes": [6], "num_frames": 20, "epochs": 2, "batch_size": 10}


@pytest.fixture
def chosen(tmp_path):
    return CHOSEN | {"results_root": tmp_path / "runs"}


def noisy(frames, level):
    """The toy set with its test part replaced by what a level of noise makes of it."""
    share = 1 / (1 + 10 ** (-level / 10))
    noise = torch.randn(frames.features.shape, generator=torch.Generator().manual_seed(1))
    test = torch.from_numpy(frames.parts == "test")[:, None, None]
    return replace(frames, features=torch.where(test, share * frames.features + (1 - share) * noise, frames.features))


@pytest.fixture(autouse=True)
def data(monkeypatch, toy_frames):
    """The toy set under every split; words never heard are those of its third class alone."""

    def load_frames(chosen, dataset, snr=None):
        if (chosen.get("split") or "").startswith("unheard "):
            return replace(toy_frames, features=toy_frames.features + 5)
        return toy_frames if snr is None else noisy(toy_frames, snr)

    monkeypatch.setattr(experiment, "load_frames", load_frames)


def run_of(frames, chosen, method):
    return experiment.train(frames, chosen | {"method": method})


def test_figures_in_noise_are_those_of_the_noisy_test_part(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "map")
    row = measures.in_noise(run, toy_frames, chosen, levels=[10, -5], samples=4)
    assert len(row) == 8
    for level in (10, -5):
        test = noisy(toy_frames, level).part("test")
        probabilities = posteriors.predict(
            run.network(toy_frames), run.posterior, test.features, 1, torch.Generator().manual_seed(3)
        )
        expected = metrics.summary(probabilities, test.labels)
        assert all(row[f"{name}_at_{level}_db"] == expected[name] for name in ("accuracy", "nll", "ece", "brier"))
    assert row["nll_at_10_db"] != row["nll_at_-5_db"]


def test_detection_is_scikit_learns(toy_frames, chosen):
    chosen = chosen | {"split": "without a, b"}
    run = run_of(toy_frames, chosen, "ivon")
    row = measures.unheard(run, toy_frames, chosen, samples=3)
    assert set(row) == {f"auroc_{kind}_{of}" for kind in ("noise", "words") for of in ("entropy", "mutual_information")}
    known = common.predicted(run, toy_frames, toy_frames.part("test").features, 3)
    unknown = common.predicted(run, toy_frames, toy_frames.part("test").features + 5, 3)
    labels = np.repeat([0, 1], [known.shape[1], unknown.shape[1]])
    entropies = torch.cat([metrics.example_entropies(known), metrics.example_entropies(unknown)])
    assert row["auroc_words_entropy"] == pytest.approx(roc_auc_score(labels, entropies))


def test_a_point_has_no_mutual_information_and_a_split_of_all_words_no_unheard_ones(toy_frames, chosen):
    row = measures.unheard(run_of(toy_frames, chosen, "map"), toy_frames, chosen, samples=3)
    assert set(row) == {"auroc_noise_entropy"}


def test_more_samples_are_the_first_of_the_same_draws(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "ivon")
    test = toy_frames.part("test")
    row = measures.by_samples(run, toy_frames, chosen, counts=[1, 4], methods=["ivon"])
    four = common.predicted(run, toy_frames, test.features, 4)
    assert row["nll_of_4"] == metrics.negative_log_likelihood(four, test.labels)
    assert row["nll_of_1"] == metrics.negative_log_likelihood(four[:1], test.labels)
    assert measures.by_samples(run, toy_frames, chosen, counts=[1, 4], methods=["bbb"]) == {}


def test_at_the_centre_there_is_no_noise(toy_frames, chosen):
    row = measures.at_centre(run_of(toy_frames, chosen, "ivon"), toy_frames, chosen)
    mean = run_of(toy_frames, chosen, "ivon-mean")
    test = toy_frames.part("test")
    expected = metrics.summary(common.predicted(mean, toy_frames, test.features, 1), test.labels)
    assert row == {"accuracy_at_centre": expected["accuracy"], "nll_at_centre": expected["nll"]}


def test_an_ensemble_takes_and_holds_more(toy_frames, chosen):
    how = {"samples": 2, "utterances": 20, "repeats": 1}
    rows = {
        method: measures.cost(run_of(toy_frames, chosen, method), toy_frames, chosen, **how)
        for method in ("map", "ensemble")
    }
    assert all(row["prediction_ratio"] > 0 for row in rows.values())
    assert rows["ensemble"]["posterior_bytes"] > 2 * rows["map"]["posterior_bytes"]
    assert rows["ensemble"]["training_seconds"] > rows["map"]["training_seconds"]


PARTS = ["all", "hidden", "readout", "filters"]
LINES = {"directions": dict.fromkeys(PARTS, 2), "points": 9, "radius": 1.0, "counts": [1, 3], "examples": 12}


def test_angularity_is_that_of_the_stored_lines(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "ivon")
    row = measures.of_angularity(run, toy_frames, chosen, **LINES)
    curves = angularity.lines(run, toy_frames, **LINES)
    assert set(curves["part"]) == set(LINES["directions"])
    of_hidden = curves[(curves["part"] == "hidden") & (curves["count"] == 3)].groupby("direction")
    expected = [slices.roughness(curve["nll"].to_numpy()) for _, curve in of_hidden]
    assert row["roughness_hidden_of_3"] == pytest.approx(np.mean(expected))
    # At alpha 0 all lines of one count meet, and what they meet in is the loss of the averaged prediction.
    meeting = curves[(curves["alpha"] == 0) & (curves["count"] == 3)]["nll"]
    test = toy_frames.part("test")
    drawn = posteriors.predict(
        run.network(toy_frames), run.posterior, test.features[:12], 3, torch.Generator().manual_seed(0)
    )
    np.testing.assert_allclose(meeting, metrics.negative_log_likelihood(drawn, test.labels[:12]), rtol=1e-5)


def test_a_point_has_one_draw_and_its_readout_a_smooth_line(toy_frames, chosen):
    row = measures.of_angularity(run_of(toy_frames, chosen, "map"), toy_frames, chosen, **LINES | {"points": 33})
    assert not [name for name in row if name.endswith("_of_3")]
    assert row["exponent_readout_of_1"] == pytest.approx(4, abs=0.2)


def test_a_filter_normalised_direction_has_unit_norm_and_moves_each_filter_by_the_same_share(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "map")
    state = posteriors.centre(run.posterior)
    direction = angularity.unit_direction(run.network(toy_frames), state, "filters", 1)
    assert slices.length(direction, direction) == pytest.approx(1)
    shares = torch.cat([tensor.norm(dim=1) / state[name].norm(dim=1) for name, tensor in direction.items()])
    torch.testing.assert_close(shares, shares[:1].expand_as(shares))


CLOSE = {"points": 65, "directions": 2, "radius": 0.05, "examples": 40}


def test_jumps_are_found_close_by_but_not_where_only_the_readout_moves(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "map")
    row = measures.zoom(run, toy_frames, chosen, **CLOSE)
    assert row["jumps_readout"] == 0
    assert row["jumps_hidden"] > 0
    hidden = measures.TABLES["zoom"](run, toy_frames, **CLOSE).query("part == 'hidden' and direction == 1")
    # Hidden weights act only through spikes: between two jumps the loss stands still.
    assert hidden["nll"].diff().abs().lt(1e-12).sum() > 20
    assert row["jump_size_hidden"] > hidden["nll"].diff().abs().median()


def test_single_precision_is_near_double(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "ivon")
    row = measures.precision(run, toy_frames, chosen, points=9, radius=0.5, examples=40)
    assert 0 < row["double_precision"] < 0.05


@pytest.mark.parametrize("method", ["map", "ivon", "sbnn"])
def test_the_middle_row_of_a_plane_is_the_line(toy_frames, chosen, method):
    run = run_of(toy_frames, chosen, method)
    how = {"points": 9, "radius": 1.0, "counts": [1, 3], "examples": 12}
    row = measures.surface(run, toy_frames, chosen, **how)
    plane = measures.TABLES["surface"](run, toy_frames, **how)
    assert set(plane["count"]) == ({1} if method == "map" else {1, 3})
    assert row["surface_range"] == np.ptp(plane[plane["count"] == plane["count"].max()]["nll"])
    line = angularity.lines(run, toy_frames, **LINES | {"directions": {"all": 1}})
    np.testing.assert_allclose(plane[plane["beta"] == 0]["nll"], line["nll"], rtol=1e-5)


def test_fresh_noise_is_rougher_than_the_same(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "ivon")
    row = measures.jitter(run, toy_frames, chosen, points=33, radius=0.01, samples=2, examples=12)
    assert row["roughness_fresh_noise"] > 2 * row["roughness_same_noise"]
    assert row["exponent_fresh_noise"] < 0.5  # as of points that have nothing to do with one another: 0


def test_the_surrogate_is_right_about_the_readout(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "map")
    row = measures.agreement(run, toy_frames, chosen, directions=6, steps=[0.01, 0.1], examples=40)
    assert row["agreement_readout_at_0.01"] == pytest.approx(1, abs=1e-3)
    assert row["slope_readout_at_0.01"] == pytest.approx(1, abs=1e-2)
    assert row["agreement_hidden_at_0.1"] < 0.999


def test_what_a_run_s_folder_keeps_is_not_computed_again(toy_frames, chosen, monkeypatch):
    run = run_of(toy_frames, chosen, "map")
    first = measures.zoom(run, toy_frames, chosen, **CLOSE)
    monkeypatch.setattr(slices, "deterministic_loss", None)
    assert measures.zoom(run, toy_frames, chosen, **CLOSE) == first
    with pytest.raises(TypeError):
        measures.zoom(run, toy_frames, chosen, **CLOSE | {"points": 33})


def test_the_worst_rise_is_above_the_mean_and_noise_on_all_above_its_least(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "map")
    row = measures.MEASURES["noise"](run, toy_frames, chosen, std=0.5, samples=6, examples=40)
    groups = [name.removeprefix("worst_") for name in row if name.startswith("worst_")]
    assert {"rise_all", "rise_weights", "rise_norm", "rise_leak", "rise_readout"} <= set(groups)
    assert all(row[f"worst_{name}"] >= row[name] for name in groups)
    assert row["rise_all"] > min(row[name] for name in groups)


def test_lengths_are_norms(toy_frames, chosen):
    run = run_of(toy_frames, chosen, "ivon")
    row = measures.MEASURES["lengths"](run, toy_frames, chosen)
    moved = [name for name, _ in run.network(toy_frames).named_parameters()]
    weights = torch.cat([run.posterior.mean[name].flatten() for name in moved])
    assert row["norm_all"] == pytest.approx(float(weights.norm()), rel=1e-5)
    assert row["norm_all"] ** 2 == pytest.approx(row["norm_hidden"] ** 2 + row["norm_readout"] ** 2)
    noise = torch.cat([run.posterior.std[name].flatten() for name in run.posterior.std])
    assert row["spread_all"] == pytest.approx(float(noise.norm()), rel=1e-5)
    assert "spread_all" not in measures.MEASURES["lengths"](run_of(toy_frames, chosen, "map"), toy_frames, chosen)


HARDWARE = {"mismatch": [0.0, 0.5], "bits": [2, 16], "lost": [0.0, 0.9], "samples": 3, "devices": 2}


@pytest.mark.parametrize("method", ["map", "ivon", "ensemble", "sbnn"])
def test_flawless_hardware_changes_nothing_and_bad_hardware_does(toy_frames, chosen, method):
    run = run_of(toy_frames, chosen, method)
    row = measures.on_hardware(run, toy_frames, chosen, **HARDWARE)
    test = toy_frames.part("test")
    plain = metrics.summary(common.predicted(run, toy_frames, test.features, 3), test.labels)
    for name in ("weights_0", "lost_0"):
        assert row[f"nll_{name}"] == pytest.approx(plain["nll"], rel=1e-6)
        assert row[f"accuracy_{name}"] == plain["accuracy"]
    assert row["nll_bits_16"] == pytest.approx(plain["nll"], rel=0.02)
    assert row["nll_weights_0.5"] != pytest.approx(plain["nll"], rel=1e-4)
    assert ("nll_leaks_0.5" in row) == ("nll_thresholds_0" in row) == (method != "sbnn")


@pytest.mark.parametrize("method", ["map", "ensemble", "sbnn"])
def test_sizes_are_those_of_the_weights_and_leaks_at_the_centre(toy_frames, chosen, method):
    run = run_of(toy_frames, chosen, method)
    found = measures.MEASURES["sizes"](run, toy_frames, chosen)
    network = run.network(toy_frames)
    network.load_state_dict(posteriors.centre(run.posterior), strict=False)
    linear = [module.weight for module in network.modules() if isinstance(module, torch.nn.Linear)]
    weights = torch.cat([weight.flatten() for weight in linear])
    assert found["weight_size"] == pytest.approx(float(weights.detach().square().mean().sqrt()), rel=1e-5)
    assert ("leak" in found) == (method != "sbnn")
    if method != "sbnn":
        assert 0.8187 < found["leak"] < 0.9608
        assert 0 <= found["longest_leaks"] < 1
