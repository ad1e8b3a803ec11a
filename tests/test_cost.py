"""What the benchmark's tables say, what is drawn from them, and those that are committed."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import same_color

from lib import experiment
from lib.benchmark import __main__ as program
from lib.benchmark import estimate, products
from lib.benchmark.products import Shape
from lib.benchmark.timing import LEAST_ROUNDS
from lib.figures import cost

RESULTS = experiment.DATA / "results"
SOURCE = "measured on a machine"


@pytest.fixture(scope="module")
def tables():
    """A machine of 100 GFlop/s, whose steps take twice their products (IVON's 2.2 times) and predictions 1.5 times."""
    rows = []
    for shape in program.STEPS:
        floor = products.operations(products.of_step(shape, "meta")) / 1e8
        multiples = {"products": 1.0, "map": 2.0, "ivon": 2.2, "norm, neuron, dropout": 0.5, "optimiser": 0.1}
        row = {"device": "cpu", "width": shape.width, "batch": shape.batch}
        rows += [row | {"work": work, "median_ms": multiple * floor} for work, multiple in multiples.items()]
    forward = 1e-8 * products.operations(products.of_prediction(Shape(512, 256), "meta"))
    of_prediction = {"device": "cpu", "width": 512, "utterances": 256, "samples": 16}
    times = {
        "returned": {"products": 1.0, "ours": 2.0, "plain": 4.0, "sparch": 20.0},
        "kept": {"products": 1.0, "ours": 2.0, "plain": 3.0, "sparch": 15.0},
    }
    return {
        "steps": pd.DataFrame(rows),
        "prediction": pd.DataFrame(
            of_prediction | {"work": work, "median_ms": multiple * 16 * forward}
            for work, multiple in (("products", 1.0), ("prediction", 1.5))
        ),
        "peers": pd.DataFrame(
            {"width": 512, "batch": batch, "freed_memory": memory, "network": network, "median_ms": time}
            for batch in (128, 16)
            for memory, of_networks in times.items()
            for network, time in of_networks.items()
        ),
        "growth": pd.DataFrame({"along": "utterances", "utterances": [1, 2, 4], "median_ms": [2000.0, 3000.0, 5000.0]}),
        "at-once": pd.DataFrame(
            {"width": 128, "batch": 16, "manner": ["at the same time", "one after the other"], "median_ms": [3.0, 4.0]}
        ),
        "machine": pd.DataFrame([{"processor": "A processor", "cores": 2, "gpu": "A GPU"}]),
    }


# What the tables say


def test_the_speed_is_that_of_the_products(tables):
    assert estimate.speed(tables["steps"]) == pytest.approx(100)


def test_hours_are_reckoned_from_the_operations(tables):
    """By hand: HD with Adam is 30 epochs of 65 steps, each of twice 21.2 GFlop, and 2,088 predictions."""
    hours = estimate.hours(tables["steps"], tables["prediction"], 100)
    step = 2 * 2 * 12_800 * 512 * (80 + 3 * 512) / 1e11
    forward = 1.5 * 2 * 100 * 512 * (40 + 512) / 1e11
    expected = {
        "training": 30 * (65 * step + 2_088 * forward),
        "evaluation": 2_088 * forward,
        "slices": 31 * 2 * 128 * 33 * forward,
    }
    for what, seconds in expected.items():
        assert hours.loc[("hd", "map"), what] == pytest.approx(seconds / 3600)
    ivon = 30 * (2_358 * step * 32 / 128 * 1.1 + 4 * 9_981 * forward)
    assert hours.loc[("sc", "ivon"), "training"] == pytest.approx(ivon / 3600)
    assert hours.loc[("sc", "ivon"), "evaluation"] == pytest.approx(32 * 20_382 * forward / 3600)


def test_a_machine_of_twice_the_speed_takes_half_the_hours(tables):
    slow, fast = (estimate.hours(tables["steps"], tables["prediction"], gflops) for gflops in (50, 100))
    pd.testing.assert_frame_equal(slow, 2 * fast)


def test_the_hours_are_those_of_the_paper_s_settings():
    asked = yaml.safe_load((experiment.REPOSITORY / "book/params/paper.yml").read_text())
    assert asked["hidden_sizes"] == [estimate.WIDTH] * 2
    assert (asked["epochs"], asked["samples"]) == (estimate.EPOCHS, estimate.SAMPLES)
    assert asked["num_frames"] == Shape(1, 1).frames
    for (dataset, method), batch in estimate.BATCH_SIZES.items():
        of_method = asked[method]["batch_size"]
        assert batch == (of_method[dataset] if isinstance(of_method, dict) else of_method)
    assert {Shape(estimate.WIDTH, batch) for batch in estimate.BATCH_SIZES.values()} <= set(program.STEPS)


def test_targets_stand_beside_what_was_measured(tables):
    table = estimate.targets(tables["steps"], tables["prediction"], tables["peers"])
    assert table.loc["step, 512 units, batch 128 / its products"].to_list() == [2.0, "at most 1.6", False]
    assert table.loc["step, 128 units, batch 128 / its products", "met"]
    assert table.loc["prediction / its products", "measured"] == pytest.approx(1.5)
    assert table.loc["IVON's step / Adam's, batch 16", "measured"] == pytest.approx(1.1)
    sparch = table.loc["sparch's step / ours, 512 units, batch 128"]
    assert sparch.to_list() == [10.0, "at least 8", True]
    assert not table.index.str.contains("snntorch|spikingjelly").any()


# The pictures


def every_figure(tables):
    return {
        "step_times": lambda: cost.step_times(tables["steps"], SOURCE),
        "shares": lambda: cost.shares(tables["steps"], SOURCE),
        "peers": lambda: cost.peers(tables["peers"], SOURCE),
        "growth": lambda: cost.growth(tables["growth"], SOURCE),
        "at_once": lambda: cost.at_once(tables["at-once"], SOURCE),
    }


@pytest.mark.parametrize("name", every_figure({}))
def test_every_figure_names_its_machine_and_is_closed_and_white(name, tables):
    before = dict(plt.rcParams)
    figure = every_figure(tables)[name]()
    assert f"Data: {SOURCE}" in [text.get_text() for text in figure.findobj(plt.Text)]
    assert not plt.get_fignums()
    assert same_color(figure.get_facecolor(), "white")
    assert dict(plt.rcParams) == before


def test_the_machine_is_named_by_its_processor_or_its_gpu(tables):
    assert cost.measured_on(tables["machine"]) == "measured on A processor, 2 cores"
    assert cost.measured_on(tables["machine"], "cuda") == "measured on A GPU"


def test_a_step_is_drawn_over_its_floor(tables):
    first = cost.step_times(tables["steps"], SOURCE).axes[0]
    lines = {line.get_label(): line for line in first.get_lines()}
    assert list(lines) == [cost.PRODUCTS, "Adam (MAP)", "IVON"]
    np.testing.assert_allclose(lines["Adam (MAP)"].get_ydata(), 2 * lines[cost.PRODUCTS].get_ydata())
    np.testing.assert_array_equal(lines["IVON"].get_xdata(), [16, 32, 128])


def test_shares_make_a_whole(tables):
    shares = cost.step_shares(tables["steps"])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares.loc[512, 16], [0.5, 0.25, 0.05, 0.2])
    (axis,) = cost.shares(tables["steps"], SOURCE).axes
    np.testing.assert_allclose([bars[0].get_width() for bars in axis.containers], [0.5, 0.25, 0.05, 0.2])


def test_a_peer_is_drawn_as_a_multiple_of_the_products_and_one_that_is_absent_not_at_all(tables):
    figure = cost.peers(tables["peers"], SOURCE)
    assert len(figure.axes) == 2
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["this companion", "plain PyTorch", "sparch"]
    lines = {line.get_label(): line.get_xdata() for line in figure.axes[0].get_lines()}
    np.testing.assert_allclose(lines["freed memory returned"], [2, 4, 20])
    np.testing.assert_allclose(lines["freed memory kept"], [2, 3, 15])


def test_growth_is_drawn_in_seconds_beside_proportion(tables):
    (axis,) = cost.growth(tables["growth"], SOURCE).axes
    proportion, measured = axis.get_lines()
    np.testing.assert_allclose(measured.get_xydata(), [[1, 2], [2, 3], [4, 5]])
    np.testing.assert_allclose(proportion.get_xydata(), [[0, 0], [4, 5]])


def test_two_runs_are_drawn_side_by_side(tables):
    (axis,) = cost.at_once(tables["at-once"], SOURCE).axes
    assert [bar.get_height() for bar in axis.patches] == [3, 4]


# The committed tables


def test_the_committed_tables_are_small_and_of_one_machine():
    for name in program.TABLES:
        path = RESULTS / f"bench-{name}.csv"
        assert path.stat().st_size < 20_000
    assert len(pd.read_csv(RESULTS / "bench-machine.csv")) == 1


def test_the_committed_tables_hold_every_shape():
    of_steps = pd.read_csv(RESULTS / "bench-steps.csv").query("device == 'cpu'")
    assert {(row.width, row.batch) for row in of_steps.itertuples()} == {(s.width, s.batch) for s in program.STEPS}
    assert (of_steps["minimum_ms"] <= of_steps["median_ms"]).all()
    assert (of_steps["rounds"] >= LEAST_ROUNDS).all()
    assert (pd.read_csv(RESULTS / "bench-peers.csv")["network"].value_counts() == 2 * len(program.PEERS)).all()
