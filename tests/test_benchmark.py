"""What is timed is what is trained, beside the products that it cannot do without; and what the tables say."""

import copy
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from lib import benchmark
from lib.benchmark import Case, Shape, timed
from lib.benchmark import __main__ as program
from lib.network import lif_potential
from lib.neurons import NEURONS
from lib.trainers import train_ivon, train_map

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "data" / "results"
SMALL = Shape(width=6, batch=4, frames=5)


def test_cases_are_timed_in_turns_after_a_round_that_does_not_count():
    calls = []
    cases = [Case({"work": name}, lambda name=name: calls.append(name)) for name in "ab"]
    table = timed(cases, seconds=0.0)
    assert calls == ["a", "b"] * (benchmark.LEAST_ROUNDS + 1)
    assert list(table.columns) == ["work", "minimum_ms", "median_ms", "rounds"]
    assert list(table["rounds"]) == [benchmark.LEAST_ROUNDS] * 2
    assert (timed(cases[:1], seconds=0.01)["rounds"] > benchmark.LEAST_ROUNDS).all()


@pytest.mark.parametrize("steps", [1, 4])
def test_times_are_in_milliseconds_a_step(monkeypatch, steps):
    # The clock is asked once for the end, then for each round whether it is reached, when a call began and its end.
    readings = iter([0, 0, 0, 0.003, 0.003, 0.003, 0.004, 0.004, 0.004, 0.006, 0.006])
    monkeypatch.setattr("lib.benchmark.time.perf_counter", readings.__next__)
    (row,) = timed([Case({}, lambda: None, steps)], seconds=0.0).to_dict("records")
    assert (row["minimum_ms"], row["median_ms"]) == pytest.approx((1 / steps, 2 / steps))


def test_the_five_products_are_those_that_autograd_makes():
    """Counted by PyTorch's own counter in a step of two linear layers, the first one's input needing no gradient."""
    sizes = (benchmark.INPUTS, SMALL.width), (SMALL.width, SMALL.width)
    layers = torch.nn.Sequential(*(torch.nn.Linear(*size, bias=False) for size in sizes))
    features, _ = SMALL.minibatch()
    with FlopCounterMode(display=False) as forward:
        hidden = layers(features.transpose(0, 1))
    with FlopCounterMode(display=False) as backward:
        hidden.sum().backward()
    pairs = benchmark.step_products(SMALL, "meta")
    assert benchmark.operations(pairs[:2]) == forward.get_total_flops()
    assert benchmark.operations(pairs) == forward.get_total_flops() + backward.get_total_flops()


def test_products_are_formed_in_the_memory_given_for_them(monkeypatch):
    formed, multiply = [], torch.mm

    def seen(left, right, out):
        formed.append((left, right, multiply(left, right, out=out)))

    monkeypatch.setattr(torch, "mm", seen)
    benchmark.multiplied(benchmark.step_products(SMALL), times=2)()
    for (left, right, output), (*_, again) in zip(formed[:5], formed[5:], strict=True):
        torch.testing.assert_close(output, torch.einsum("ij,jk->ik", left, right))
        assert output.data_ptr() == again.data_ptr()


@pytest.mark.parametrize("method", ["map", "ivon"])
def test_a_timed_step_is_the_trainer_s(method):
    """One epoch of one batch by the trainer ends in the weights of one timed step on the same batch and noise."""
    features, labels = SMALL.minibatch()
    untouched = benchmark.ours(SMALL.width)
    trained, stepped = copy.deepcopy(untouched), copy.deepcopy(untouched)
    data = SimpleNamespace(features=features, labels=labels)
    schedule = {"learning_rate": 0.01, "epochs": 1, "batch_size": 4, "seed": 0}
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence((0, 0)).generate_state(1)[0]))
        order = torch.randperm(4)
        _, step = benchmark.training_step(method, stepped, features[order], labels[order], learning_rate=0.01)
        if method == "map":
            train_map(trained, data, data, **schedule)
        else:
            train_ivon(trained, data, data, ess_factor=1e4 / 4, hess_init=0.4, **schedule)
        step()
    assert not torch.equal(stepped.readout.weight, untouched.readout.weight)
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(stepped.state_dict()[name], tensor, msg=name)


@pytest.mark.parametrize("present", [(), ("snntorch",), ("sparch", "snntorch", "spikingjelly")])
def test_what_is_not_installed_is_left_out(monkeypatch, present):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: name if name in present else None)
    assert list(benchmark.installed()) == ["ours", "plain", *present]


@pytest.mark.parametrize("name", benchmark.installed())
def test_a_peer_learns_from_all_its_weights(name):
    features, labels = Shape(16, 8, 20).minibatch()
    network = benchmark.installed()[name](16)
    _, step = benchmark.training_step("map", network, 3 * features, labels, learning_rate=0.01)
    losses = [step() for _ in range(30)]
    assert losses[-1] < 0.95 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_plain_pytorch_is_our_network_without_kernels(monkeypatch):
    features, _ = SMALL.minibatch()
    ours, plain = (benchmark.installed()[name](SMALL.width).eval() for name in ("ours", "plain"))
    plain.load_state_dict(ours.state_dict())
    torch.testing.assert_close(plain(features), ours(features))
    monkeypatch.setattr(benchmark.PlainLayer, "plain", lambda *_: pytest.fail("the plain form was asked"))
    with pytest.raises(pytest.fail.Exception):
        plain(features)


def test_a_process_of_its_own_trains_and_ends():
    with benchmark.own_process("plain", SMALL, threads=1, keep_memory=True) as begin:
        (child,) = benchmark.multiprocessing.active_children()
        assert begin(3).result() is None
    assert not child.is_alive()


@pytest.mark.parametrize("neuron", program.THEIR_LAYERS)
def test_the_baseline_s_layer_is_timed_with_our_weights(neuron):
    pytest.importorskip("sparch", reason="the baseline is not installed here")
    ours = NEURONS[neuron](5, 7, 0.1)
    theirs = dict(program.sparch_layer(ours, neuron, 3).named_parameters())
    for name, tensor in ours.named_parameters():
        same = theirs["V.weight"].T if name == "recurrent" else theirs[program.THEIR_NAMES.get(name, name)]
        assert torch.equal(same, tensor)


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_network_is_made_to_fire_at_a_rate(rate):
    network, (features, _) = benchmark.ours(40), Shape(40, 16).minibatch()
    rates, windows = benchmark.firing(network, features, rate)
    np.testing.assert_allclose(rates, rate, rtol=0.1)
    trains = network.hidden_spikes(features)
    np.testing.assert_allclose([float((train > 0).double().mean()) for train in trains], 0.9 * rate, rtol=0.15)
    for layer, train, window in zip(network.layers, [features.transpose(0, 1), trains[0]], windows, strict=True):
        potential = lif_potential(layer.normalised(layer.linear(train)), layer.held("leak"))
        assert float(((potential - 1).abs() <= 0.5).double().mean()) == pytest.approx(window, rel=0.1)
    evaluated = network.eval().hidden_spikes(features)
    np.testing.assert_allclose([float(train.detach().mean()) for train in evaluated], rate, rtol=0.3)


@contextmanager
def own_thread(name, shape, threads, keep_memory):
    """A thread in the place of the process."""
    _, step = benchmark.training_step("map", benchmark.installed()[name](shape.width), *shape.minibatch())
    with ThreadPoolExecutor(1) as thread:
        yield lambda steps: thread.submit(lambda: [step() for _ in range(steps)])


@pytest.fixture
def small(monkeypatch):
    """The program at a size of a moment, with no more peers than plain PyTorch, all in this process."""
    monkeypatch.setattr(benchmark, "LIBRARIES", {})
    monkeypatch.setattr(benchmark, "own_process", own_thread)
    monkeypatch.setattr(program, "SECONDS", 0.0)
    groups = {
        "steps": [(SMALL, "cpu")],
        "rates": [(SMALL, 0.1)],
        "prediction": [(SMALL, "cpu")],
        "peers": [(SMALL, True)],
    }
    groups |= {"neurons": [(SMALL, neuron) for neuron in program.THEIR_LAYERS], "at-once": [(SMALL,)]}
    groups |= {"growth": [("utterances", [(SMALL, 4), (SMALL, 8)])]}
    for name, of_table in groups.items():
        monkeypatch.setitem(program.TABLES, name, (program.TABLES[name][0], of_table))


def test_the_program_writes_every_table_as_it_is_committed(small, tmp_path):
    program.main(["--results", str(tmp_path)])
    tables = {path.stem.removeprefix("bench-"): pd.read_csv(path) for path in tmp_path.iterdir()}
    assert set(tables) == {"machine", *program.TABLES}
    assert set(tables["peers"]["network"]) == {"products", "ours", "plain"}
    assert list(tables["neurons"]["neuron"]) == list(program.THEIR_LAYERS)
    for name, table in tables.items():
        path = RESULTS / f"bench-{name}.csv"
        if name != "rates":  # which is yet to be stored, from a machine that does nothing else
            assert list(table.columns) == list(pd.read_csv(path).columns)
        assert (table.filter(like="_ms") > 0).all(axis=None)
    for name, column in {"steps": "work", "prediction": "work", "at-once": "manner"}.items():
        assert list(tables[name][column]) == list(pd.read_csv(RESULTS / f"bench-{name}.csv")[column].unique())


def test_the_committed_tables_hold_every_shape():
    steps = pd.read_csv(RESULTS / "bench-steps.csv").query("device == 'cpu'")
    shapes = {(shape.width, shape.batch) for shape, _ in program.TABLES["steps"][1]}
    assert {(row.width, row.batch) for row in steps.itertuples()} == shapes
    assert (steps["rounds"] >= benchmark.LEAST_ROUNDS).all()
    counts = pd.read_csv(RESULTS / "bench-peers.csv")["network"].value_counts()
    assert (counts == len(program.TABLES["peers"][1])).all()


@pytest.mark.parametrize(("load", "told"), [(0.1, False), (1.5, True)])
def test_a_busy_machine_is_told(tmp_path, monkeypatch, capsys, load, told):
    monkeypatch.setattr(program, "TABLES", {})
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    program.main(["--results", str(tmp_path)])
    assert ("busy" in capsys.readouterr().out) == told
    assert pd.read_csv(tmp_path / "bench-machine.csv")["load"].to_list() == [load]


def test_an_interrupted_program_leaves_what_was_there(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "TABLES", {"growth": (interrupted, [()])})
    with pytest.raises(KeyboardInterrupt):
        program.main(["--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_hours_are_reckoned_from_the_operations():
    """By hand, for 100 GFlop/s: steps take twice their products, IVON's 2.2 times, and predictions 1.5 times."""
    floor, forward = 2 * 12_800 * 512 * (80 + 3 * 512) / 1e11, 1.5 * 2 * 100 * 512 * (40 + 512) / 1e11
    times = [("products", 128, 1), ("map", 128, 2)] + [("ivon", batch, 2.2 * batch / 128) for batch in (16, 32)]
    steps = pd.DataFrame({"work": work, "batch": batch, "median_ms": 1e3 * n * floor} for work, batch, n in times)
    prediction = pd.DataFrame({"work": "prediction", "utterances": [256], "samples": 16})
    prediction = prediction.assign(device="cpu", width=512, median_ms=1e3 * 16 * 256 * forward)
    steps = steps.assign(device="cpu", width=512)
    assert benchmark.speed(steps) == pytest.approx(100)
    assert benchmark.matrix_speed(seconds=0.0) > 0
    adam = [30 * (65 * 2 * floor + 2_088 * forward), 2_088 * forward, 31 * 2 * 128 * 33 * forward]
    ivon = [30 * (2_358 * 2.2 * floor * 32 / 128 + 4 * 9_981 * forward), 32 * 20_382 * forward, adam[2]]
    table = benchmark.hours(steps, prediction, 100)
    assert list(table.columns) == ["training", "evaluation", "slices"]
    np.testing.assert_allclose(table.loc[[("hd", "map"), ("sc", "ivon")]] * 3600, [adam, ivon])
    pd.testing.assert_frame_equal(benchmark.hours(steps, prediction, 50), 2 * table)


def test_the_hours_are_those_of_the_paper_s_settings():
    asked = yaml.safe_load((REPOSITORY / "book/params/paper.yml").read_text())
    assert asked["hidden_sizes"] == [benchmark.WIDTH] * 2
    assert (asked["epochs"], asked["samples"]) == (benchmark.EPOCHS, benchmark.SAMPLES)
    timed_shapes = {shape for shape, _ in program.TABLES["steps"][1]}
    assert {Shape(benchmark.WIDTH, batch) for batch in benchmark.BATCH_SIZES.values()} <= timed_shapes
