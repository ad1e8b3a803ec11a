"""The threads of the kernels on the CPU: they change nothing, hide nothing, and survive a fork."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from test_fast import COMPILED, layer_of, run

from lib import fast
from lib.fast import cpu, radlif
from lib.fast import threads as sharing
from lib.neurons import NEURONS

OF_TORCH = pytest.param("torch's", marks=pytest.mark.skipif(not sharing._openmp(), reason="torch brings no libgomp"))


@pytest.fixture(params=[OF_TORCH, "a pool's"])
def threads(monkeypatch, request):
    """Sets the number of threads, and from how many on a kernel is shared out: here from the first element."""
    monkeypatch.setattr(sharing, "ELEMENTS_PER_THREAD", 1)
    if request.param == "a pool's":
        monkeypatch.setattr(sharing, "_openmp", lambda: None)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [2, 3, 8])
def test_as_many_threads_as_torch_uses_take_a_share_each_at_the_same_time(threads, number):
    together, taken = threading.Barrier(number), []

    def kernel(first, last):
        together.wait(timeout=60)  # which breaks where fewer come
        taken.append((threading.get_ident(), first, last))

    threads(number)
    sharing.over_shares(kernel, 20, 20)
    assert len({thread for thread, _, _ in taken}) == number
    assert threading.get_ident() in {thread for thread, _, _ in taken}
    assert sorted(place for _, *share in taken for place in range(*share)) == list(range(20))
    sizes = [last - first for _, first, last in taken]
    assert max(sizes) - min(sizes) <= 1


def test_no_more_threads_than_there_are_things_or_that_pay(monkeypatch, threads):
    def shares(number, elements):
        taken = []
        sharing.over_shares(lambda first, last: taken.append((first, last)), number, elements)
        return sorted(taken)

    threads(8)
    assert shares(3, 3) == [(0, 1), (1, 2), (2, 3)]
    monkeypatch.setattr(sharing, "ELEMENTS_PER_THREAD", 10)
    assert shares(20, 39) == [(0, 6), (6, 13), (13, 20)]
    assert shares(20, 19) == [(0, 20)]


def test_a_thread_that_cannot_be_had_loses_no_share(monkeypatch, threads):
    done = np.zeros(12)

    def kernel(first, last):
        done[first:last] += 1

    def all_again(first, last):  # inside a thread of OpenMP's there are no others to be had
        sharing.over_shares(kernel, 12, 12)

    threads(4)
    sharing.over_shares(all_again, 4, 4)
    assert done.tolist() == [4] * 12
    with ThreadPoolExecutor(1) as small:
        monkeypatch.setattr(sharing, "_pool", lambda *_: small)
        sharing.over_shares(kernel, 12, 12)
    sharing.over_shares(kernel, 12, 12)  # and the pool, closed as it is now, gives none
    assert done.tolist() == [6] * 12


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("neuron", COMPILED)
def test_threads_share_the_batch_and_change_nothing(threads, neuron, training, dropout):
    weighted, layer = torch.randn(12, 5, 7), layer_of(7, neuron, training=training)
    threads(1)
    alone, gradients_alone, _ = run(fast.spikes, layer, weighted, dropout)
    for number in (2, 3, 8):
        threads(number)
        together, gradients_together, _ = run(fast.spikes, layer, weighted, dropout)
        assert torch.equal(alone, together)
        # PyTorch itself may sum in another order on several threads.
        torch.testing.assert_close(gradients_alone, gradients_together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("module", "kernel", "neuron"),
    [(cpu, name, "lif") for name in ("_statistics", "_forward", "_backward", "_through_statistics")]
    + [(radlif, name, "radlif") for name in ("_forward", "_backward", "_pairs", "_by_weighted")],
)
def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch, threads, module, kernel, neuron, error):
    caller = threading.get_ident()
    another = threading.Event()

    def fails(*_):
        if threading.get_ident() != caller:
            another.set()
            raise error("no luck")
        another.wait(timeout=60)

    assert fast.proven(NEURONS[neuron], "cpu")
    monkeypatch.setattr(module, kernel, fails)
    threads(2)
    with pytest.raises(error, match="no luck"):
        run(fast.spikes, layer_of(3, neuron), torch.randn(6, 4, 3))
    assert another.is_set()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_goes_wrong_in_the_thread_that_calls_is_raised_when_the_others_have_ended(threads, error):
    caller, ended = threading.get_ident(), []
    both = threading.Barrier(2)

    def kernel(first, last):
        both.wait(timeout=60)
        if threading.get_ident() == caller:
            raise error("no luck")
        ended.append(first)

    threads(2)
    with pytest.raises(error, match="no luck"):
        sharing.over_shares(kernel, 2, 2)
    assert len(ended) == 1


FORKED = """
import os, signal, torch
from lib.fast import cpu, threads
threads.ELEMENTS_PER_THREAD = 1
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
