"""What the benchmark's tables say, and those that are committed."""

import pandas as pd
import pytest
import yaml

from lib import experiment
from lib.benchmark import __main__ as program
from lib.benchmark import estimate, products
from lib.benchmark.products import Shape
from lib.benchmark.timing import LEAST_ROUNDS

RESULTS = experiment.DATA / "results"


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
