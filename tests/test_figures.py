"""What is drawn is what was given, and says where it is from."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import same_color, to_hex
from matplotlib.figure import Figure

from lib import figures

SOURCE = "synthetic-sc (synthetic speech)"
MEASURES = ["accuracy", "nll", "ece", "entropy", "mutual_information", "brier"]


@pytest.fixture
def generator():
    return np.random.default_rng(0)


def history(epochs=3, offset=0.0):
    epoch = np.arange(1, epochs + 1)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 2 / epoch + offset,
            "validation_loss": 3 / epoch + offset,
            "validation_accuracy": 1 - 0.5 / epoch,
            "learning_rate": 0.01 / epoch,
            "firing_rate_1": 0.1 + 0 * epoch,
            "firing_rate_2": 0.2 + 0 * epoch,
            "seconds": 1.5 * epoch,
        }
    )


def bins(count=(0, 3, 5, 2)):
    empty = np.array(count) == 0
    return pd.DataFrame(
        {
            "confidence": np.where(empty, math.nan, [0.1, 0.3, 0.6, 0.9]),
            "accuracy": np.where(empty, math.nan, [0.2, 0.4, 0.5, 1.0]),
            "count": count,
        }
    )


def runs(seeds=3, methods=("map", "ivon"), dataset="synthetic-sc"):
    return pd.DataFrame(
        [
            {"dataset": dataset, "method": method, "seed": seed}
            | dict.fromkeys(MEASURES, (seed + 1) * (place + 1) / 10)
            for place, method in enumerate(methods)
            for seed in range(seeds)
        ]
    )


def every_figure(generator):
    """One call of each drawing function, by name."""
    noise = generator.normal
    return {
        "waveform": lambda source: figures.waveform([noise(size=80)], 8000, ["yes"], source),
        "features": lambda source: figures.features(noise(size=(4, 9, 5)), list("abcd"), source),
        "learning_curves": lambda source: figures.learning_curves({"map": history()}, source),
        "membrane": lambda source: figures.membrane(noise(size=9), np.zeros(9), noise(size=9), 1.0, source),
        "raster": lambda source: figures.raster(np.eye(6), source),
        "reliability": lambda source: figures.reliability({"map": bins()}, source),
        "entropies": lambda source: figures.entropies({"map": noise(size=5) ** 2}, {"map": np.ones(2)}, source),
        "confusion": lambda source: figures.confusion(np.eye(3, dtype=np.int64), list("abc"), source),
        "spread": lambda source: figures.spread(runs(), source),
        "slices": lambda source: figures.slices(np.arange(4.0), {"map": noise(size=4)}, "alpha", source),
        "posterior_spread": lambda source: figures.posterior_spread({"readout": np.ones((2, 3))}, source),
    }


def texts(figure: Figure) -> list[str]:
    """Every text in a figure, as drawn."""
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


def lines_of(figure: Figure, name: str) -> list:
    return [line for axis in figure.axes for line in axis.get_lines() if line.get_label() == name]


@pytest.mark.parametrize("name", every_figure(np.random.default_rng(0)))
def test_every_figure_names_its_data_and_is_closed_and_white(name, generator):
    figure = every_figure(generator)[name](SOURCE)
    assert f"Data: {SOURCE}" in texts(figure)
    assert not plt.get_fignums()
    assert same_color(figure.get_facecolor(), "white")
    assert figure.get_figwidth() * 100 == pytest.approx(720)


@pytest.mark.parametrize("name", every_figure(np.random.default_rng(0)))
def test_no_figure_leaves_its_style_behind(name, generator):
    before = dict(plt.rcParams)
    every_figure(generator)[name](SOURCE)
    assert dict(plt.rcParams) == before


def test_waveform_is_drawn_against_seconds(generator):
    samples = generator.normal(size=16000)
    (axis,) = figures.waveform([samples], 8000, ["yes"], SOURCE).axes
    (line,) = axis.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), samples)
    assert line.get_xdata()[-1] == pytest.approx(15999 / 8000)
    assert axis.get_title() == "yes"


def test_features_have_time_to_the_right_and_low_bands_below(generator):
    frames = generator.normal(size=(2, 30, 4))
    figure = figures.features(frames, ["one", "two"], SOURCE)
    first, second = figure.axes[:2]
    np.testing.assert_array_equal(first.images[0].get_array(), frames[0].T)
    np.testing.assert_array_equal(second.images[0].get_array(), frames[1].T)
    assert first.images[0].origin == "lower"
    assert first.images[0].get_clim() == second.images[0].get_clim() == (frames.min(), frames.max())


def test_counts_of_spikes_are_named_as_told():
    figure = figures.features(np.eye(3, dtype=np.uint8)[None], ["one"], SOURCE, channels="channel", values="spikes")
    assert figure.get_supylabel() == "channel"
    assert figure.axes[-1].get_ylabel() == "spikes"


def test_each_spike_is_a_mark_at_its_time_and_channel():
    trains = [(np.array([0.1, 0.25]), np.array([3, 699])), (np.array([]), np.array([], dtype=int))]
    first, second = figures.spike_trains(trains, ["one", "two"], SOURCE).axes
    np.testing.assert_array_equal(first.get_lines()[0].get_xydata(), [[0.1, 3], [0.25, 699]])
    assert second.get_lines()[0].get_xydata().size == 0
    assert first.get_xlabel() == "time (s)"


def test_a_title_for_each_picture_is_needed(generator):
    with pytest.raises(ValueError, match="shorter"):
        figures.features(generator.normal(size=(2, 9, 4)), ["one"], SOURCE)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.waveform([], 8000, [], SOURCE)


def test_learning_curves_draw_every_column():
    histories = {"map": history(), "ivon": history(offset=0.5)}
    loss, accuracy, rate, firing = figures.learning_curves(histories, SOURCE).axes
    drawn = [line.get_ydata().tolist() for line in loss.get_lines()]
    assert drawn == [
        histories[method][column].tolist() for method in ("map", "ivon") for column in ("train_loss", "validation_loss")
    ]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["Adam (MAP)", "IVON"]
    assert [text.get_text() for text in firing.get_legend().get_texts()] == ["layer 1", "layer 2"]
    assert rate.get_yscale() == "log"
    assert len(firing.get_lines()) == 4
    for axis, column in ((accuracy, "validation_accuracy"), (rate, "learning_rate")):
        for line, one in zip(axis.get_lines(), histories.values(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), one["epoch"])
            np.testing.assert_array_equal(line.get_ydata(), one[column])


def test_one_epoch_of_one_layer_can_be_drawn():
    figure = figures.learning_curves({"map": history(epochs=1).drop(columns="firing_rate_2")}, SOURCE)
    assert len(figure.axes[3].get_lines()) == 1


def test_a_method_keeps_its_colour_whatever_stands_beside_it():
    alphas, flat = np.arange(3.0), np.zeros(3)
    for beside in ({}, {"dropout": flat}, {"laplace": flat, "ensemble": flat}):
        figure = figures.slices(alphas, beside | {"ivon": flat, "map": flat}, "alpha", SOURCE)
        for method in ("map", "ivon"):
            (line,) = lines_of(figure, figures.METHOD_LABELS[method])
            assert to_hex(line.get_color()) == figures.METHOD_COLOURS[method].lower()
        assert len({to_hex(line.get_color()) for line in figure.axes[0].get_lines()}) == 2 + len(beside)


def test_membrane_marks_the_spikes_on_the_threshold(generator):
    potential, current = generator.normal(size=20), generator.normal(size=20)
    spikes = np.zeros(20, dtype=bool)
    spikes[[3, 11]] = True
    figure = figures.membrane(potential, spikes, current, 0.7, SOURCE)
    (trace,), (marks,), (line,), (above,) = (
        lines_of(figure, name) for name in ("potential", "spike", "threshold", "input current")
    )
    np.testing.assert_array_equal(trace.get_ydata(), potential)
    np.testing.assert_array_equal(above.get_ydata(), current)
    np.testing.assert_array_equal(marks.get_xdata(), [3, 11])
    assert set(marks.get_ydata()) == set(line.get_ydata()) == {0.7}


def test_surrogate_draws_the_step_and_the_gradient():
    potentials = np.array([0.0, 0.4, 1.0, 1.2, 2.0])
    gradient = np.array([0.0, 0.0, 1.0, 1.0, 0.0])
    figure = figures.surrogate(potentials, gradient, 1.0)
    (step,), (backward,) = (lines_of(figure, name) for name in ("spike (forward)", "surrogate gradient (backward)"))
    assert step.get_ydata().tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(backward.get_ydata(), gradient)


@pytest.mark.parametrize("dtype", [np.float32, bool])
def test_raster_has_a_mark_for_each_spike(generator, dtype):
    spikes = (generator.random((50, 12)) < 0.2).astype(dtype)
    (axis,) = figures.raster(spikes, SOURCE).axes
    (marks,) = axis.get_lines()
    redrawn = np.zeros((50, 12))
    redrawn[marks.get_xdata(), marks.get_ydata()] = 1
    np.testing.assert_array_equal(redrawn, spikes)
    assert axis.get_xlim() == (-0.5, 49.5)


def test_a_silent_layer_has_an_empty_raster():
    (axis,) = figures.raster(np.zeros((5, 3)), SOURCE).axes
    assert len(axis.get_lines()[0].get_xdata()) == 0


def test_reliability_draws_filled_bins_and_all_counts():
    given = {"map": bins(), "ivon": bins(count=(1, 2, 3, 4))}
    figure = figures.reliability(given, SOURCE)
    above, other_above, below, _ = figure.axes
    assert [bar.get_height() for bar in above.patches] == [0.4, 0.5, 1.0]
    assert [bar.get_x() for bar in above.patches] == [0.25, 0.5, 0.75]
    assert [bar.get_height() for bar in below.patches] == [0, 3, 5, 2]
    assert len(other_above.patches) == 4
    assert above.get_lines()[0].get_xdata().tolist() == [0.3, 0.6, 0.9]
    assert [axis.get_title() for axis in (above, other_above)] == ["Adam (MAP)", "IVON"]


def test_entropies_are_shares_of_right_and_of_wrong_answers(generator):
    right, wrong = generator.random(40), 2 + generator.random(10)
    (axis,) = figures.entropies({"map": right}, {"map": wrong}, SOURCE).axes
    filled = [bar.get_height() for bar in axis.patches if hasattr(bar, "get_height")]
    assert sum(filled) == pytest.approx(1)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["right (40)", "wrong (10)"]
    last_edge = max(bar.get_x() + bar.get_width() for bar in axis.patches if hasattr(bar, "get_x"))
    assert last_edge == pytest.approx(wrong.max())


@pytest.mark.parametrize("right", [np.zeros(4), np.array([0.2, 0.5])])
def test_no_wrong_answer_at_all_can_be_drawn(right):
    figure = figures.entropies({"map": right}, {"map": np.array([])}, SOURCE)
    assert "wrong (0)" in texts(figure)


def test_confusion_draws_shares_of_each_true_class():
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    figure = figures.confusion(matrix, ["bed", "cat", "dog"], SOURCE)
    axis = figure.axes[0]
    np.testing.assert_array_equal(axis.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert [text.get_text() for text in axis.texts] == ["3", "1", "4"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("answer", "true class")


@pytest.mark.parametrize("classes", [1, 20, 35])
def test_confusion_names_every_class(classes):
    names = [f"word {number}" for number in range(classes)]
    axis = figures.confusion(np.eye(classes, dtype=np.int64), names, SOURCE).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == names
    assert len(axis.texts) == (classes if classes <= 20 else 0)


def test_spread_has_a_dot_for_each_seed_and_a_bar_at_the_mean():
    figure = figures.spread(runs(), SOURCE)
    assert len(figure.axes) == len(MEASURES)
    for axis in figure.axes:
        by_adam, by_ivon = axis.get_lines()
        np.testing.assert_allclose(by_adam.get_ydata(), [0.1, 0.2, 0.3])
        np.testing.assert_allclose(by_ivon.get_ydata(), [0.2, 0.4, 0.6])
        bars = [bar.get_segments()[0][0][1] for bar in axis.collections]
        np.testing.assert_allclose(bars, [0.2, 0.4])
        assert [text.get_text() for text in axis.get_xticklabels()] == ["Adam (MAP)", "IVON"]


def test_spread_does_not_mix_data_sets():
    with pytest.raises(ValueError, match="one data set"):
        figures.spread(pd.concat([runs(), runs(dataset="fsdd")]), SOURCE)


def test_slices_draw_a_panel_for_each_direction(generator):
    alphas, losses = np.linspace(-1, 1, 11), generator.random((4, 11))
    figure = figures.slices(alphas, {"ivon": losses, "map": 2 * losses}, "distance", SOURCE)
    assert len(figure.axes) == 4
    for axis, loss in zip(figure.axes, losses, strict=True):
        bayesian, deterministic = axis.get_lines()
        np.testing.assert_array_equal(bayesian.get_xdata(), alphas)
        np.testing.assert_array_equal(bayesian.get_ydata(), loss)
        np.testing.assert_array_equal(deterministic.get_ydata(), 2 * loss)
        assert axis.get_xlabel() == "distance"


def test_posterior_spread_counts_every_weight_once():
    spread = {"hidden": np.array([[0.01, 0.02], [0.02, 0.1]]), "readout": np.full(3, 0.5)}
    figure = figures.posterior_spread(spread, SOURCE)
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    for outline in axis.patches:
        heights = outline.get_xy()[:, 1]
        # Each bin's height stands at its two edges.
        assert heights.sum() / 2 == pytest.approx(1)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["hidden", "readout"]


def test_a_point_mass_has_no_spread_to_draw():
    with pytest.raises(ValueError, match="spread of zero"):
        figures.posterior_spread({"readout": np.zeros(3)}, SOURCE)


def test_table1_gives_mean_and_deviation_beside_the_published_row():
    published = pd.DataFrame(
        [
            ["sc", "ivon", 79.93, 0.7191, 0.0133, 0.6829, 0.0711, 0.2838],
            ["sc", "map", 77.01, *[math.nan] * 5],
        ],
        columns=["dataset", "method", *MEASURES],
    )
    table = figures.table1(runs(), published)
    # 0.2, 0.4 and 0.6 have the mean 0.4 and the sample standard deviation 0.2.
    ours = table.loc[("synthetic-sc", "IVON", "here, 3 seeds")]
    assert ours["Accuracy (%)"] == "0.40 ± 0.20"
    assert ours["NLL"] == "0.4000 ± 0.2000"
    theirs = table.loc[("sc", "IVON", "published")]
    assert theirs.tolist() == ["79.93", "0.7191", "0.0133", "0.6829", "0.0711", "0.2838"]
    assert table.loc[("sc", "Adam (MAP)", "published"), "MI"] == "\N{EN DASH}"
    assert [row[2] == "published" for row in table.index] == [False, False, True, True]


def test_one_seed_has_no_deviation():
    table = figures.table1(runs(seeds=1), runs().head(0))
    assert table.index.get_level_values(2).unique().tolist() == ["here, 1 seed"]
    assert table["NLL"].tolist() == ["0.1000", "0.2000"]


# Networks of several kinds


def study():
    rows = [runs().assign(variant=name, spikes=value) for name, value in (("LIF", 5.0), ("MLP", math.nan))]
    return pd.concat(rows, ignore_index=True)


def test_variants_have_a_dot_for_each_seed_and_a_bar_at_their_mean():
    figure = figures.variants(study(), {"nll": "NLL", "spikes": "spikes"}, SOURCE, logarithmic=("spikes",))
    first, second = figure.axes
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["LIF", "MLP"]
    dots = [line for line in first.lines if len(line.get_xdata()) > 0]
    assert [list(line.get_ydata()) for line in dots] == [
        [0.1, 0.2, 0.3],
        [0.1, 0.2, 0.3],
        [0.2, 0.4, 0.6],
        [0.2, 0.4, 0.6],
    ]
    assert [bar.get_segments()[0][0][1] for bar in first.collections] == pytest.approx([0.2, 0.2, 0.4, 0.4])
    assert len({line.get_color() for line in dots}) == 2
    assert len([line for line in second.lines if len(line.get_xdata()) > 0]) == 2  # the MLP has no spikes
    assert second.get_yscale() == "log"


def test_the_variants_table_gives_mean_and_spread_and_a_dash_for_what_is_not_there():
    table = figures.variant_table(study(), {"nll": ("NLL", ".2f"), "spikes": ("spikes", ".0f")})
    assert list(table.columns) == ["NLL", "spikes"]
    assert table.loc[("LIF", "IVON"), "NLL"] == "0.40 ± 0.20"
    assert table.loc[("LIF", "Adam (MAP)"), "spikes"] == "5 ± 0"
    assert table.loc[("MLP", "IVON"), "spikes"] == "–"
    assert figures.variant_table(study().query("seed == 1"), {"nll": ("NLL", ".1f")}).iloc[0, 0] == "0.2"


def test_estimators_have_a_line_through_their_medians_in_both_panels():
    rows = pd.DataFrame(
        [
            {
                "deviation": deviation,
                "estimator": name,
                "bias": seed * deviation,
                "variance": 0.0 if name == "b" else seed,
            }
            for name in "ab"
            for deviation in (0.5, 1.0)
            for seed in (1.0, 2.0, 4.0)
        ]
    )
    bias, variance = figures.estimators(rows, SOURCE).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in bias.lines if not line.get_label().startswith("_")}
    assert lines == {"a": [1.0, 2.0], "b": [1.0, 2.0]}
    drawn = [line for line in variance.lines if len(line.get_ydata()) > 0]
    assert [list(line.get_ydata()) for line in drawn] == [[1.0, 2.0, 4.0, 1.0, 2.0, 4.0], [2.0, 2.0]]
    assert bias.get_yscale() == variance.get_yscale() == "log"
