"""What is timed is what is trained, beside the products that it cannot do without."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from lib import experiment
from lib.benchmark import __main__ as program
from lib.benchmark import layers, peers, products, runs
from lib.benchmark.products import CLASSES, INPUTS, Shape
from lib.benchmark.steps import ivon_step, prediction_cases, step_cases
from lib.benchmark.timing import LEAST_ROUNDS, machine, timed
from lib.benchmark.training import OwnProcess, adam_step
from lib.networks.spiking import NEURONS, SpikingLayer
from lib.trainers import train_ivon, train_map

RESULTS = experiment.DATA / "results"
SMALL = Shape(width=6, batch=4, frames=5)


# Timing


def test_cases_are_timed_in_turns_after_a_round_that_does_not_count():
    calls = []
    table = timed([({"work": name}, lambda name=name: calls.append(name)) for name in "ab"], seconds=0.0)
    assert calls == ["a", "b"] * (LEAST_ROUNDS + 1)
    assert list(table.columns) == ["work", "minimum_ms", "median_ms", "rounds"]
    assert list(table["rounds"]) == [LEAST_ROUNDS] * 2


def test_times_are_in_milliseconds_with_minimum_and_median(monkeypatch):
    # The clock is asked once for the end, then for each round whether it is reached, when a call began and its end.
    lengths = [3, 1, 2]
    readings = [0.0]
    for length in lengths:
        now = readings[-1]
        readings += [now, now, now + length / 1000]
    readings.append(readings[-1])
    monkeypatch.setattr("lib.benchmark.timing.time.perf_counter", iter(readings).__next__)
    (row,) = timed([({}, lambda: None)], seconds=0.0).to_dict("records")
    assert row["minimum_ms"] == pytest.approx(1)
    assert row["median_ms"] == pytest.approx(2)


def test_more_time_gives_more_rounds():
    (rounds,) = timed([({}, lambda: None)], seconds=0.05)["rounds"]
    assert rounds > LEAST_ROUNDS


def test_the_machine_is_described_without_its_name_or_folders():
    (row,) = machine().to_dict("records")
    assert row["processor"]
    assert row["cores"] >= 1
    assert row["memory_gb"] > 0
    assert row["torch"] == torch.__version__.partition("+")[0]
    text = " ".join(map(str, row.values()))
    assert "/" not in text.replace(row["processor"], "")


# The floor


def test_the_five_products_are_those_that_autograd_makes():
    """Counted by PyTorch's own counter in a step of two linear layers, the first one's input needing no gradient."""
    from torch.utils.flop_counter import FlopCounterMode

    layers = torch.nn.Sequential(
        torch.nn.Linear(INPUTS, SMALL.width, bias=False), torch.nn.Linear(SMALL.width, SMALL.width, bias=False)
    )
    features, _ = SMALL.minibatch()
    with FlopCounterMode(display=False) as forward:
        hidden = layers(features.transpose(0, 1))
    with FlopCounterMode(display=False) as backward:
        hidden.sum().backward()
    assert products.operations(products.of_prediction(SMALL)) == forward.get_total_flops()
    assert products.operations(products.of_step(SMALL)) == forward.get_total_flops() + backward.get_total_flops()


def test_products_are_formed_in_the_memory_given_for_them(monkeypatch):
    pairs = products.of_step(SMALL)
    formed = []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda left, right, out: formed.append(multiply(left, right, out=out)))
    run = products.multiplied(pairs, times=2)
    run()
    assert len(formed) == 10
    for (left, right), output, again in zip(pairs, formed[:5], formed[5:], strict=True):
        torch.testing.assert_close(output, torch.einsum("ij,jk->ik", left, right))
        assert output.data_ptr() == again.data_ptr()


def test_operations_are_counted_without_memory():
    pairs = products.of_step(Shape(512, 128), "meta")
    assert products.operations(pairs) == 2 * 12_800 * 512 * (40 * 2 + 512 * 3)


def test_a_machine_has_a_speed():
    assert products.matrix_speed(seconds=0.0) > 0


# The step


@pytest.mark.parametrize("method", ["map", "ivon"])
def test_a_timed_step_is_the_trainer_s(method):
    """One epoch of one batch by the trainer ends in the weights of one timed step on the same batch and noise."""
    features, labels = SMALL.minibatch()
    seed = int(np.random.SeedSequence((0, 0)).generate_state(1)[0])
    trained, stepped = (classifier() for _ in range(2))
    data = SimpleNamespace(features=features, labels=labels)
    schedule = {"epochs": 1, "batch_size": len(labels), "patience": 2, "seed": 0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        order = torch.randperm(len(labels))
        if method == "map":
            _, step = adam_step(stepped, features[order], labels[order], learning_rate=0.01)
            train_map(trained, data, data, learning_rate=0.01, weight_decay=1e-5, **schedule)
        else:
            step = ivon_step(stepped, features[order], labels[order], learning_rate=0.01)
            train_ivon(
                trained, data, data, learning_rate=0.01, weight_decay=1e-3, ess_factor=1e4 / len(labels),
                hess_init=0.4, beta2=0.9999, **schedule,
            )  # fmt: skip
        step()
    assert not torch.equal(stepped.readout.weight, classifier().readout.weight)
    for name, tensor in trained.state_dict().items():
        torch.testing.assert_close(stepped.state_dict()[name], tensor, msg=name)


def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return peers.ours(SMALL.sizes)


def test_a_step_and_its_parts_leave_no_work_undone():
    by_work = {row["work"]: run for row, run in step_cases(SMALL, "cpu")}
    assert list(by_work) == ["products", "map", "ivon", "norm, neuron, dropout", "optimiser"]
    for run in by_work.values():
        run()
    assert np.isfinite([by_work["map"](), by_work["ivon"]()]).all()


def test_a_prediction_has_all_samples_of_all_utterances():
    (_, (row, predict)) = prediction_cases(SMALL, "cpu")
    assert predict().shape == (row["samples"], SMALL.batch, CLASSES)


# The peers


def test_plain_pytorch_is_always_a_peer():
    assert list(peers.installed())[:2] == ["ours", "plain"]


@pytest.mark.parametrize("present", [(), ("snntorch",), ("sparch", "snntorch", "spikingjelly")])
def test_what_is_not_installed_is_left_out(monkeypatch, present):
    monkeypatch.setattr(peers, "find_spec", lambda name: name if name in present else None)
    assert list(peers.installed()) == ["ours", "plain", *present]


@pytest.mark.parametrize("name", peers.installed())
def test_a_peer_learns_from_all_its_weights(name):
    torch.manual_seed(0)
    features, labels = Shape(16, 8, 20).minibatch()
    network = peers.installed()[name](Shape(16, 8, 20).sizes)
    _, step = adam_step(network, 3 * features, labels, learning_rate=0.01)
    losses = [step() for _ in range(30)]
    assert losses[-1] < 0.95 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_plain_pytorch_has_as_many_weights_as_ours():
    ours, plain = (make(SMALL.sizes).parameters() for make in (peers.ours, peers.plain))
    assert sorted(map(torch.numel, ours)) == sorted(map(torch.numel, plain))


def test_a_peer_s_process_is_spared_what_ours_does_to_memory():
    code = "import sys, lib.benchmark.training as t; t.peers.plain([4, 3, 3, 2]); print('lib.fused.cpu' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_process_of_its_own_trains_and_ends():
    with OwnProcess("plain", SMALL, threads=1, keep_memory=False) as process:
        assert process.begin(3).result() is None
        (child,) = process._processes.values()
    assert not child.is_alive()


@pytest.mark.parametrize("neuron", NEURONS)
def test_the_baseline_s_layer_is_timed_with_our_weights(neuron):
    pytest.importorskip("sparch", reason="the baseline is not installed here")
    ours = SpikingLayer(5, 7, neuron, 0.1)
    own = layers.theirs(ours, neuron, 3)
    assert torch.equal(own.W.weight, ours.linear.weight)
    assert torch.equal(own.alpha, ours.leak)
    adaptive, recurrent = NEURONS[neuron]
    if adaptive:
        assert torch.equal(own.beta, ours.adaptation_leak)
        assert torch.equal(own.a, ours.adaptation_potential)
        assert torch.equal(own.b, ours.adaptation_spike)
    if recurrent:
        assert torch.equal(own.V.weight, ours.recurrent.T)


# The tables


class OwnThread(OwnProcess):
    """A thread in the place of the process."""

    def __init__(self, network, shape, threads, keep_memory):
        self.thread = ThreadPoolExecutor(1)
        _, self.step = adam_step(peers.installed()[network](shape.sizes), *shape.minibatch())

    def begin(self, steps=1):
        return self.thread.submit(lambda: [self.step() for _ in range(steps)])

    def __exit__(self, *_):
        self.thread.shutdown()


@pytest.fixture
def small_program(monkeypatch):
    """The program at a size of a moment, with no more peers than plain PyTorch, all in this process."""
    monkeypatch.setattr(peers, "LIBRARIES", ())
    monkeypatch.setattr(runs, "OwnProcess", OwnThread)
    shapes = {"STEPS": [SMALL], "PREDICTIONS": [SMALL], "PEERS": [SMALL], "LAYERS": [SMALL], "PAIRS": [SMALL]}
    for name, value in (shapes | {"SECONDS": 0.0, "GROWTH": {"utterances": [(SMALL, 4), (SMALL, 8)]}}).items():
        monkeypatch.setattr(program, name, value)


def test_the_program_writes_every_table(small_program, tmp_path):
    program.main(["--results", str(tmp_path)])
    tables = {path.stem.removeprefix("bench-"): pd.read_csv(path) for path in tmp_path.iterdir()}
    assert set(tables) == set(program.TABLES)
    assert set(tables["peers"]["network"]) == {"products", "ours", "plain"}
    assert list(tables["neurons"]["neuron"]) == ["lif", "adlif", "rlif", "radlif"]
    assert list(tables["growth"]["utterances"]) == [4, 8]
    assert set(tables["at-once"]["manner"]) == {"at the same time", "one after the other"}
    for name, table in tables.items():
        committed = pd.read_csv(RESULTS / f"bench-{name}.csv")
        assert list(table.columns) == list(committed.columns)
        assert (table.filter(like="_ms") > 0).all(axis=None)


@pytest.mark.parametrize(("load", "told"), [(0.1, False), (1.5, True)])
def test_a_busy_machine_is_told(small_program, tmp_path, monkeypatch, capsys, load, told):
    monkeypatch.setattr(program, "TABLES", {"machine": program.TABLES["machine"]})
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    program.main(["--results", str(tmp_path)])
    assert ("busy" in capsys.readouterr().out) == told
    assert pd.read_csv(tmp_path / "bench-machine.csv")["load"].to_list() == [load]


def test_an_interrupted_program_leaves_what_was_there(small_program, tmp_path, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "TABLES", {"machine": program.TABLES["machine"], "growth": interrupted})
    with pytest.raises(KeyboardInterrupt):
        program.main(["--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_bench_runs_the_program():
    said = subprocess.run(
        ["make", "-n", "--no-print-directory", "bench"],
        cwd=experiment.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.splitlines()[-1].endswith("python -m lib.benchmark")
