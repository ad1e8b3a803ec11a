"""Non-idealities of hardware: mismatch between devices, weights of few bits, lost spikes.

A change of a state leaves the state alone and returns another, so that any sample of any posterior can be changed
(``perturbed``); spikes are lost by the network (``dropping_spikes``). Both go with ``posteriors.predict`` as it is.
"""

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib.network import SpikingLayer
from lib.posteriors import Posterior, State

Change = Callable[[State, torch.Generator], State]

KINDS = ("weights", "leaks", "time_constants", "thresholds")
# A leak forgets; the slowest does so in 1000 steps, ten utterances.
SLOWEST = math.exp(-1 / 1000)
# A threshold is above rest, and a time constant above 0: the least of their factors.
LOWEST = 0.05


def weight_matrices(network: nn.Module) -> list[str]:
    """The names of the weights between units; the recurrent ones and the readout's are among them."""
    matrices = [name for name, parameter in network.named_parameters() if parameter.ndim == 2]
    return [name for name in matrices if name.rpartition(".")[2] in ("weight", "recurrent")]


def mismatched(
    state: Mapping[str, Tensor], network: nn.Module, what: str, level: float, generator: torch.Generator
) -> State:
    """The state with each weight, leak, time constant or threshold times its own ``1 + level N(0, 1)``.

    ``what`` is one of ``KINDS``. Weights are those of ``weight_matrices``. Leaks are those of spiking neurons and of
    their adaptation currents as the network uses them, within its ranges; times their factors they are held to 0 and a
    time constant of 1000 steps. A leak ``exp(-1 / tau)`` has the time constant tau. Thresholds are 1 before. The
    factors of time constants and of thresholds are 0.05 at the least: at a level of 0.5 that bound holds 3 % of them,
    at 0.3 one in a thousand.

    Leaks, and what the thresholds of adaptive neurons become, may lie outside their ranges: in the place of what is
    learnt of neurons' parameters stand their values, and such a state is for ``without_bounds(network)``.

    Raises ``ValueError`` for another kind, a level below 0, or a network that has none of that kind.
    """
    if what not in KINDS:
        raise ValueError(f"unknown kind of mismatch {what!r}: choose one of {', '.join(KINDS)}")
    if not level >= 0:
        raise ValueError(f"a mismatch has a level of 0 or more, not {level}")
    if what == "weights":
        names = weight_matrices(network)
        return dict(state) | {name: state[name] * _factors(state[name], level, generator) for name in names}
    used = _as_used(state, network)
    if what == "thresholds":
        return _with_thresholds(used, network, level, generator)
    return _with_leaks(used, network, what == "time_constants", level, generator)


def without_bounds(network: nn.Module) -> nn.Module:
    """A copy whose spiking layers take what a state holds of their neurons' parameters for the values themselves."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, SpikingLayer):
            layer.bounded = False
    return network


def quantised(state: Mapping[str, Tensor], names: Collection[str], bits: float) -> State:
    """Each named tensor on ``2^bits - 1`` evenly spaced levels, symmetric about 0, its largest magnitude the last.

    ``w -> s round(w / s)`` with ``s = max|w| / (2^(bits - 1) - 1)``; infinitely many bits change nothing. Raises
    ``ValueError`` for less than 2 bits, which have no level but 0.
    """
    if not bits >= 2:
        raise ValueError(f"symmetric levels need 2 bits or more, not {bits}")
    changed, steps = dict(state), 2.0 ** (bits - 1) - 1
    for name in names if bits < math.inf else ():
        largest = state[name].abs().max().clamp(min=torch.finfo(state[name].dtype).tiny)
        changed[name] = (state[name] / largest * steps).round() / steps * largest
    return changed


@contextmanager
def dropping_spikes(network: nn.Module, probability: float, generator: torch.Generator) -> Iterator[None]:
    """Within it each spike of a hidden layer is lost with that probability on its way to the next one.

    In evaluation mode too, and without dropout's scaling of those that arrive. What a neuron's own reset, its
    adaptation and its layer's recurrent weights make of its spikes is left as it is. Raises ``ValueError`` for a
    probability outside [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"spikes are lost with a probability between 0 and 1, not {probability}")

    def lose(layer: nn.Module, inputs: tuple[Tensor], train: Tensor) -> Tensor:
        arrives = torch.rand(train.shape, generator=generator, device=generator.device) >= probability
        return train * arrives.to(train.device)

    with ExitStack() as hooks:
        for layer in network.layers:
            hooks.callback(layer.register_forward_hook(lose).remove)
        yield


def perturbed(posterior: Posterior, change: Change) -> Posterior:
    """The posterior each of whose samples has gone through ``change(state, generator)``.

    A change that draws from that generator is another device for each sample, and an average over samples is one over
    devices. For one device that runs all samples, let the change draw from a generator of its own, seeded each time.
    """
    return _Perturbed(posterior, change)


@dataclass(frozen=True)
class _Perturbed(Posterior):
    """A mixture's components still take turns, and a noisy network stays noisy.

    Of a point there is no fixed number of distinct samples: the change may make another one each time.
    """

    posterior: Posterior
    change: Change

    @property
    def noisy(self) -> bool:
        return self.posterior.noisy

    def sample(self, generator: torch.Generator) -> State:
        return self.change(self.posterior.sample(generator), generator)

    def draws(self, samples: int, generator: torch.Generator) -> list[State]:
        return [self.change(state, generator) for state in self.posterior.draws(samples, generator)]


def _with_leaks(state: State, network: nn.Module, of_time: bool, level: float, generator: torch.Generator) -> State:
    """``of_time`` says whether the factors are those of the leaks' time constants."""
    changed = dict(state)
    for prefix, layer in _neurons(network).items():
        for name in (f"{prefix}raw_{name}" for name in layer.ranges if name.endswith("leak")):
            leak, factor = state[name], _factors(state[name], level, generator)
            other = leak ** (1 / factor.clamp(min=LOWEST)) if of_time else leak * factor
            changed[name] = other.clamp(0, SLOWEST)
    return changed


def _with_thresholds(state: State, network: nn.Module, level: float, generator: torch.Generator) -> State:
    """A neuron with the threshold ϑ that is reset by ϑ is one with the threshold 1 whose currents are divided by ϑ.

    Its potential over ϑ is the other's. So its norm's gain and bias are divided (without a norm its weights and
    bias), its row of the recurrent weights, and what a spike adds to its adaptation current; what its potential adds to
    that is divided with the potential itself.
    """
    changed = dict(state)
    for prefix, layer in _neurons(network).items():
        threshold = _factors(state[f"{prefix}raw_leak"], level, generator).clamp(min=LOWEST)
        of_current = "linear" if isinstance(layer.norm, nn.Identity) else "norm"
        for name in (f"{of_current}.weight", f"{of_current}.bias", "recurrent", "raw_adaptation_spike"):
            if (tensor := state.get(prefix + name)) is not None:
                changed[prefix + name] = tensor / threshold.view(-1, *[1] * (tensor.ndim - 1))
    return changed


def _neurons(network: nn.Module) -> dict[str, SpikingLayer]:
    """The spiking layers by what their parameters' names begin with."""
    layers = {f"{name}.": layer for name, layer in network.named_modules() if isinstance(layer, SpikingLayer)}
    if not layers:
        raise ValueError("the network has no spiking neurons with leaks and thresholds of their own")
    return layers


def _as_used(state: Mapping[str, Tensor], network: nn.Module) -> State:
    """What the network makes of its parameters: in the place of what is learnt of neurons', their values."""
    used = dict(state)
    for prefix, layer in _neurons(network).items():
        for own in layer.ranges:
            used[f"{prefix}raw_{own}"] = layer.within(own, state[f"{prefix}raw_{own}"])
    return used


def _factors(like: Tensor, level: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return 1 + level * noise.to(like.device)
