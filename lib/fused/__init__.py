"""What stands between two matrix products, in one pass: normalise, integrate, spike, drop out.

``plain_spikes`` is the reference, in PyTorch's own operations. ``spikes`` gives the same spikes to the bit, by kernels
compiled at first use: by numba on the CPU (``cpu``), by Triton on CUDA (``cuda``, which keeps to the CPU's arithmetic,
while PyTorch's own operations round otherwise there). They exist because memory traffic, not arithmetic, is what the
plain form costs; so they keep nothing but the weighted input, from which the backward pass integrates again, and draw
dropout's numbers where they are needed.
"""

from functools import cache
from types import ModuleType

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lib import neurons
from lib.fused import cpu
from lib.fused.radlif import RadLIF

WORDS = 2**32


def spikes(
    weighted: Float[Tensor, "time batch units"],
    norm: nn.Module,
    leak: Float[Tensor, " units"],
    dropout: float = 0.0,
    threshold: float = 1.0,
    *,
    adaptation: Float[Tensor, "3 units"] | None = None,
    recurrent: Float[Tensor, "units units"] | None = None,
) -> Float[Tensor, "time batch units"]:
    """Spikes of the normalised input, dropped with probability ``dropout`` and scaled up to make up.

    Of LIF neurons; with ``adaptation`` (its leak, and its gains by potential and by spike) of adLIF, with ``recurrent``
    weights of RLIF, with both of RadLIF neurons. ``norm`` is used, and running statistics updated, as
    ``nn.BatchNorm1d`` itself would; any other norm is applied by itself first. Other devices than the CPU and CUDA, and
    CUDA without Triton (as on Windows) or with other neurons than LIF, take the plain form.
    """
    seed = int(torch.randint(WORDS, ())) if dropout > 0 else 0
    kernels, is_lif = _kernels(weighted.device.type), adaptation is None and recurrent is None
    if kernels is None or not (is_lif or kernels is cpu):
        return plain_spikes(
            weighted, norm, leak, seed, dropout, threshold, adaptation=adaptation, recurrent=recurrent
        )  # fmt: skip
    batch_statistics = isinstance(norm, nn.BatchNorm1d) and norm.training
    if not isinstance(norm, nn.BatchNorm1d):
        weighted = _by_itself(norm, weighted)
        scale = reciprocal_std = torch.ones_like(leak)
        shift = mean = torch.zeros_like(leak)
    else:
        if norm.training:
            examples = _examples(weighted)
            mean, variance = kernels.statistics(weighted.detach())
            _update(norm, mean, variance, examples)
        else:
            mean, variance = norm.running_mean, norm.running_var
        scale, shift, reciprocal_std = norm.weight, norm.bias, torch.rsqrt(variance + norm.eps)
    given = scale, shift, leak
    statistics = mean, reciprocal_std, batch_statistics
    if is_lif:
        return _Spikes.apply(weighted, *given, *statistics, kernels, threshold, seed, dropout)
    recurrent = None if recurrent is None else neurons.without_self(recurrent)
    return RadLIF.apply(
        weighted, *given, adaptation, recurrent, *statistics, threshold, seed, drop_level(dropout), gain(dropout)
    )


def plain_spikes(
    weighted: Float[Tensor, "time batch units"],
    norm: nn.Module,
    leak: Float[Tensor, " units"],
    seed: int,
    dropout: float,
    threshold: float = 1.0,
    *,
    adaptation: Float[Tensor, "3 units"] | None = None,
    recurrent: Float[Tensor, "units units"] | None = None,
) -> Float[Tensor, "time batch units"]:
    """The reference: the same in PyTorch's operations."""
    current = _plainly_normalised(weighted, norm)
    if recurrent is None:
        if adaptation is None:
            fired = neurons.lif(current, leak, threshold)
        else:
            fired = neurons.adlif(current, leak, *adaptation, threshold)
    elif adaptation is None:
        fired = neurons.rlif(current, leak, recurrent, threshold)
    else:
        fired = neurons.radlif(current, leak, *adaptation, recurrent, threshold)
    return fired * kept(seed, dropout, weighted) * gain(dropout) if dropout > 0 else fired


def _plainly_normalised(weighted: Tensor, norm: nn.Module) -> Tensor:
    """The batch's statistics are summed in double precision: brought back to single precision, they do not show the
    order of the terms, in which the kernels differ.
    """
    if not isinstance(norm, nn.BatchNorm1d):
        return _by_itself(norm, weighted)
    if norm.training:
        examples = _examples(weighted)
        exact = weighted.double()
        mean = exact.mean(dim=(0, 1)).to(weighted.dtype)
        variance = exact.var(dim=(0, 1), correction=0).to(weighted.dtype)
        _update(norm, mean.detach(), variance.detach(), examples)
    else:
        mean, variance = norm.running_mean, norm.running_var
    factor = norm.weight * torch.rsqrt(variance + norm.eps)
    return weighted * factor + (norm.bias - mean * factor)


def _by_itself(norm: nn.Module, weighted: Tensor) -> Tensor:
    """Each step of each utterance is an example."""
    return norm(weighted.flatten(0, 1)).view_as(weighted)


def kept(seed: int, dropout: float, like: Float[Tensor, "time batch units"]) -> Bool[Tensor, "time batch units"]:
    """Which spikes dropout leaves: a 32-bit hash of seed, time step, example and unit reaches ``dropout * 2**32``."""
    time, batch, units = like.shape
    rows = mixed(torch.arange(time * batch, device=like.device) ^ seed)
    words = mixed((rows[:, None] + torch.arange(units, device=like.device) * GOLDEN) % WORDS)
    return (words >= drop_level(dropout)).view(like.shape)


GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: spreads successive units over all 32 bits


def mixed(words: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """MurmurHash3's finaliser (Appleby 2011) on numbers below 2**32: each bit of the input flips half of the output."""
    words = (words ^ (words >> 16)) * 0x85EBCA6B % WORDS
    words = (words ^ (words >> 13)) * 0xC2B2AE35 % WORDS
    return words ^ (words >> 16)


def drop_level(dropout: float) -> int:
    """The number of 32-bit words that drop a spike."""
    return int(dropout * WORDS)


def gain(dropout: float) -> float:
    """What a spike that is left counts, to make up for those that are not."""
    return 1 / (1 - dropout)


@cache
def _kernels(device: str) -> ModuleType | None:
    if device == "cpu":
        return cpu
    if device == "cuda":
        try:
            from lib.fused import cuda
        except ImportError:  # PyTorch brings Triton only to some systems
            return None
        return cuda
    return None


def _examples(weighted: Tensor) -> int:
    """The number of values from which a unit's batch statistics are taken."""
    time, batch, _ = weighted.shape
    if time * batch < 2:
        raise ValueError("batch statistics need more than one value for each unit: train on larger batches")
    return time * batch


def _update(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, examples: int) -> None:
    """The running statistics, with the unbiased variance, as ``nn.BatchNorm1d`` keeps them."""
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (examples / (examples - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)


class _Spikes(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, weighted, scale, shift, leak, mean, reciprocal_std, batch_statistics, kernels, threshold, seed, dropout
    ):
        weighted, leak = weighted.contiguous(), leak.contiguous()
        factor = scale * reciprocal_std
        offset = shift - mean * factor
        ctx.save_for_backward(weighted, leak, mean, reciprocal_std, factor, offset)
        ctx.kernels, ctx.batch_statistics = kernels, batch_statistics
        ctx.settings = threshold, seed, drop_level(dropout), gain(dropout)
        return kernels.forward(weighted, factor, offset, leak, *ctx.settings)

    @staticmethod
    def backward(ctx, grad):
        weighted, leak, mean, reciprocal_std, factor, offset = ctx.saved_tensors
        # A readout of firing rates sends the same gradient to every time step; it need not be written out.
        grad = grad[:1] if grad.stride(0) == 0 else grad
        grad_weighted, sums = ctx.kernels.backward(
            grad.contiguous(), weighted, factor, offset, leak, mean, *ctx.settings
        )
        of_one, of_centred, of_rest = sums
        grad_leak = of_rest - factor * of_centred - (offset + factor * mean) * of_one
        grad_shift, grad_centred = (1 - leak) * of_one, (1 - leak) * of_centred
        if ctx.batch_statistics:
            examples = weighted.shape[0] * weighted.shape[1]
            slope = factor * grad_centred * reciprocal_std**2 / examples
            constant = factor * grad_shift / examples - mean * slope
            ctx.kernels.through_statistics(grad_weighted, weighted, slope, constant)
        return grad_weighted, grad_centred * reciprocal_std, grad_shift, grad_leak, *[None] * 7
