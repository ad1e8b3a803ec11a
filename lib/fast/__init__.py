"""Compiled forms of what ``lib.network`` and ``lib.slices`` write plainly; the same numbers, several times as fast.

Between the matrix products memory traffic is what the plain forms cost: kernels normalise, integrate, spike and drop
out in one pass, by numba on the CPU (``cpu``, ``radlif``), by Triton on CUDA (``cuda``, which keeps to the CPU's
arithmetic, while PyTorch's own operations round otherwise there). They keep nothing but the weighted input, from which
the backward pass integrates again. Of the products themselves the CPU takes only what spikes make of them where spikes
are few (``sparse``), and predictions go through all layers at a time (``events``). Spikes are the plain form's to the
bit for the same weighted input; where that was summed spike by spike, in another order, an input within rounding of the
threshold may fall on its other side. Gradients are the plain form's to rounding. This package may be deleted.

A layer says in its own class, not a parent's, which ``kernel`` computes it; any other layer takes the plain way. Before
a kernel is used for the first time in a process it must give what the plain form gives on a small tensor; one that does
not steps aside with a warning.
"""

import copy
import warnings
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.fast import cpu
from lib.fast.events import logits_along, rates, serves_lines
from lib.fast.radlif import RadLIF
from lib.fast.sparse import Events, weighed
from lib.fast.stochastic import drawn_lif

__all__ = ["drawn_lif", "keep_freed_memory", "logits_along", "rates", "serves_lines", "spikes"]

keep_freed_memory = cpu.keep_freed_memory

WORDS = 2**32
TYPES = (torch.float32, torch.float64)  # autocast and half precision take the plain way
# Which of a layer's parameters each kernel takes: the adaptation current's, and the recurrent weights.
ADAPTATION = ("adaptation_leak", "adaptation_potential", "adaptation_spike")
KERNELS = {"lif": (False, False), "adlif": (True, False), "rlif": (False, True), "radlif": (True, True)}


def spikes(
    layer: nn.Module, train: Float[Tensor, "time batch inputs"], seed: int | None
) -> Float[Tensor, "time batch units"] | None:
    """What ``layer.plain(layer.linear(train), seed)`` gives, or None where no kernel serves the layer on its device."""
    kernel, device = vars(type(layer)).get("kernel"), train.device.type
    if kernel not in KERNELS or layer.raw_leak.dtype not in TYPES or not proven(type(layer), device):
        return None
    return _fused(layer, weighed(layer.linear, train).to(layer.raw_leak), seed)


@cache
def proven(kind: type[nn.Module], device: str) -> bool:
    """Whether the kernel of this kind of layer is there, and gives the plain form's spikes and gradients."""
    if (device == "cuda" and kind.kernel != "lif") or _kernels(device) is None:
        return False
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        fused = kind(4, 5, 0.25).to(device)
        with torch.no_grad():
            fused.norm.weight.mul_(4)  # so that the units spike
        plain, weighted = copy.deepcopy(fused), torch.randn(20, 3, 5, device=device)
        weights, found = torch.randn_like(weighted), []
        behind = nn.Linear(5, 600, bias=False, device=device)  # so many units that it hears spike by spike
        for layer, compute in ((fused, _fused), (plain, kind.plain)):
            inputs = weighted.clone().requires_grad_()
            try:
                trains = compute(layer, inputs, 1)
                ((trains * weights).sum() + weighed(behind, trains).square().mean()).backward()
            except Exception as error:  # a compiler's or a driver's, of whatever kind
                return _aside(kind, device, error)
            given = inputs, *layer.parameters(), *behind.parameters()
            found.append([trains.detach(), *(one.grad.clone() for one in given if one.grad is not None)])
            behind.zero_grad()
    if len(found[0]) != len(found[1]):
        return _aside(kind, device, "it has other gradients than the plain form")
    for index, (ours, theirs) in enumerate(zip(*found, strict=True)):
        same = torch.equal(ours, theirs) if index == 0 else torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
        if not same:
            what = "spikes" if index == 0 else "gradients"
            return _aside(kind, device, f"its {what} differ from the plain form's")
    return True


def _aside(kind: type[nn.Module], device: str, why: object) -> bool:
    warnings.warn(f"the {kind.kernel} kernel steps aside on {device} for the plain form: {why}", stacklevel=4)
    return False


@cache
def _kernels(device: str):
    """The module of kernels for a kind of device; None where there is none, as on CUDA without Triton."""
    if device == "cpu":
        return cpu
    if device == "cuda":
        try:
            from lib.fast import cuda
        except ImportError:  # PyTorch brings Triton only to some systems
            return None
        return cuda
    return None


def _fused(layer: nn.Module, weighted: Tensor, seed: int | None) -> Tensor:
    norm, leak, kernels = layer.norm, layer.leak, _kernels(weighted.device.type)
    dropout = 0.0 if seed is None else layer.dropout
    batch_statistics = isinstance(norm, nn.BatchNorm1d) and norm.training
    if not isinstance(norm, nn.BatchNorm1d):
        weighted = norm(weighted.flatten(0, 1)).view_as(weighted)
        scale = reciprocal_std = torch.ones_like(leak)
        shift = mean = torch.zeros_like(leak)
    else:
        mean, variance = norm.running_mean, norm.running_var
        if norm.training:
            mean, variance = kernels.statistics(weighted.detach())
            layer.move_statistics(mean, variance, weighted.shape[0] * weighted.shape[1])
        scale, shift, reciprocal_std = norm.weight, norm.bias, torch.rsqrt(variance + norm.eps)
    adaptive, recurrent = KERNELS[layer.kernel]
    level, gain = drop_level(dropout), 1 / (1 - dropout)
    events = None
    if kernels is cpu and not torch.is_inference_mode_enabled():  # in which nobody sees a train change in place
        events = Events.of(weighted, gain, torch.is_grad_enabled())
    given = weighted, scale, shift, leak, mean, reciprocal_std, batch_statistics, 1.0, seed or 0, level, gain, events
    if adaptive or recurrent:
        adaptation = torch.stack([layer.held(name) for name in ADAPTATION]) if adaptive else None
        among = layer.between_units() if recurrent else None
        train, wanted = RadLIF.apply(*given, adaptation, among)
    else:
        train, wanted = _Spikes.apply(*given, kernels)
    if events:
        events.version, events.wanted, train.events = train._version, wanted, events
    return train


def drop_level(dropout: float) -> int:
    """The number of 32-bit words that drop a spike."""
    return int(dropout * WORDS)


class _Spikes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, weighted, scale, shift, leak, mean, reciprocal_std, batch_statistics, threshold, seed, level, gain,
        events, kernels,
    ):  # fmt: skip
        leak = leak.contiguous()
        factor = scale * reciprocal_std
        offset = shift - mean * factor
        ctx.save_for_backward(weighted, leak, mean, reciprocal_std, factor, offset)
        ctx.set_materialize_grads(False)
        ctx.kernels, ctx.batch_statistics, ctx.settings = kernels, batch_statistics, (threshold, seed, level, gain)
        if events is None:
            return kernels.forward(weighted, factor, offset, leak, *ctx.settings), None
        train = kernels.forward(weighted, factor, offset, leak, *ctx.settings, events.fired, events.wanting)
        return train, events.count(train)

    @staticmethod
    def backward(ctx, grad, by_wanted):
        weighted, leak, mean, reciprocal_std, factor, offset = ctx.saved_tensors
        threshold, seed, level, gain = ctx.settings
        grad, level = cpu.arriving(grad, by_wanted, level)
        grad_weighted, sums = ctx.kernels.backward(
            grad, weighted, factor, offset, leak, mean, threshold, seed, level, gain
        )
        gradients, slope, constant = cpu.norm_gradients(
            sums, weighted, factor, offset, leak, mean, reciprocal_std, ctx.batch_statistics
        )
        if ctx.batch_statistics:
            ctx.kernels.through_statistics(grad_weighted, weighted, slope, constant)
        return grad_weighted, *gradients, *[None] * 9
