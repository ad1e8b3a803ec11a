"""A trained network's readout by itself, for the methods that change nothing else."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lib import posteriors
from lib.features import Examples
from lib.network import SpikingClassifier
from lib.posteriors import State


def readout_of(network: SpikingClassifier, state: State) -> nn.Linear:
    """A copy of the readout with the parameters of ``state``.

    Raises ``ValueError`` for a readout that does not end in a linear layer with a bias.
    """
    if type(network).classify is not SpikingClassifier.classify:
        raise ValueError("what changes the readout needs a linear one: choose the readout 'rate'")
    layer = copy.deepcopy(network.readout)
    layer.load_state_dict({name: state[f"readout.{name}"] for name in ("weight", "bias")})
    return layer


@torch.no_grad()
def readout_inputs(network: SpikingClassifier, state: State, examples: Examples) -> Float[Tensor, "utterance units"]:
    """What the readout is given for each of the examples, in evaluation mode."""
    given: list[Tensor] = []
    handle = network.readout.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    try:
        placed = posteriors.on_device_of(network, state)
        with posteriors.evaluating(network):
            for batch in posteriors.batches_for(network, examples.features):
                functional_call(network, placed, batch)
    finally:
        handle.remove()
    return torch.cat(given)
