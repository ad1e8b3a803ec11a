"""Posteriors: what weights can be sampled from, and the predictions that follow (the paper's section 5).

A *state* is a full set of a network's tensors by name: parameters and batch-norm statistics. ``sample`` returns one,
and ``torch.func.functional_call`` takes it to the network, which is never changed.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.func import functional_call

from lib.files import atomic_write

State = dict[str, Tensor]

# Utterances pass through the network as many together as give its widest layer this many spikes (8 MB): few enough to
# stay in the processor's cache, many enough for the cost of a call not to show.
SPIKES_TOGETHER = 2**21
FAMILIES: dict[str, type["Posterior"]] = {}


class Posterior:
    """A distribution over states, with a ``mean``; if ``noisy``, the network's own randomness stays on under it."""

    noisy: ClassVar[bool] = False
    mean: State

    def sample(self, generator: torch.Generator) -> State:
        """One full set of the network's tensors."""
        raise NotImplementedError

    def draws(self, samples: int, generator: torch.Generator) -> list[State]:
        """So many samples."""
        return [self.sample(generator) for _ in range(samples)]

    def distinct(self, samples: int) -> int:
        """``samples``, but no more than there are different ones."""
        return samples


def family(kind: type[Posterior]) -> type[Posterior]:
    """Let ``load`` read a kind of posterior whose fields are states, posteriors or tuples of posteriors."""
    FAMILIES[kind.__name__] = kind
    return kind


@family
@dataclass(frozen=True)
class PointMass(Posterior):
    """A trained network: every sample is the same."""

    mean: State

    def sample(self, generator: torch.Generator) -> State:
        return dict(self.mean)

    def distinct(self, samples: int) -> int:
        return 1


@family
@dataclass(frozen=True)
class MeanFieldGaussian(Posterior):
    """Independent Gaussians (equations 6 and 8). A tensor of ``mean`` without a ``std`` is certain.

    Raises ``ValueError`` where ``std`` names a tensor that ``mean`` lacks, or differs from it in shape.
    """

    mean: State
    std: State

    def __post_init__(self):
        for name, std in self.std.items():
            if name not in self.mean or self.mean[name].shape != std.shape:
                raise ValueError(f"the standard deviation {name!r} has no mean of the same shape")

    def sample(self, generator: torch.Generator) -> State:
        state = dict(self.mean)
        for name, std in self.std.items():
            noise = torch.randn(std.shape, generator=generator, dtype=std.dtype, device=std.device)
            state[name] = self.mean[name] + std * noise
        return state


@family
@dataclass(frozen=True)
class Mixture(Posterior):
    """Equally weighted components, each a posterior: an ensemble.

    Raises ``ValueError`` for a noisy component: the noise belongs around the mixture.
    """

    components: tuple[Posterior, ...]

    def __post_init__(self):
        if any(component.noisy for component in self.components):
            raise ValueError("a mixture has no noisy networks in it: make a noisy network of the mixture")

    def sample(self, generator: torch.Generator) -> State:
        choice = torch.randint(len(self.components), (), generator=generator, device=generator.device)
        return self.components[int(choice)].sample(generator)

    def draws(self, samples: int, generator: torch.Generator) -> list[State]:
        """The components take turns: where ``samples`` is a multiple of their number, each has the same share."""
        parts = self.components
        turns = [part.draws(len(range(i, samples, len(parts))), generator) for i, part in enumerate(parts)]
        return [turns[index % len(parts)][index // len(parts)] for index in range(samples)]

    def distinct(self, samples: int) -> int:
        points = all(isinstance(part, PointMass) for part in self.components)
        return len(self.components) if points else samples

    @property
    def mean(self) -> State:
        """The first component's: networks trained apart have no mean that works."""
        return self.components[0].mean


@torch.no_grad()
def predict(
    network: nn.Module, posterior: Posterior, features: Real[Tensor, "batch time features"], samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "samples batch classes"]:  # fmt: skip
    """Class probabilities under ``samples`` draws of the weights, on the CPU; their mean is equation 12.

    Evaluation mode (dropout off, batch norm by its running statistics), whatever mode the network is in, but for a
    noisy posterior's own randomness, which follows from ``generator`` too. Raises ``ValueError`` for no samples, and
    for features that are not finite.
    """
    if samples < 1:
        raise ValueError(f"predictions need at least 1 sample of the weights, not {samples}")
    drawn = [(on_device_of(network, state), seed) for state, seed in seeded_draws(posterior, samples, generator)]
    batches = []
    with evaluating(network, posterior.noisy):
        for index, batch in enumerate(batches_for(network, features)):
            outputs = []
            for state, seed in drawn:
                if seed is not None:
                    torch.manual_seed(seed + index)
                outputs.append(functional_call(network, state, batch).softmax(dim=-1))
            batches.append(torch.stack(outputs).cpu())
    return torch.cat(batches, dim=1)


def seeded_draws(posterior: Posterior, samples: int, generator: torch.Generator) -> list[tuple[State, int | None]]:
    """Samples of the weights, each with a seed for the network's own randomness, or None where that is off."""
    states = posterior.draws(samples, generator)
    if not posterior.noisy:
        return [(state, None) for state in states]
    seeds = torch.randint(2**62, (samples,), generator=generator, device=generator.device).tolist()
    return list(zip(states, seeds, strict=True))


@contextmanager
def evaluating(network: nn.Module, noisy: bool = False) -> Iterator[None]:
    """Evaluation mode, and afterwards each module's own: frozen batch norm evaluates inside a network that trains.

    A ``noisy`` network keeps its own randomness, which modules have in training mode: there only batch norm evaluates.
    PyTorch's generator, from which that randomness is drawn, is then put back too.
    """
    modes = [(module, module.training) for module in network.modules()]
    with torch.random.fork_rng(enabled=noisy):
        try:
            for module, _ in modes:
                module.training = noisy and not isinstance(module, nn.BatchNorm1d)
            yield
        finally:
            for module, was_training in modes:
                module.training = was_training


def batches_for(
    network: nn.Module, features: Real[Tensor, "batch time features"]
) -> Iterator[Float[Tensor, "_ time features"]]:
    """Some utterances at a time, where and of the type that the network is, in memory as it reads them: time first."""
    own = next(network.parameters())
    widest = max((parameter.shape[0] for parameter in network.parameters() if parameter.ndim > 0), default=1)
    for batch in features.split(max(1, SPIKES_TOGETHER // (features.shape[1] * widest))):
        if not (batch := batch.to(own)).isfinite().all():  # which a neuron would not show: it is silent
            raise ValueError("there are utterances whose features are not finite numbers: take them out")
        yield batch.transpose(0, 1).contiguous().transpose(0, 1)


def network_state(network: nn.Module) -> State:
    """A copy, on the CPU, of the network's parameters and floating-point buffers."""
    return {
        name: tensor.detach().to("cpu", copy=True)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def on_device_of(network: nn.Module, state: State) -> State:
    """Posteriors live on the CPU; what is sampled from them goes where the network is.

    Raises ``ValueError`` for the tensors of another network.
    """
    device, own = device_of(network), network.state_dict()
    for name in state.keys() | {name for name, tensor in own.items() if tensor.is_floating_point()}:
        if name not in state or name not in own or state[name].shape != own[name].shape:
            raise ValueError(f"the posterior is another network's ({name!r} differs): delete its folder, train again")
    return {name: tensor.to(device) for name, tensor in state.items()}


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def to_dict(posterior: Posterior) -> dict:
    """Plain tensors, names and lists, such as ``torch.load(weights_only=True)`` accepts."""
    stored = {"family": type(posterior).__name__}
    for name, value in vars(posterior).items():
        parts = [to_dict(part) for part in value] if isinstance(value, tuple) else None
        stored[name] = parts or (to_dict(value) if isinstance(value, Posterior) else dict(value))
    return stored


def from_dict(stored: Mapping) -> Posterior:
    """The inverse of ``to_dict``. Raises ``ValueError`` for what is not a stored posterior."""
    if (kind := stored.get("family")) not in FAMILIES:
        raise ValueError(f"{kind!r} is not a family of posteriors: expected one of {', '.join(FAMILIES)}")
    fields = {}
    for name, value in stored.items():
        if isinstance(value, list):
            fields[name] = tuple(from_dict(part) for part in value)
        elif name != "family":
            fields[name] = from_dict(value) if "family" in value else value
    return FAMILIES[kind](**fields)


def store(tensors: dict, path: Path) -> None:
    """``torch.save``, whole or not at all; through memory, for on a full disk it does not say what is wrong."""
    written = io.BytesIO()
    torch.save(tensors, written)
    with atomic_write(path) as aside:
        aside.write_bytes(written.getvalue())


def save(posterior: Posterior, path: Path) -> None:
    store(to_dict(posterior), path)


def load(path: Path) -> Posterior:
    """Raises ``ValueError`` for a file that does not hold a whole posterior; nothing in it is executed."""
    try:
        return from_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: delete its folder and train again") from error
    except Exception as error:  # damaged bytes can lead to any
        raise ValueError(f"{path} does not hold a whole posterior: delete its folder and train again") from error
