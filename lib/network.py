"""The paper's network (its section 4): leaky integrate-and-fire neurons behind linear maps, read out by their rates.

Features are [batch, time, features] and spike trains [time, batch, units]: time comes first where it is looped over.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

try:  # compiled kernels that compute the same; without them everything runs as it is written here
    from lib import fast
except ImportError:
    fast = None

# A leak is exp(-1 / time constant): here of 0.8 to 100 steps. Other ranges are compared in the book's chapter on it.
LEAK_RANGE = (0.3, 0.99)
MOMENTUM = 0.05  # of batch norm's running statistics, as in the baseline
WORDS = 2**32


def lif(
    current: Float[Tensor, "time batch units"], leak: Float[Tensor, " units"], threshold: float = 1.0
) -> Float[Tensor, "time batch units"]:
    """Spikes (0 or 1) of leaky integrate-and-fire neurons that start from rest.

    Equations 1 and 2, with the baseline's reset by subtraction and input gain. The gradient passes through every use
    of a spike, the reset too, by the boxcar.
    """
    return over_time(_lif_step(leak, threshold), current)[0]


@torch.no_grad()
def lif_potential(
    current: Float[Tensor, "time batch units"], leak: Float[Tensor, " units"], threshold: float = 1.0
) -> Float[Tensor, "time batch units"]:
    """The membrane potentials behind ``lif``, before each reset."""
    return over_time(_lif_step(leak, threshold), current)[1]


def _lif_step(leak: Float[Tensor, " units"], threshold: float) -> Callable[..., tuple[Tensor, Tensor]]:
    def advance(step, potential, spike):
        potential = leak * (potential - spike) + (1 - leak) * step  # equation 1
        return potential, fire(potential, threshold)  # equation 2

    return advance


def over_time(
    advance: Callable[..., tuple[Tensor, ...]], current: Float[Tensor, "time batch units"], memories: int = 0
) -> tuple[Float[Tensor, "time batch units"], Float[Tensor, "time batch units"]]:
    """Spikes of neurons that start from rest, and their potentials before each reset.

    ``advance(current, potential, spike, *memory)`` takes a time step's current, and the state that the step before has
    left, to the next state of the same form; ``memories`` counts what another neuron has beside the first two.
    """
    state, spikes, potentials = (torch.zeros_like(current[:1]),) * (2 + memories), [], []
    for step in current.split(1):
        state = advance(step, *state)
        potentials.append(state[0])
        spikes.append(state[1])
    return torch.cat(spikes), torch.cat(potentials)


def boxcar(potential: Float[Tensor, "..."], threshold: float = 1.0) -> Float[Tensor, "..."]:
    """The surrogate derivative of a spike: 1 within half a unit of the threshold, else 0."""
    return ((potential - threshold).abs() <= 0.5).to(potential.dtype)


def fire(potential: Float[Tensor, "..."], threshold: float = 1.0) -> Float[Tensor, "..."]:
    """Spikes, 1 where the potential is above the threshold, whose derivative is the boxcar."""
    return _Fire.apply(potential, threshold)


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, potential, threshold):
        ctx.save_for_backward(potential)
        ctx.threshold = threshold
        return (potential > threshold).to(potential.dtype)

    @staticmethod
    def backward(ctx, grad):
        (potential,) = ctx.saved_tensors
        return grad * boxcar(potential, ctx.threshold), None


class SpikingLayer(nn.Module):
    """Linear map, batch normalisation, LIF neurons, dropout on their spikes.

    Another neuron is a subclass: it adds parameters, overrides ``spikes``, and says in ``ranges`` between what its
    parameters lie, and in ``groups`` what each does. What is learnt of such a parameter (``raw_leak`` of ``leak``) is
    the logit of its place in the range, which has a gradient everywhere; unless ``bounded`` it is the value itself.
    ``kernel`` names the compiled form in ``fast``; a subclass does not inherit it, and without one of its own takes the
    plain way. Leaks start evenly spread.
    """

    ranges: ClassVar[dict[str, tuple[float, float]]] = {"leak": LEAK_RANGE}
    groups: ClassVar[dict[str, str]] = {"linear": "weights", "norm": "norm", "raw_leak": "leak"}
    kernel: ClassVar[str] = "lif"
    fires: ClassVar[bool] = True
    bias: ClassVar[bool] = False  # of the linear map, before the norm, which has its own

    def __init__(self, num_inputs: int, num_units: int, dropout: float = 0.1):
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_units, bias=self.bias)
        self.norm = nn.BatchNorm1d(num_units, momentum=MOMENTUM)
        self.raw_leak = self.spread("leak", num_units)
        self.dropout, self.outputs, self.bounded = dropout, num_units, True

    def forward(self, train: Float[Tensor, "time batch inputs"]) -> Float[Tensor, "time batch units"]:
        seed = int(torch.randint(WORDS, ())) if self.training and self.dropout > 0 else None
        spikes = fast.spikes(self, train, seed) if fast else None
        return self.plain(self.linear(train).to(self.raw_leak), seed) if spikes is None else spikes

    def plain(
        self, weighted: Float[Tensor, "time batch units"], seed: int | None = None
    ) -> Float[Tensor, "time batch units"]:
        """What follows the linear map, in PyTorch's own operations; ``seed`` is dropout's, None where that is off."""
        spikes = self.spikes(self.normalised(weighted))
        if seed is None:
            return spikes
        return spikes * survivors(seed, self.dropout, weighted) * (1 / (1 - self.dropout))

    def spikes(self, current: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        """The neurons' answer to their input current."""
        return lif(current, self.leak)

    def normalised(self, weighted: Float[Tensor, "time batch units"]) -> Float[Tensor, "time batch units"]:
        """The norm, over all time steps of all utterances as examples.

        Batch statistics are summed in double precision: brought back to single precision, they do not show the order
        of the terms, in which the kernels differ.
        """
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm1d):
            return norm(weighted.flatten(0, 1)).view_as(weighted)
        mean, variance = norm.running_mean, norm.running_var
        if norm.training:
            exact = weighted.double()
            mean = exact.mean(dim=(0, 1)).to(weighted.dtype)
            variance = exact.var(dim=(0, 1), correction=0).to(weighted.dtype)
            self.move_statistics(mean.detach(), variance.detach(), weighted.shape[0] * weighted.shape[1])
        factor = norm.weight * torch.rsqrt(variance + norm.eps)
        return weighted * factor + (norm.bias - mean * factor)

    def move_statistics(self, mean: Float[Tensor, " units"], variance: Float[Tensor, " units"], examples: int) -> None:
        """Move batch norm's running statistics, as ``nn.BatchNorm1d`` does; ``ValueError`` for a single example."""
        if examples < 2:
            raise ValueError("batch statistics need more than one value for each unit: train on larger batches")
        self.norm.running_mean.lerp_(mean, self.norm.momentum)
        self.norm.running_var.lerp_(variance * (examples / (examples - 1)), self.norm.momentum)
        self.norm.num_batches_tracked.add_(1)

    @property
    def leak(self) -> Float[Tensor, " units"]:
        return self.held("leak")

    def held(self, name: str) -> Float[Tensor, " units"]:
        """A parameter of the neurons: a value in its range."""
        return self.within(name, getattr(self, f"raw_{name}"))

    def within(self, name: str, raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The value that is meant by what is learnt."""
        low, high = self.ranges[name]
        return low + (high - low) * raw.sigmoid() if self.bounded else raw

    def spread(self, name: str, num_units: int) -> nn.Parameter:
        """What is learnt of a new parameter of the neurons, evenly spread over its range by chance."""
        return nn.Parameter(torch.rand(num_units).logit(1e-4))


class SpikingClassifier(nn.Module):
    """Frames to class logits: hidden layers, and a linear readout of the last one's mean spikes over time.

    ``layer(inputs, units, dropout)`` makes a hidden layer. Raises ``ValueError`` for a size that is not positive or a
    dropout outside [0, 1).
    """

    kernel: ClassVar[str] = "rates"

    def __init__(
        self, num_features: int, num_classes: int, hidden_sizes: Sequence[int] = (128, 128), dropout: float = 0.1,
        layer: Callable[[int, int, float], nn.Module] = SpikingLayer,
    ):  # fmt: skip
        super().__init__()
        if not hidden_sizes or min(num_features, num_classes, *hidden_sizes) < 1:
            raise ValueError("a network needs at least one hidden layer, and every size at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability between 0 and 1, and below 1, not {dropout}")
        self.layers, inputs = nn.ModuleList(), num_features
        for units in hidden_sizes:
            self.layers.append(layer(inputs, units, dropout))
            inputs = self.layers[-1].outputs
        self.dropout = nn.Dropout(dropout)
        self.make_readout(inputs, num_classes)

    def make_readout(self, inputs: int, num_classes: int) -> None:
        """What ``classify`` needs of parameters: another readout is a subclass that overrides both."""
        self.norm = nn.BatchNorm1d(inputs, momentum=MOMENTUM)
        self.readout = nn.Linear(inputs, num_classes)

    @property
    def fires(self) -> bool:
        """Whether every hidden layer spikes."""
        return all(layer.fires for layer in self.layers)

    def forward(self, features: Float[Tensor, "batch time features"]) -> Float[Tensor, "batch classes"]:
        rates = fast.rates(self, features) if fast else None
        return self.classify(self.hidden_spikes(features)[-1] if rates is None else rates[None])

    def hidden_spikes(self, features: Float[Tensor, "batch time features"]) -> list[Float[Tensor, "time batch _"]]:
        """The spike trains of each hidden layer, first to last."""
        trains = [features.transpose(0, 1)]
        for layer in self.layers:
            trains.append(layer(trains[-1]))
        return trains[1:]

    def classify(self, train: Float[Tensor, "time batch units"]) -> Float[Tensor, "batch classes"]:
        """Logits from the last hidden layer's spikes: equation 3 takes their means, equation 4 reads them out."""
        return self.readout(self.dropout(self.norm(train.sum(dim=0) / len(train))))


def survivors(seed: int, dropout: float, like: Float[Tensor, "time batch units"]) -> Bool[Tensor, "time batch units"]:
    """Which spikes dropout leaves: those whose 32-bit hash of seed, time step, example and unit is high enough.

    A kernel can draw the same numbers where it needs them, and need not keep them for the way back.
    """
    time, batch, units = like.shape
    golden = 0x9E3779B9  # 2**32 over the golden ratio: spreads successive units over all 32 bits
    rows = mixed(torch.arange(time * batch, device=like.device) ^ seed)
    words = mixed((rows[:, None] + torch.arange(units, device=like.device) * golden) % WORDS)
    return (words >= int(dropout * WORDS)).view(like.shape)


def mixed(words: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """MurmurHash3's finaliser (Appleby 2011) on numbers below 2**32: each bit of the input flips half of the output."""
    words = (words ^ (words >> 16)) * 0x85EBCA6B % WORDS
    words = (words ^ (words >> 13)) * 0xC2B2AE35 % WORDS
    return words ^ (words >> 16)
