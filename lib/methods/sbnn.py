"""The spiking Bayesian neural network (Walker, Khajehnejad & Razi 2025, arXiv:2505.17962)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import trainers
from lib.features import Examples
from lib.methods.base import Method, batch_size, learning_rate, patience
from lib.methods.families import NoisyNetwork
from lib.networks import NetworkSettings
from lib.networks.sbnn import DEVIATIONS, StochasticClassifier, signal_to_noise
from lib.neurons.stochastic import SLOPES
from lib.posteriors import PointMass, network_state
from lib.settings import choice, real, setting
from lib.trainers import Objective, learned


@dataclass(frozen=True)
class SBNN(Method, name="sbnn", label="SBNN", colour="#97003C", marker="h"):
    """Adam on cross-entropy, one draw of the spikes a step, plus ``aux_weight`` times ``signal_to_noise``.

    The posterior holds the means and deviations of the weights, of which the network itself draws its spikes. The
    values are those known for spoken digits, but for the patience.
    """

    batch_size: int = batch_size(32)
    learning_rate: float = learning_rate(0.005)
    patience: int = patience(4)
    aux_weight: float = setting(1e-6, real(0, 1e6), search=(1e-7, 1e-4))
    deviation: float = setting(0.5, real(0, 100, above=True), search=[0.25, 0.5, 1.0])
    deviations: str = setting("matrix", choice(*DEVIATIONS), search=["matrix", "weight"])
    slope: str = setting("straight-through", choice(*SLOPES), search=["straight-through", "trapezoid"])

    def network(self, shape: NetworkSettings, num_features: int, num_classes: int) -> StochasticClassifier:
        """A network of LIF neurons, with recurrent connections where the neuron is "rlif".

        Raises ``ValueError`` for a shape that it does not have.
        """
        if shape != NetworkSettings(shape.hidden_sizes, neuron=shape.neuron) or shape.neuron not in ("lif", "rlif"):
            raise ValueError("sbnn has a network of its own: give the neuron 'lif' or 'rlif', and leave the rest out")
        return StochasticClassifier(
            num_features, num_classes, shape.hidden_sizes, recurrent=shape.neuron == "rlif",
            deviation=self.deviation, deviations=self.deviations, slope=self.slope,
        )  # fmt: skip

    def updates(
        self, network: nn.Module, training: Examples, objective: Objective, epochs: int, originals: float
    ) -> trainers.Method:
        optimizer = torch.optim.Adam(learned(network.parameters()), lr=self.learning_rate, fused=True)

        def step(features: Tensor, labels: Tensor) -> Tensor:
            optimizer.zero_grad()
            with network.recording() as responses:
                loss, logits = objective(network, features, labels)
            (loss + self.aux_weight * signal_to_noise(responses)).backward()
            optimizer.step()
            return logits

        return trainers.Method(optimizer, step, posterior=lambda: NoisyNetwork(PointMass(network_state(network))))
