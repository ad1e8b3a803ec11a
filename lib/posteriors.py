"""Posteriors: what weights can be sampled from. Evaluation, slices and every chapter take one as it is.

A *state* is a full set of a network's tensors by name: its parameters and its batch-norm statistics.
``sample`` returns one, and ``torch.func.functional_call`` takes it to the network, which is never changed.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.func import functional_call

from lib.files import written_aside

State = dict[str, Tensor]

# Utterances pass through the network as many together as give its widest layer this many spikes (8 MB): few enough to
# stay in the processor's cache, many enough for the cost of a call not to show.
SPIKES_TOGETHER = 2**21


@runtime_checkable
class Posterior(Protocol):
    def sample(self, generator: torch.Generator) -> State:
        """One full set of the network's tensors."""


@dataclass(frozen=True)
class PointMass:
    """A trained network: every sample is the same."""

    mean: State

    def sample(self, generator: torch.Generator) -> State:
        return dict(self.mean)


@dataclass(frozen=True)
class MeanFieldGaussian:
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


@dataclass(frozen=True)
class Mixture:
    """Equally weighted components, each a posterior: an ensemble."""

    components: tuple[Posterior, ...]

    def sample(self, generator: torch.Generator) -> State:
        choice = torch.randint(len(self.components), (), generator=generator, device=generator.device)
        return self.components[int(choice)].sample(generator)


def network_state(network: nn.Module) -> State:
    """A copy, on the CPU, of the network's parameters and floating-point buffers."""
    return {
        name: tensor.detach().to("cpu", copy=True)
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


@torch.no_grad()
def predict(
    network: nn.Module,
    posterior: Posterior,
    features: Real[Tensor, "batch time features"],
    samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "samples batch classes"]:
    """Class probabilities under ``samples`` draws of the weights; their mean is equation 12.

    Evaluation mode (dropout off, batch norm by its running statistics), whatever mode the network is in;
    the network is left as it was. The probabilities are on the CPU. Raises ``ValueError`` for no samples.
    """
    if samples < 1:
        raise ValueError(f"predictions need at least 1 sample of the weights, not {samples}")
    states = [on_device_of(network, posterior.sample(generator)) for _ in range(samples)]
    with evaluating(network):
        batches = [
            torch.stack([functional_call(network, state, batch).softmax(dim=-1) for state in states]).cpu()
            for batch in batches_for(network, features)
        ]
    return torch.cat(batches, dim=1)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards each module's own: frozen batch norm evaluates inside a network that trains."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
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
        yield batch.to(own).transpose(0, 1).contiguous().transpose(0, 1)


def on_device_of(network: nn.Module, state: State) -> State:
    """Posteriors live on the CPU; what is sampled from them goes where the network is.

    Raises ``ValueError`` for the tensors of another network.
    """
    device, own = device_of(network), network.state_dict()
    for name in state.keys() | {name for name, tensor in own.items() if tensor.is_floating_point()}:
        if name not in state or name not in own or state[name].shape != own[name].shape:
            raise ValueError(
                f"the posterior is another network's ({name!r} differs): delete its folder and train again"
            )
    return {name: tensor.to(device) for name, tensor in state.items()}


def device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


FAMILIES = {"PointMass": PointMass, "MeanFieldGaussian": MeanFieldGaussian}


def to_dict(posterior: Posterior) -> dict:
    """Plain tensors, names and lists, such as ``torch.load(weights_only=True)`` accepts."""
    if isinstance(posterior, Mixture):
        return {"family": "Mixture", "components": [to_dict(component) for component in posterior.components]}
    return {"family": type(posterior).__name__} | {name: dict(value) for name, value in vars(posterior).items()}


def from_dict(stored: Mapping) -> Posterior:
    """The inverse of ``to_dict``. Raises ``ValueError`` for what is not a stored posterior."""
    fields = dict(stored)
    family = fields.pop("family", None)
    if family == "Mixture":
        return Mixture(tuple(from_dict(component) for component in fields["components"]))
    if family not in FAMILIES:
        raise ValueError(f"{family!r} is not a family of posteriors: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[family](**fields)


def save(posterior: Posterior, path: Path) -> None:
    """Write whole or not at all."""
    store(to_dict(posterior), path)


def store(tensors: dict, path: Path) -> None:
    """``torch.save``, whole or not at all; through memory, for on a full disk it does not say what is wrong."""
    written = io.BytesIO()
    torch.save(tensors, written)
    with written_aside(path) as aside:
        aside.write_bytes(written.getbuffer())


def load(path: Path) -> Posterior:
    """Raises ``ValueError`` for a file that does not hold a whole posterior; nothing in it is executed."""
    try:
        return from_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: delete its folder and train again") from error
    except Exception as error:  # damaged bytes can lead to any
        raise ValueError(f"{path} does not hold a whole posterior: delete its folder and train again") from error
