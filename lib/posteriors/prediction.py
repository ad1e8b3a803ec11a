"""From a posterior to predictions: sampled weights in a network, which is left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn
from torch.func import functional_call

from lib.posteriors.families import Mixture, NoisyNetwork, PointMass, Posterior, State

# Utterances pass through the network as many together as give its widest layer this many spikes (8 MB): few enough to
# stay in the processor's cache, many enough for the cost of a call not to show.
SPIKES_TOGETHER = 2**21


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

    Evaluation mode (dropout off, batch norm by its running statistics), whatever mode the network is in, but for a
    ``NoisyNetwork``'s own randomness, which follows from ``generator`` as the weights do. The network is left as it
    was. The probabilities are on the CPU. Raises ``ValueError`` for no samples.
    """
    if samples < 1:
        raise ValueError(f"predictions need at least 1 sample of the weights, not {samples}")
    drawn = [(on_device_of(network, state), seed) for state, seed in draws(posterior, samples, generator)]
    with evaluating(network, noisy=isinstance(posterior, NoisyNetwork)):
        batches = []
        for index, batch in enumerate(batches_for(network, features)):
            outputs = []
            for state, seed in drawn:
                if seed is not None:
                    torch.manual_seed(seed + index)
                outputs.append(functional_call(network, state, batch).softmax(dim=-1))
            batches.append(torch.stack(outputs).cpu())
    return torch.cat(batches, dim=1)


def draws(posterior: Posterior, samples: int, generator: torch.Generator) -> list[tuple[State, int | None]]:
    """Samples of the weights, each with a seed for the network's own randomness, or None where that is off.

    The components of a mixture take turns: where ``samples`` is a multiple of their number, each has the same share.
    """
    if isinstance(posterior, NoisyNetwork):
        states = [state for state, _ in draws(posterior.weights, samples, generator)]
        seeds = torch.randint(2**62, (samples,), generator=generator, device=generator.device).tolist()
        return list(zip(states, seeds, strict=True))
    if isinstance(posterior, Mixture):
        parts = posterior.components
        turns = [draws(part, len(range(i, samples, len(parts))), generator) for i, part in enumerate(parts)]
        return [turns[index % len(parts)][index // len(parts)] for index in range(samples)]
    return [(posterior.sample(generator), None) for _ in range(samples)]


def samples_needed(posterior: Posterior, samples: int) -> int:
    """``samples``, but no more than there are different ones: 1 of a point, of an ensemble of points one of each."""
    if isinstance(posterior, PointMass):
        return 1
    if isinstance(posterior, Mixture) and all(isinstance(part, PointMass) for part in posterior.components):
        return len(posterior.components)
    return samples


def centre(posterior: Posterior) -> State:
    """The posterior's mean; of a mixture its first component's."""
    return centre(posterior.components[0]) if isinstance(posterior, Mixture) else posterior.mean


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
