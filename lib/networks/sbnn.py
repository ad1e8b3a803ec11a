"""A spiking Bayesian neural network (Walker, Khajehnejad & Razi 2025, arXiv:2505.17962)."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from lib.network import SpikingClassifier
from lib.neurons.stochastic import SLOPES, Response, drawn_lif, stochastic_lif

# A membrane time constant of 10 steps.
LEAK = math.exp(-1 / 10)
DEVIATIONS = ("matrix", "weight")


class StochasticLayer(nn.Module):
    """Neurons of Gaussian weights. In training mode their spikes are drawn, from torch's own generator.

    In evaluation mode the weights are at their means, and the spikes follow from them. The means of a unit's weights
    are its rows of ``linear.weight`` and ``recurrent`` times its ``gain``; its bias is the weight of an input that is
    always 1. The logarithms of the standard deviations are learned: one for each matrix, or ("weight") one for each
    weight. They start at ``deviation`` over the square root of the matrix's inputs. ``dropout`` is none.
    """

    fires: ClassVar[bool] = True
    groups: ClassVar[dict[str, str]] = {
        "linear": "weights", "gain": "gain", "recurrent": "recurrent",
        "log_deviation": "log_deviation", "recurrent_log_deviation": "recurrent_log_deviation",
    }  # fmt: skip

    def __init__(
        self, num_inputs: int, num_units: int, dropout: float = 0.0,
        *, recurrent: bool, deviation: float, deviations: str, slope: str,
    ):  # fmt: skip
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_units)
        nn.init.zeros_(self.linear.bias)
        self.gain = nn.Parameter(torch.ones(num_units))
        each = deviations == "weight"
        self.log_deviation = _start(deviation, num_inputs, (num_units, num_inputs + 1) if each else ())
        if recurrent:
            bound = num_units**-0.5
            self.recurrent = nn.Parameter(torch.empty(num_units, num_units).uniform_(-bound, bound))
            self.recurrent_log_deviation = _start(deviation, num_units, (num_units, num_units) if each else ())
        self.slope = SLOPES[slope]
        self.outputs, self.binary_inputs = num_units, True
        self.recorded: list[Response] | None = None

    def forward(
        self, inputs: Float[Tensor, "time batch inputs"], fire: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Float[Tensor, "time batch units"]:
        """Spikes; ``fire`` gives them in the place of the layer's own rule (see ``stochastic_lif``)."""
        response = self.response(inputs, fire)
        if self.recorded is not None:
            self.recorded.append(response)
        return response.spikes

    def response(
        self, inputs: Float[Tensor, "time batch inputs"], fire: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Response:
        """The same spikes, and the currents behind them."""
        gain = self.gain[:, None]
        current = linear(inputs, gain * self.linear.weight, self.linear.bias)
        # A spike squared is itself, and the derivative of that form is the exact difference, 1, whatever the spike.
        energy = inputs if self.binary_inputs else inputs.square()
        variances = (2 * self.log_deviation).exp()
        if variances.ndim == 0:
            variance = variances * (1 + energy.sum(dim=-1, keepdim=True))
        else:
            variance = linear(energy, variances[:, :-1], variances[:, -1])
        recurrent = None
        if hasattr(self, "recurrent"):
            variances = (2 * self.recurrent_log_deviation).exp()
            recurrent = gain * self.recurrent, variances.expand_as(self.recurrent)
        if self.training and fire is None:
            return drawn_lif(current, variance, LEAK, recurrent, self.slope)
        return stochastic_lif(current, variance, LEAK, recurrent, fire or at_the_mean)


class StochasticClassifier(SpikingClassifier):
    """Frames to class logits through layers that draw their spikes, and a linear map of mean spikes over time.

    Its posterior is a ``NoisyNetwork``, under which the layers are in training mode and draw. ``slope`` names the
    gradient of a drawn spike (``neurons.stochastic.SLOPES``), ``deviations`` whether a "matrix" or each "weight" has a
    standard deviation. There is neither normalisation nor dropout. Raises ``ValueError`` for an unknown name, and for
    a size or a deviation that is not positive.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        hidden_sizes: Sequence[int] = (256, 256),
        *,
        recurrent: bool = True,
        deviation: float = 0.5,
        deviations: str = "matrix",
        slope: str = "straight-through",
    ):
        for what, name, names in (("deviations", deviations, DEVIATIONS), ("slope", slope, SLOPES)):
            if name not in names:
                raise ValueError(f"unknown {what} {name!r}: choose one of {', '.join(names)}")
        if not 0 < deviation < math.inf:
            raise ValueError(f"weights start with a standard deviation above 0, not {deviation}")

        layer = partial(StochasticLayer, recurrent=recurrent, deviation=deviation, deviations=deviations, slope=slope)
        super().__init__(num_features, num_classes, hidden_sizes, dropout=0.0, layer=layer)
        self.norm = nn.Identity()
        self.layers[0].binary_inputs = False

    @contextmanager
    def recording(self) -> Iterator[list[Response]]:
        """A list to which the layers' responses are added as they come, for what is computed within."""
        responses: list[Response] = []
        for layer in self.layers:
            layer.recorded = responses
        try:
            yield responses
        finally:
            for layer in self.layers:
                layer.recorded = None


def at_the_mean(excess: Tensor, deviation: Tensor) -> Tensor:
    """The spike that there is without noise."""
    return (excess > 0).to(excess.dtype)


def signal_to_noise(responses: Sequence[Response]) -> Float[Tensor, ""]:
    """Squared mean over variance of the current of a step, summed over layers, units and steps; of an utterance.

    The auxiliary loss, as the authors' code for SHD has it. Half of it is the Kullback-Leibler divergence of these
    Gaussians from ones of mean 0 and the same variance. The threshold is not in it: at its minimum spikes are the
    noise's alone, and less probable than one half.
    """
    ratios = [(response.current.square() / response.variance).sum(dim=(0, 2)).mean() for response in responses]
    return torch.stack(ratios).sum()


def _start(deviation: float, inputs: int, shape: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, math.log(deviation) - math.log(inputs) / 2))
