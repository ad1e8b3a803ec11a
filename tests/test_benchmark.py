"""What is timed is what is trained, beside the products that it cannot do without; and what the tables say."""

import copy
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
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
from lib.benchmark import Case, Shape, peers, timed
from lib.benchmark import __main__ as program
from lib.benchmark import firing as fires
from lib.network import SpikingClassifier, lif_potential
from lib.neurons import NEURONS
from lib.neurons.clamped import clamped
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
    ends = np.cumsum([3, 1, 2, 1, 4]) / 1000
    rounds = [(begin, begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    readings = iter([0, *np.ravel(rounds), ends[-1]])
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


@pytest.mark.parametrize("present", [(), ("snntorch",), ("sparch", "snntorch", "spikingjelly", "spyx")])
def test_what_is_not_installed_is_left_out(monkeypatch, present):
    monkeypatch.setattr(peers, "find_spec", lambda name: name if name in present else None)
    assert list(peers.installed()) == ["ours", "plain", *present]


def learned(name):
    """The losses of steps on one minibatch, and how far each of the network's parameters moves in them."""
    torch.manual_seed(0)
    features, labels = Shape(16, 8, 20).minibatch()
    network = peers.installed()[name](16)
    if isinstance(network, SpikingClassifier):
        fires.firing(network, features, rate=0.2)
    step, before = peers.adam_step(network, features, labels, learning_rate=0.01), weights(network)
    losses = [step() for _ in range(30)]
    return losses, [np.abs(now - then).max() for now, then in zip(weights(network), before, strict=True)]


def weights(network):
    """Copies, of whichever library."""
    return [np.array(one.detach().numpy() if torch.is_tensor(one) else one) for one in network.parameters()]


@pytest.mark.parametrize("name", peers.installed())
def test_a_peer_learns_with_all_its_weights(name):
    # JAX forbids to fork a process that it runs in, which other tests may do.
    with ProcessPoolExecutor(1, peers.multiprocessing.get_context("spawn")) as process:
        losses, moved = process.submit(learned, name).result()
    assert losses[-1] < 0.95 * losses[0]
    assert min(moved) > 1e-4


def test_plain_pytorch_is_our_network_without_kernels(monkeypatch):
    features, _ = SMALL.minibatch()
    ours, plain = (peers.installed()[name](SMALL.width).eval() for name in ("ours", "plain"))
    plain.load_state_dict(ours.state_dict())
    torch.testing.assert_close(plain(features), ours(features))
    monkeypatch.setattr(peers.PlainLayer, "plain", lambda *_: pytest.fail("the plain form was asked"))
    with pytest.raises(pytest.fail.Exception):
        plain(features)


def test_a_process_of_its_own_trains_and_ends():
    with peers.own_process("plain", SMALL, threads=1, keep_memory=True) as begin:
        (child,) = peers.multiprocessing.active_children()
        begin(3).result()
        assert child.is_alive()
    assert not child.is_alive()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this system does not tell a process's peak")
def test_a_peer_s_peak_of_memory_is_its_own():
    """Not that of its libraries, nor of the process that starts it, which holds 640 MB here."""
    held, peaks = np.ones(80_000_000), []
    for shape in (Shape(8, 4, 5), Shape(256, 64, 100)):
        with peers.own_process("plain", shape, threads=1, keep_memory=True) as begin:
            peaks.append(begin(2).result())
    train = 256 * 64 * 100 * 4 / 1e6  # a train of spikes, of which a step holds several
    assert 0 <= peaks[0] < train
    assert 4 * train < peaks[1] < 60 * train < held.nbytes / 1e6


@pytest.mark.parametrize("neuron", program.THEIR_LAYERS)
def test_the_baseline_s_layer_is_timed_with_our_weights(neuron):
    pytest.importorskip("sparch", reason="the baseline is not installed here")
    ours = clamped(NEURONS[neuron])(5, 7, 0.1)
    theirs = dict(program.sparch_layer(ours, neuron, 3).named_parameters())
    for name, tensor in ours.named_parameters():
        same = theirs["V.weight"].T if name == "recurrent" else theirs[program.THEIR_NAMES.get(name, name)]
        assert torch.equal(same, tensor)


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_network_is_made_to_fire_at_a_rate(rate):
    network, (features, _) = benchmark.ours(40), Shape(40, 16).minibatch()
    fires.firing(network, features, rate)
    rates, windows = fires.activity(network, features)
    np.testing.assert_allclose(rates, rate, rtol=0.1)
    trains = network.hidden_spikes(features)
    np.testing.assert_allclose([float((train > 0).double().mean()) for train in trains], 0.9 * rate, rtol=0.15)
    for layer, train, window in zip(network.layers, [features.transpose(0, 1), trains[0]], windows, strict=True):
        potential = lif_potential(layer.normalised(layer.linear(train)), layer.leak)
        assert float(((potential - 1).abs() <= 0.5).double().mean()) == pytest.approx(window, rel=0.1)
    evaluated = network.eval().hidden_spikes(features)
    np.testing.assert_allclose([float(train.detach().mean()) for train in evaluated], rate, rtol=0.3)


def test_a_trained_network_is_timed_on_what_it_was_trained_on(monkeypatch):
    """On two words here, of which one is loud in the first half of the features and the other in the second."""
    labels = torch.arange(64) % 2
    features = 0.3 * torch.randn(64, 20, benchmark.INPUTS) + 2 * (labels[:, None, None] == torch.arange(40) // 20)
    parts = SimpleNamespace(part=lambda name: SimpleNamespace(features=features, labels=labels))
    monkeypatch.setattr(fires, "load_frames", lambda setup: parts)
    monkeypatch.setattr(fires, "EPOCHS", 30)
    torch.manual_seed(0)
    for cached in (fires.spoken, fires.trained_network):
        cached.cache_clear()
    try:
        network, (minibatch, said) = fires.trained(Shape(16, 32))
    finally:
        for cached in (fires.spoken, fires.trained_network):
            cached.cache_clear()
    assert network.training
    assert minibatch.shape == (32, 20, 40)
    assert (network.eval()(minibatch).argmax(dim=1) == said).all()


@contextmanager
def own_thread(name, shape, threads, keep_memory):
    """A thread in the place of the process."""
    step = peers.adam_step(peers.installed()[name](shape.width), *shape.minibatch())
    with ThreadPoolExecutor(1) as thread:
        yield lambda steps: thread.submit(lambda: [step() for _ in range(steps)] and 12.5)


@pytest.fixture
def small(monkeypatch):
    """The program at a size of a moment, with no more peers than plain PyTorch, all in this process."""
    monkeypatch.setattr(peers, "LIBRARIES", {})
    monkeypatch.setattr(peers, "own_process", own_thread)
    monkeypatch.setattr(program, "SECONDS", 0.0)
    monkeypatch.setattr(program, "trained", lambda shape: (benchmark.ours(shape.width), shape.minibatch()))
    groups = {
        "steps": [(SMALL, "cpu")],
        "rates": [(SMALL, 0.1), (SMALL, None)],
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
    assert list(tables["peers"]["network"]) == ["products", "ours", "plain"]
    assert list(tables["peers"]["peak_mb"].fillna(0)) == [0, 12.5, 12.5]
    assert list(tables["rates"]["rate"].fillna(0)) == [0.1, 0.1, 0, 0]
    assert list(tables["rates"]["features"].unique()) == list(
        pd.read_csv(RESULTS / "bench-rates.csv").features.unique()
    )
    assert list(tables["neurons"]["neuron"]) == list(program.THEIR_LAYERS)
    for name, table in tables.items():
        path = RESULTS / f"bench-{name}.csv"
        assert list(table.columns) == list(pd.read_csv(path).columns)
        assert (table.filter(like="_ms") > 0).all(axis=None)
    for name, column in {"steps": "work", "prediction": "work", "at-once": "manner"}.items():
        assert list(tables[name][column]) == list(pd.read_csv(RESULTS / f"bench-{name}.csv")[column].unique())


def test_the_committed_tables_hold_every_shape():
    steps = pd.read_csv(RESULTS / "bench-steps.csv").query("device == 'cpu'")
    shapes = {(shape.width, shape.batch) for shape, _ in program.TABLES["steps"][1]}
    assert {(row.width, row.batch) for row in steps.itertuples()} == shapes
    assert (steps["rounds"] >= benchmark.LEAST_ROUNDS).all()
    asked = {(shape.width, shape.batch, rate) for shape, rate in program.TABLES["rates"][1]}
    rates = pd.read_csv(RESULTS / "bench-rates.csv")
    assert {(row.width, row.batch, row.rate if row.rate > 0 else None) for row in rates.itertuples()} == asked
    counts = pd.read_csv(RESULTS / "bench-peers.csv")["network"].value_counts()
    assert (counts == len(program.TABLES["peers"][1])).all()


@pytest.mark.parametrize(("load", "told"), [(0.1, False), (1.5, True)])
def test_a_busy_machine_is_told(tmp_path, monkeypatch, capsys, load, told):
    monkeypatch.setattr(program, "TABLES", {})
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    program.main(["--results", str(tmp_path)])
    assert ("busy" in capsys.readouterr().out) == told
    assert pd.read_csv(tmp_path / "bench-machine.csv")["load"].to_list() == [load]


def test_an_interrupted_program_leaves_tables_of_one_run(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    reached = program.TABLES["growth"][0], [("frames", [(SMALL, 4)])]
    monkeypatch.setattr(program, "TABLES", {"growth": reached, "steps": (interrupted, [()])})
    for name in ("bench-growth.csv", "bench-steps.csv", "rehearsal.csv"):
        (tmp_path / name).write_text("of an older run")
    with pytest.raises(KeyboardInterrupt):
        program.main(["--results", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"bench-machine.csv", "bench-growth.csv", "rehearsal.csv"}
    assert len(pd.read_csv(tmp_path / "bench-growth.csv")) == 1


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
    adam = [30 * (65 * 2 * floor + 2_088 * forward), 2_088 * forward, 31 * 2 * 140 * 33 * forward]
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
