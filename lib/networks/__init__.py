"""What comes beside the paper's network: its neurons, non-spiking baselines, other readouts, norms and directions.

``lib.network`` builds the paper's own; ``build`` builds any, by its settings. Another network is a file, and a line of
``NETWORKS``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.network import MOMENTUM, SpikingClassifier, SpikingLayer
from lib.networks.baselines import GRU, MLP, RNN, LiGRU
from lib.networks.readouts import NonSpikingSoftmaxReadout, SoftmaxReadout
from lib.neurons import NEURONS
from lib.neurons.clamped import Clamped, clamped, with_leaks
from lib.settings import BOOLEAN, Range, Settings, choice, optional, real, setting, several, whole

# From the name of a network to its hidden layers, which the settings may tell apart further.
NETWORKS: dict[str, Callable[["NetworkSettings"], type[nn.Module]]] = {
    "spiking": lambda shape: NEURONS[shape.neuron],
    "mlp": lambda shape: MLP,
    "rnn": lambda shape: RNN,
    "ligru": lambda shape: LiGRU,
    "gru": lambda shape: GRU,
}
NORMS = ("batch", "layer", "none")
INTERVAL = Range(
    lambda value: several(real(0, 1)).fits(value) and len(value) == 2 and value[0] < value[1],
    "two numbers from 0 to 1, the lower one first",
)


@dataclass(frozen=True)
class NetworkSettings(Settings):
    """What determines a network beside the sizes of its data and its method's dropout.

    ``neuron`` is the spiking network's. ``leaks`` says what holds its neurons' parameters to their ranges: a "sigmoid",
    or the baseline's "clamp", which has the baseline's range of leaks too; ``leak_range`` puts another in its place.
    ``leak_start`` says between what the leaks begin, evenly spread: None is all of their range.
    ``readout`` is "rate", the paper's linear map of normalised means over time, or "softmax", the baseline's; ``norm``,
    of the readout too, is that of ``normaliser``; ``bias`` gives one to the linear maps that otherwise have none.
    ``bidirectional`` layers hear each sequence backwards too, with the same weights; each unit then has two outputs.
    """

    hidden_sizes: Sequence[int] = setting([128, 128], several(whole(1, 100_000)))
    network: str = setting("spiking", choice(*NETWORKS))
    neuron: str = setting("lif", choice(*NEURONS))
    leaks: str = setting("sigmoid", choice("sigmoid", "clamp"), before="clamp")
    leak_range: Sequence[float] | None = setting(None, optional(INTERVAL), before=None)
    leak_start: Sequence[float] | None = setting(None, optional(INTERVAL), before=None)
    readout: str = setting("rate", choice("rate", "softmax"))
    norm: str = setting("batch", choice(*NORMS))
    bias: bool = setting(False, BOOLEAN)
    bidirectional: bool = setting(False, BOOLEAN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network == "mlp" and self.bidirectional:
            raise ValueError("an MLP has no direction of time: leave bidirectional at False, or choose another network")
        if self.network != "spiking" and (self.neuron != "lif" or self.leak_range or self.leak_start):
            own = "neuron, leak_range and leak_start"
            raise ValueError(f"{self.network} has no spiking neurons: leave {own} out, or make the network 'spiking'")
        if self.leak_start:
            low, high = neurons_of(self).ranges["leak"]
            if not low <= self.leak_start[0] < self.leak_start[1] <= high:
                raise ValueError(f"leak_start = {self.leak_start} must lie in the leaks' range, {low:g} to {high:g}")


def neurons_of(shape: NetworkSettings) -> type[nn.Module]:
    """The kind of hidden layer that some settings name, its leaks in their range."""
    kind = NETWORKS[shape.network](shape)
    if shape.network == "spiking":
        kind = clamped(kind) if shape.leaks == "clamp" else kind
        kind = with_leaks(kind, *shape.leak_range) if shape.leak_range else kind
    return kind


def build(shape: NetworkSettings, num_features: int, num_classes: int, dropout: float = 0.1) -> SpikingClassifier:
    """The network of some settings, its weights drawn from PyTorch's own generator."""
    kind, classifier = neurons_of(shape), SpikingClassifier
    if shape.readout == "softmax":
        classifier = SoftmaxReadout if kind.fires else NonSpikingSoftmaxReadout
    if shape.bias:
        kind = biased(kind)
        classifier = classifier if classifier is SpikingClassifier else biased(classifier)

    def layer(num_inputs: int, num_units: int, dropout: float) -> nn.Module:
        made = kind(num_inputs, num_units, dropout)
        if shape.leak_start:
            made.raw_leak = leaks_between(made, *shape.leak_start)
        maps = made.linear.out_features
        made.norm = normaliser(shape.norm, maps, groups=maps // num_units)
        return both_directions(made) if shape.bidirectional else made

    network = classifier(num_features, num_classes, shape.hidden_sizes, dropout, layer)
    network.norm = normaliser(shape.norm, network.norm.num_features)
    return network


def leaks_between(layer: SpikingLayer, low: float, high: float) -> nn.Parameter:
    """What a layer learns of its leaks, where these are evenly spread from ``low`` to ``high`` by chance."""
    bottom, top = layer.ranges["leak"]
    leaks = torch.empty_like(layer.raw_leak).uniform_(low, high)
    return nn.Parameter(leaks if isinstance(layer, Clamped) else ((leaks - bottom) / (top - bottom)).logit(1e-4))


def normaliser(kind: str, units: int, groups: int = 1) -> nn.Module:
    """Batch norm, layer norm (over each of ``groups`` of the units alone) or none, over [examples, units]."""
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return nn.BatchNorm1d(units, momentum=MOMENTUM)
    return nn.LayerNorm(units) if groups == 1 else Grouped(nn.LayerNorm(units // groups) for _ in range(groups))


class Grouped(nn.ModuleList):
    """Each of the norms on its own share of the units; ``nn.GroupNorm`` does the same ten times as slowly on a CPU."""

    def forward(self, inputs: Float[Tensor, "examples units"]) -> Float[Tensor, "examples units"]:
        return torch.cat([norm(part) for norm, part in zip(self, inputs.chunk(len(self), dim=-1), strict=True)], dim=-1)


@cache
def biased(kind: type[nn.Module]) -> type[nn.Module]:
    """The same kind of layer or readout, its linear map with a bias, and computed by the same kernel."""
    return type(f"Biased{kind.__name__}", (kind,), {"bias": True, "kernel": vars(kind).get("kernel")})


def both_directions(layer: nn.Module) -> nn.Module:
    """Let a layer hear each sequence backwards too, with the same weights: it then has two outputs for each unit."""

    def with_reversed(layer: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return torch.cat([inputs[0], inputs[0].flip(0)], dim=1)

    def side_by_side(layer: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> Tensor:
        forwards, backwards = outputs.chunk(2, dim=1)
        return torch.cat([forwards, backwards.flip(0)], dim=2)

    layer.outputs *= 2
    layer.register_forward_pre_hook(with_reversed)
    layer.register_forward_hook(side_by_side)
    return layer
