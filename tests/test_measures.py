"""What a study measures of a run: each table against the library's own figures, on a toy set."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lib import landscape, metrics, posteriors, runs, slices
from lib.setup import Setup
from lib.study.measures import MEASURES, common, smoothing
from lib.study.measures.common import Place, balanced, direction_in

CHOSEN = {"dataset": "fsdd", "seed": 3, "hidden_sizes": [6], "num_frames": 20, "epochs": 2, "batch_size": 10}


def noisy(frames, level):
    """The toy set with its test part replaced by what a level of noise makes of it."""
    share = 1 / (1 + 10 ** (-level / 10))
    noise = torch.randn(frames.features.shape, generator=torch.Generator().manual_seed(1))
    test = torch.from_numpy(frames.parts == "test")[:, None, None]
    return replace(frames, features=torch.where(test, share * frames.features + (1 - share) * noise, frames.features))


@pytest.fixture
def measured(monkeypatch, tmp_path, toy_frames):
    """Measures runs on the toy set; held-out classes are the same utterances, raised."""

    def frames(place, setup, snr=None):
        if (setup.data.split or "").startswith("held-out "):
            return replace(toy_frames, features=toy_frames.features + 5)
        return toy_frames if snr is None else noisy(toy_frames, snr)

    monkeypatch.setattr(Place, "frames", frames)

    def of(measure, method, split=None, chosen=None, **settings):
        return MEASURES[measure](of.run(method, split, chosen), toy_frames, Place(None, tmp_path), **settings)

    def run(method, split=None, chosen=None):
        settings = CHOSEN | {"method": method, "split": split} | (chosen or {})
        return runs.train(Setup.of(settings), toy_frames, tmp_path / "runs")

    of.run, of.frames, of.test = run, toy_frames, toy_frames.part("test")
    of.predicted = lambda method, samples, test=of.test: runs.predicted(run(method), toy_frames, test.features, samples)
    return of


def test_figures_in_noise_are_those_of_the_noisy_test_part(measured):
    found = measured("snr_sweep", "map", snr=[10, -5], samples=4)
    for ratio in (10, -5):
        test = noisy(measured.frames, ratio).part("test")
        expected = metrics.summary(measured.predicted("map", 1, test), test.labels)
        assert found.loc[ratio].to_dict() == {name: expected[name] for name in found}
    assert found["nll"].nunique() == 2


def test_detection_is_scikit_learns(measured):
    found = measured("out_of_distribution", "ivon", split="without a, b", samples=3)
    assert set(found.index) == {
        (unknown, kind) for unknown in ("noise", "held-out") for kind in ("entropy", "mutual_information")
    }
    features, run = measured.test.features, measured.run("ivon", "without a, b")
    predicted = [runs.predicted(run, measured.frames, one, 3) for one in (features, features + 5)]
    entropies = [metrics.example_entropies(probabilities) for probabilities in predicted]
    labels = np.repeat([0, 1], len(features))
    expected = roc_auc_score(labels, torch.cat(entropies))
    assert found["auroc"]["held-out", "entropy"] == pytest.approx(expected)


def test_a_point_has_no_mutual_information_and_a_split_of_all_classes_none_held_out(measured):
    assert list(measured("out_of_distribution", "map", samples=3).index) == [("noise", "entropy")]


def test_more_samples_are_the_first_of_the_same(measured):
    found = measured("sample_counts", "ivon", samples=[1, 4], methods=["ivon"])
    four, labels = measured.predicted("ivon", 4), measured.test.labels
    assert found["nll"].to_dict() == {n: metrics.negative_log_likelihood(four[:n], labels) for n in (1, 4)}
    assert measured("sample_counts", "ivon", samples=[1, 4], methods=["bbb"]).empty


def test_at_the_posterior_mean_there_is_no_noise(measured):
    expected = metrics.summary(measured.predicted("ivon-mean", 1), measured.test.labels)
    (found,) = measured("posterior_mean_only", "ivon").to_dict("records")
    assert found == {name: expected[name] for name in ("accuracy", "nll")}


def test_an_ensemble_takes_and_holds_more(measured):
    how = {"samples": 2, "utterances": 20, "repeats": 1}
    plain, ensemble = (measured("cost", method, **how).iloc[0] for method in ("map", "ensemble"))
    assert min(plain["prediction_ratio"], ensemble["prediction_ratio"]) > 0
    assert ensemble["posterior_bytes"] > 2 * plain["posterior_bytes"]
    assert ensemble["training_seconds"] > plain["training_seconds"]


PARTS = ["all", "hidden", "readout", "filters"]
LINES = {
    "directions": dict.fromkeys(PARTS, 2), "points": 9, "radius": dict.fromkeys(PARTS, 1.0), "samples": [1, 3],
    "examples": 12,
}  # fmt: skip


@given(
    utterances=st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abcd")), min_size=1, max_size=60),
    number=st.integers(1, 70),
)
def test_classes_occur_equally_often_and_so_do_the_speakers_of_each(utterances, number):
    labels, speakers = (np.array(column) for column in zip(*utterances, strict=True))
    chosen = balanced(labels, speakers, number)
    assert len(set(chosen)) == len(chosen) == min(number, len(labels))
    np.testing.assert_array_equal(chosen, balanced(labels, speakers, number))
    np.testing.assert_array_equal(chosen[: number // 2], balanced(labels, speakers, number // 2))
    of_class, there = Counter(labels[chosen].tolist()), Counter(labels.tolist())
    # Nothing that has some left comes more than once less than another.
    assert all(of_class[one] == there[one] or of_class[one] >= max(of_class.values()) - 1 for one in there)
    for label in of_class:
        heard = Counter(speakers[chosen][labels[chosen] == label].tolist())
        there = Counter(speakers[labels == label].tolist())
        assert all(heard[one] == there[one] or heard[one] >= max(heard.values()) - 1 for one in there)


def test_minibatches_are_near_equal_and_each_has_all_classes(measured, monkeypatch):
    monkeypatch.setattr(common, "MINIBATCH", 7)
    batches = common.test_batches(measured.frames, 18)
    assert [Counter(labels.tolist()) for _, labels in batches] == 3 * [Counter({0: 2, 1: 2, 2: 2})]
    assert [len(features) for features, _ in common.test_batches(measured.frames, 20)] == [7, 7, 6]
    chosen = common.test_utterances(measured.frames, 18)
    for index, (features, label) in enumerate(zip(chosen.features, chosen.labels, strict=True)):
        place = (measured.test.features == features).all(dim=(1, 2)).nonzero().item()
        assert label == measured.test.labels[place]
        assert chosen.speakers[index] == measured.test.speakers[place]


def test_the_table_of_utterances_counts_them(measured):
    found = measured("heard_on", "map", examples=10)
    assert sorted(found["utterances"]) == [3, 3, 4]
    assert set(found.index) == {"low", "middle", "high"}
    assert found["speakers"].tolist() == [2, 2, 2]


def test_angularity_is_that_of_its_lines(measured):
    one = LINES | {"directions": dict.fromkeys(PARTS, 1)}
    found = measured("angularity", "ivon", **one)
    lines = found["angularity_lines"]["nll"]
    assert set(found["angularity"].index) == {(part, count) for part in PARTS for count in (1, 3)}
    expected = slices.roughness(lines.xs(("hidden", 3), level=("part", "samples")).to_numpy())
    assert found["angularity"].loc[("hidden", 3), "roughness"] == pytest.approx(expected)
    # At alpha 0 all lines of one number of samples meet in the loss of the averaged prediction.
    run, noise = measured.run("ivon"), torch.Generator().manual_seed(0)
    chosen = common.test_utterances(measured.frames, 12)
    drawn = posteriors.predict(run.network(measured.frames), run.posterior, chosen.features, 3, noise)
    meeting = lines.xs((3, 0.0), level=("samples", "alpha"))
    np.testing.assert_allclose(meeting, metrics.negative_log_likelihood(drawn, chosen.labels), rtol=1e-5)
    both = measured("angularity", "ivon", **LINES)
    pd.testing.assert_frame_equal(both["angularity_lines"], found["angularity_lines"])
    assert not both["angularity"].equals(found["angularity"])  # the mean over two directions


def test_a_point_has_one_sample_and_its_readout_a_smooth_line(measured):
    found = measured("angularity", "map", **LINES | {"points": 33})["angularity"]
    assert set(found.index.get_level_values("samples")) == {1}
    assert found.loc[("readout", 1), "exponent"] == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("scale", [1, 3])
def test_among_filters_a_distance_is_the_share_by_which_each_one_moves(measured, scale):
    run = measured.run("map")
    state = {name: scale * tensor for name, tensor in run.posterior.mean.items()}
    direction = direction_in(run.network(measured.frames), state, "filters", 1)
    shares = torch.cat([tensor.norm(dim=1) / state[name].norm(dim=1) for name, tensor in direction.items()])
    torch.testing.assert_close(shares, torch.ones_like(shares))
    whole = direction_in(run.network(measured.frames), state, "hidden", 1)
    assert landscape.weight_norm(whole, whole) == pytest.approx(1)


def test_slices_are_of_the_point_and_where_there_is_a_deviation_of_the_average(measured):
    how = {"points": 9, "directions": 2, "radius": 1.0, "samples": 2, "examples": 10}
    assert list(measured("slices", "map", **how).index) == ["point"]
    assert list(measured("slices", "ivon", **how).index) == ["point", "averaged"]


def test_jumps_are_found_close_by_but_not_where_only_the_readout_moves(measured):
    how = {"points": 65, "directions": 2, "radius": 0.05, "within": 1.0, "examples": 40}
    found = measured("fine_slices", "map", **how)
    assert found["fine_slices"]["jumps"]["readout"] == 0 < found["fine_slices"]["jumps"]["hidden"]
    hidden = found["fine_slices_lines"].loc[("hidden", 1), "nll"].diff().abs()
    # Hidden weights act only through spikes: between two jumps the loss stands still.
    assert hidden.lt(1e-12).sum() > 20
    assert found["fine_slices"]["jump_size"]["hidden"] > hidden.median()
    lines = found["fine_slices_lines"]["nll"].unstack("alpha")
    jumps = [landscape.jumps(lines.columns.to_numpy(), lines.loc["hidden", n].to_numpy()) for n in range(2)]
    assert found["fine_slices"]["intensity"]["hidden"] == np.mean([one.intensity for one in jumps])
    # The lines pass no common point: each lies at a place of its own.
    assert lines[0.0].nunique() == 2 * 3
    at_mean = measured("fine_slices", "map", **how | {"within": 0.0})["fine_slices_lines"]["nll"].unstack("alpha")
    assert np.ptp(at_mean[0.0]) < 1e-12


STRUCTURE = {
    "directions": {"all": 2, "readout": 1}, "points": 33, "radius": {"all": 1.0, "readout": 0.5}, "zooms": 1,
    "samples": 3, "examples": 12,
}  # fmt: skip


def test_the_structure_function_goes_on_from_the_lines_to_those_close_by(measured):
    found = measured("structure", "map", **STRUCTURE)
    square = found["square"].xs("single", level="loss").unstack("part")
    np.testing.assert_allclose(square["all"].dropna().index, 2.0 ** np.arange(-8, 0))
    alphas, network = np.linspace(-1, 1, 33), measured.run("map").network(measured.frames).double()
    mean = measured.run("map").posterior.mean
    state = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in mean.items()}
    batches = [(features.double(), labels) for features, labels in common.test_batches(measured.frames, 12)]
    for place, reach, scales in ((0, 1, slice(4, 8)), (None, 1 / 16, slice(0, 4))):
        expected = []
        for number in range(2):
            middle = np.random.default_rng(number).uniform(-1, 1) if place is None else place
            direction = direction_in(network, state, "all", number)
            losses = slices.deterministic_loss(network, state, direction, middle + reach * alphas, batches)
            expected.append(landscape.structure_function(reach * alphas, losses)["square"])
        np.testing.assert_allclose(square["all"].dropna().iloc[scales], np.mean(expected, axis=0), rtol=1e-6)
    # The readout's loss is smooth over all of them.
    smooth = square["readout"].dropna()
    steepness = smooth / smooth.index.to_numpy() ** 4
    np.testing.assert_allclose(steepness, steepness.mean(), rtol=0.2)


def test_averages_have_structure_functions_of_their_own(measured):
    square = measured("structure", "ivon", **STRUCTURE)["square"].unstack("loss")
    assert list(square) == ["single", "losses averaged", "probabilities averaged"]
    # No average of S curves has more than they have in the mean.
    assert (square["losses averaged"] <= square["single"]).all()
    assert square.loc["readout"].nunique(axis=1).gt(1).all()


def test_single_precision_is_near_double(measured):
    assert 0 < measured("precision", "ivon", points=9, radius=0.5, examples=40)["difference"][0] < 0.05


@pytest.mark.parametrize("method", ["map", "ivon", "sbnn"])
def test_the_middle_row_of_a_surface_is_the_line(measured, method):
    found = measured("loss_surface", method, points=9, radius=1.0, samples=[1, 3], examples=12)
    surface = found["loss_surface_points"]["nll"]
    most = 1 if method == "map" else 3
    assert surface.index.get_level_values("samples").max() == most
    assert found["loss_surface"]["range"].to_dict() == {most: np.ptp(surface[most])}
    line = measured("angularity", method, **LINES | {"directions": {"all": 1}})["angularity_lines"]["nll"]
    np.testing.assert_allclose(surface.xs(0.0, level="beta")[most], line.xs(most, level="samples"), rtol=1e-5)


def test_fresh_noise_is_rougher_than_the_same(measured):
    found = measured("noise_comparison", "ivon", points=33, radius=0.01, samples=2, examples=12)["noise_comparison"]
    assert found["roughness"]["fresh"] > 2 * found["roughness"]["same"]
    assert found["exponent"]["fresh"] < 0.5  # as of points that have nothing to do with one another: 0


def test_the_surrogate_is_right_about_the_readout(measured):
    found = measured("alignment", "map", directions=6, steps=[0.01, 0.1], examples=40)["alignment"]
    assert found.loc[("readout", 0.01)].tolist() == pytest.approx([1, 1], abs=1e-2)
    assert found["correlation"]["hidden", 0.1] < 0.999


@pytest.mark.parametrize(("method", "groups"), [("map", {"norm", "leak"}), ("sbnn", {"gain", "log_deviation"})])
def test_the_worst_rise_is_above_the_mean_and_each_group_has_its_own_parameters(measured, method, groups):
    found = measured("sharpness", method, std=0.5, samples=6, examples=40)
    assert groups | {"all", "weights", "readout"} <= set(found.index)
    assert (found["worst"] >= found["mean"]).all()


def test_norms_are_those_of_all_weights(measured):
    found = measured("weight_norms", "ivon")
    posterior = measured.run("ivon").posterior
    for column, state in (("mean", posterior.mean), ("std", posterior.std)):
        tensors = torch.cat([state[name].flatten() for name in posterior.std])
        assert found[column]["all"] == pytest.approx(float(tensors.norm()), rel=1e-5)
        assert found[column]["all"] == pytest.approx(np.hypot(found[column]["hidden"], found[column]["readout"]))
    assert list(measured("weight_norms", "map")) == ["mean"]


def test_the_spread_of_ivon_says_how_far_its_curvature_went(measured):
    found, run = measured("spread", "ivon"), measured.run("ivon")
    std = run.posterior.std
    assert set(found.index) == {"weights", "norm", "leak", "readout", "layer 1", "all"}
    everything = np.concatenate([one.flatten().double() for one in std.values()])
    assert found["std"]["all"] == pytest.approx(everything.mean())
    assert found["variation"]["all"] == pytest.approx(everything.std(ddof=1) / everything.mean())
    readout = np.concatenate([std[name].flatten().double() for name in std if not name.startswith("layers.")])
    assert found["std"]["readout"] == pytest.approx(readout.mean())
    # In four steps with a memory of 0.9999.
    assert found["curvature"]["all"] == pytest.approx(1, abs=0.05)
    assert not found["curvature"].eq(1).any()


def test_a_curvature_that_is_held_is_the_one_that_was_put_in(measured):
    found = measured("spread", "ivon", chosen={"beta2": 1.0, "weight_decay": 0.0})
    assert found["variation"].to_numpy() == pytest.approx(0, abs=1e-5)
    assert found["curvature"].to_numpy() == pytest.approx(1, rel=1e-5)
    std = (6.5 * 20 * 0.42) ** -0.5
    assert found["std"].to_numpy() == pytest.approx(std, rel=1e-5)


def test_other_gaussians_have_a_spread_without_a_curvature_and_points_none(measured):
    permuted = measured("spread", "ivon-permuted")
    assert permuted["curvature"].isna().all()
    assert permuted["std"]["all"] == pytest.approx(measured("spread", "ivon")["std"]["all"], rel=1e-6)
    assert measured("spread", "map").empty
    assert list(measured("spread", "map")) == list(permuted)


def test_progress_says_how_the_validation_loss_ended(measured):
    run = measured.run("map")
    losses = run.history["validation_loss"]
    (found,) = measured("progress", "map").to_dict("records")
    assert found["slope"] == pytest.approx(losses[1] - losses[0])
    assert found["validation_loss"] == losses.min()
    assert np.isnan(measured("progress", "map", chosen={"epochs": 1})["slope"][0])


def test_the_validation_part_is_measured_as_the_test_part_is(measured):
    (found,) = measured("on_validation", "ivon", samples=3).to_dict("records")
    validation = measured.frames.part("validation")
    predicted = runs.predicted(measured.run("ivon"), measured.frames, validation.features, 3)
    assert found["validation_nll"] == metrics.negative_log_likelihood(predicted, validation.labels)
    assert found["validation_mutual_information"] > 0


def test_the_history_is_that_of_training_epoch_by_epoch(measured):
    found, run = measured("history", "ivon"), measured.run("ivon")
    assert list(found.index) == [1, 2]
    assert list(found["validation_loss"]) == list(run.history["validation_loss"])


@pytest.mark.parametrize("method", ["map", "ivon", "ensemble", "sbnn"])
def test_ideal_hardware_changes_nothing_and_bad_hardware_does(measured, method):
    how = {"mismatch": [0.0, 0.5], "bits": [2, 16], "lost": [0.0, 0.9], "samples": 3, "devices": 2}
    found = measured("hardware", method, **how)
    plain = metrics.summary(measured.predicted(method, 3), measured.test.labels)
    for ideal in (("weights", 0), ("lost", 0)):
        assert found["nll"][ideal] == pytest.approx(plain["nll"], rel=1e-6)
        assert found["accuracy"][ideal] == plain["accuracy"]
    assert found["nll"]["bits", 16] == pytest.approx(plain["nll"], rel=0.02)
    for bad in (("weights", 0.5), ("lost", 0.9)):
        assert found["nll"][bad] != pytest.approx(plain["nll"], rel=1e-4)
    kinds = set(found.index.get_level_values("non_ideality"))
    assert ("leaks" in kinds) == ("thresholds" in kinds) == (method != "sbnn")


@pytest.mark.parametrize("method", ["map", "ensemble", "sbnn"])
def test_sizes_are_those_of_the_weights_and_leaks_at_the_mean(measured, method):
    (found,) = measured("weight_rms", method).to_dict("records")
    run = measured.run(method)
    network = run.network(measured.frames)
    network.load_state_dict(run.posterior.mean, strict=False)
    linear = [module.weight for module in network.modules() if isinstance(module, torch.nn.Linear)]
    weights = torch.cat([weight.flatten() for weight in linear])
    assert found["weights"] == pytest.approx(float(weights.detach().square().mean().sqrt()), rel=1e-5)
    assert ("leak" in found) == (method != "sbnn")
    if method != "sbnn":
        leaks = torch.cat([layer.leak for layer in network.layers]).detach()
        low, high = network.layers[0].ranges["leak"]
        ends = (leaks < low + 0.01 * (high - low)) | (leaks > high - 0.01 * (high - low))
        assert found["leak"] == pytest.approx(float(leaks.mean()))
        assert found["leaks_at_bounds"] == pytest.approx(float(ends.float().mean()))


def test_the_evaluation_and_the_scores_of_utterances_are_the_library_s(measured):
    how = {"samples": 2, "bins": 5}
    expected = runs.evaluate(measured.run("ivon"), measured.frames, **how)
    assert measured("evaluation", "ivon", **how).to_dict("records") == [expected.figures]
    scores = metrics.utterance_scores(expected.probabilities, expected.labels)
    pd.testing.assert_frame_equal(
        measured("utterances", "ivon", **how), scores.drop(columns="mutual_information"),
        rtol=1e-3, check_dtype=False, check_names=False,
    )  # fmt: skip


KINDS = ["isotropic", "proportional", "of the posterior", "along the line"]
SHORT = {"examples": 30, "lines": 2, "places": 3, "radius": 0.5}


def test_averages_of_draws_are_beside_their_law(measured):
    found = measured("draws", "ivon", **SHORT, steps=[0.01, 0.3], counts=[1, 2, 8], predicting=8)
    assert set(found.index.droplevel(["step", "samples"])) == {
        ("same", "losses"), ("same", "probabilities"), ("fresh", "losses")
    }  # fmt: skip
    same = found.xs("same")
    pd.testing.assert_series_equal(
        *(same.xs(one)["measured"].xs(1, level="samples") for one in ("losses", "probabilities"))
    )
    assert (same["effective"] <= same.index.get_level_values("samples") * 1.5).all()
    of_losses = same.xs("losses")
    law = of_losses["infinite"] + (of_losses["first"] - of_losses["infinite"]) / of_losses.index.get_level_values(
        "samples"
    )
    np.testing.assert_allclose(of_losses["predicted"], law)
    # Smooth close by, by the fourth power.
    np.testing.assert_allclose(
        of_losses["infinite"].xs(0.3, level="step") / 30**4, of_losses["infinite"].xs(0.01, level="step")
    )


def test_noise_along_a_line_and_on_all_weights_has_the_length_that_is_asked_for(measured):
    run = measured.run("ivon")
    network, mean = run.network(measured.frames), run.posterior.mean
    along = direction_in(network, mean, "all", 0)
    for kind in KINDS:
        states = smoothing.noisy_states(run, kind, 0.7, 400, along)
        squares = [sum(float(((state[n] - mean[n]) ** 2).sum()) for n in along) for state in states]
        assert np.mean(squares) ** 0.5 == pytest.approx(0.7, rel=0.1), kind


def test_predicted_crossings_have_their_factors_and_stand_beside_what_is_counted(measured):
    found = measured("crossings", "map", **SHORT | {"lines": 1}, points=50, sampled=50, apart=0.3)
    row = found["crossings"].iloc[0]
    (layer,) = found["crossings_layers"].to_dict("records")
    assert layer["density"] * layer["speed"] * layer["potentials"] == pytest.approx(layer["number"])
    assert layer["number"] * layer["share"] == pytest.approx(row["predicted_rate"])
    assert layer["number"] * layer["square"] == pytest.approx(row["predicted_intensity"])
    assert row[["rate", "rate_error", "intensity", "intensity_error"]].gt(0).all()


def test_what_averaging_leaves_and_slopes_have_a_row_for_each_setting(measured):
    spread = measured(
        "spreads", "ivon", **SHORT, fit=[0.01, 0.1, 0.5], kinds=KINDS, steps=[0.1], lengths=[0.1, 1.0], samples=4
    )
    assert len(spread["spreads"]) == len(KINDS) * 2
    assert (spread["spreads"]["predicted"].between(-1e-9, 1 + 1e-9)).all()
    assert list(spread["spreads_fit"].index) == [0.01, 0.1, 0.5]
    slopes = measured("surrogate", "ivon", examples=30, few=3, directions=5, lengths=[0.5], samples=3)
    assert list(slopes.index.get_level_values("part")) == ["layer 1", "hidden", "all"]
    bent = measured("curvature", "ivon", examples=30, samples=5, batch_size=4, lines=3)
    assert bent.loc["all", "true_error"] > 0
    assert bent["deviation"].min() >= 0
