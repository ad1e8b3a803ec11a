"""The threads of the kernels on the CPU: they change nothing, hide nothing, and survive a fork."""

import os
import subprocess
import sys

import pytest
import torch
from test_fast import COMPILED, layer_of, run

from lib import fast
from lib.fast import cpu, radlif
from lib.neurons import NEURONS


@pytest.fixture
def threads(monkeypatch):
    """Sets the number of threads, and from how many on a kernel is shared out: here from the first element."""
    monkeypatch.setattr(cpu, "ELEMENTS_PER_THREAD", 1)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("neuron", COMPILED)
def test_threads_share_the_batch_and_change_nothing(monkeypatch, threads, neuron, training, dropout):
    weighted, layer = torch.randn(12, 5, 7), layer_of(7, neuron, training=training)
    threads(1)
    alone, gradients_alone, _ = run(fast.spikes, layer, weighted, dropout)
    used, pool = [], cpu._pool
    monkeypatch.setattr(cpu, "_pool", lambda workers: used.append(workers) or pool(workers))
    for number in (2, 3, 8):
        threads(number)
        shared, gradients_shared, _ = run(fast.spikes, layer, weighted, dropout)
        # No more than there are examples, or units for the sums over pairs of these.
        assert {min(number, 5)} <= set(used) <= {min(number, 5), min(number, 7)}
        assert torch.equal(alone, shared)
        # PyTorch itself may sum in another order on several threads.
        torch.testing.assert_close(gradients_alone, gradients_shared, rtol=1e-5, atol=1e-5)
        used.clear()


@pytest.mark.parametrize(
    ("module", "kernel", "neuron"),
    [(cpu, name, "lif") for name in ("_statistics", "_forward", "_backward", "_through_statistics")]
    + [(radlif, name, "radlif") for name in ("_forward", "_backward", "_pairs", "_by_weighted")],
)
def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch, threads, module, kernel, neuron):
    def fails(*_):
        raise RuntimeError("no luck")

    assert fast.proven(NEURONS[neuron], "cpu")
    monkeypatch.setattr(module, kernel, fails)
    threads(2)
    with pytest.raises(RuntimeError, match="no luck"):
        run(fast.spikes, layer_of(3, neuron), torch.randn(6, 4, 3))


FORKED = """
import os, signal, torch
from lib.fast import cpu
cpu.ELEMENTS_PER_THREAD = 1
torch.set_num_threads(2)
one = torch.ones(5)
given = torch.full((6, 4, 5), 3.0), one, 0 * one, 0.5 * one, 1.0, 0, 0, 1.0
spikes = cpu.forward(*given)
child = os.fork()
if child == 0:
    signal.alarm(60)  # ends a child that waits for threads it does not have
    os._exit(0 if torch.equal(cpu.forward(*given), spikes) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_gets_threads_of_its_own():
    root = os.path.dirname(os.path.dirname(fast.__path__[0]))
    forked = subprocess.run([sys.executable, "-c", FORKED], cwd=root, capture_output=True, text=True)
    assert forked.returncode == 0, forked.stderr
