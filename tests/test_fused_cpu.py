"""The threads of the kernels on the CPU: they change nothing, hide nothing, and survive a fork."""

import os
import subprocess
import sys

import pytest
import torch
from test_fused import layer_state, run

from lib import fused
from lib.fused import cpu


@pytest.fixture
def threads(monkeypatch):
    """Sets the number of threads, and from how many on a kernel is shared out: here from the first element."""
    monkeypatch.setattr(cpu, "ELEMENTS_PER_THREAD", 1)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("training", [True, False])
def test_threads_share_the_batch_and_change_nothing(monkeypatch, threads, training, dropout):
    weighted = torch.randn(12, 5, 7)
    norm, leak = layer_state(7, training=training)
    threads(1)
    alone, gradients_alone, _ = run(fused.spikes, weighted, norm, leak, dropout)
    used, pool = [], cpu._pool
    monkeypatch.setattr(cpu, "_pool", lambda workers: used.append(workers) or pool(workers))
    for number in (2, 3, 8):
        threads(number)
        shared, gradients_shared, _ = run(fused.spikes, weighted, norm, leak, dropout)
        assert set(used) == {min(number, 5)}  # no more than there are examples
        assert torch.equal(alone, shared)
        # PyTorch itself may sum in another order on several threads.
        torch.testing.assert_close(gradients_alone, gradients_shared, rtol=1e-5, atol=1e-5)
        used.clear()


@pytest.mark.parametrize("kernel", ["_statistics", "_forward", "_backward", "_through_statistics"])
def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch, threads, kernel):
    def fails(*_):
        raise RuntimeError("no luck")

    monkeypatch.setattr(cpu, kernel, fails)
    threads(2)
    with pytest.raises(RuntimeError, match="no luck"):
        run(fused.spikes, torch.randn(6, 4, 3), *layer_state(3), 0.0)


FORKED = """
import os, signal, torch
from lib.fused import cpu
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
    root = os.path.dirname(os.path.dirname(fused.__path__[0]))
    forked = subprocess.run([sys.executable, "-c", FORKED], cwd=root, capture_output=True, text=True)
    assert forked.returncode == 0, forked.stderr
