"""The network in spyx: linear maps and normalisation over all time steps, LIF scanned, one compiled step with Adam.

The boxcar is the cheapest of its surrogate gradients, and "rbg" of JAX's generators on a CPU.
"""

from collections.abc import Callable

import jax
import optax
from flax import nnx
from spyx import axn
from spyx.nn import LIF
from torch import Tensor

from lib.benchmark import CLASSES, DROPOUT, INPUTS
from lib.network import MOMENTUM


class Classifier(nnx.Module):
    """Features [time, batch, features] to logits [batch, classes], by the mean spikes of the last layer."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        sizes = (INPUTS, width), (width, width)
        self.linears = nnx.List([nnx.Linear(*size, use_bias=False, rngs=rngs) for size in sizes])
        self.norms = nnx.List([nnx.BatchNorm(width, momentum=1 - MOMENTUM, rngs=rngs) for _ in sizes])
        self.neurons = nnx.List([LIF((width,), activation=axn.boxcar(), rngs=rngs) for _ in sizes])
        self.dropout, self.readout = nnx.Dropout(DROPOUT, rngs=rngs), nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, train: jax.Array) -> jax.Array:
        time, batch, _ = train.shape
        for linear, norm, neurons in zip(self.linears, self.norms, self.neurons, strict=True):
            current = norm(linear(train.reshape(time * batch, -1))).reshape(time, batch, -1)
            over_time = lambda potential, now, neurons=neurons: neurons(now, potential)[::-1]  # noqa: E731
            train = self.dropout(jax.lax.scan(over_time, neurons.initial_state(batch), current)[1])
        return self.readout(train.mean(axis=0))


class Network:
    """A classifier's weights, and the rest of its state, which steps replace."""

    def __init__(self, width: int):
        rngs = nnx.Rngs(jax.random.key(0, impl="rbg"))
        self.graph, self.weights, self.rest = nnx.split(Classifier(width, rngs), nnx.Param, ...)

    def parameters(self) -> list[jax.Array]:
        return jax.tree.leaves(self.weights)

    def adam_step(self, features: Tensor, labels: Tensor, learning_rate: float) -> Callable[[], float]:
        """A call that makes one update, compiled as a whole, and returns the loss before it."""
        adam = optax.chain(optax.add_decayed_weights(1e-5), optax.adam(learning_rate))
        train, labels, moments = features.transpose(0, 1).numpy(), labels.numpy(), adam.init(self.weights)
        train, labels = jax.device_put((train, labels))

        def loss(weights, rest):
            classifier = nnx.merge(self.graph, weights, rest, copy=True)
            losses = optax.softmax_cross_entropy_with_integer_labels(classifier(train), labels)
            return losses.mean(), nnx.state(classifier, nnx.Not(nnx.Param))

        def update(weights, rest, moments):
            (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(weights, rest)
            updates, moments = adam.update(gradients, moments, weights)
            return value, optax.apply_updates(weights, updates), rest, moments

        compiled = jax.jit(update, donate_argnums=(0, 1, 2))

        def step():
            nonlocal moments
            value, self.weights, self.rest, moments = compiled(self.weights, self.rest, moments)
            return value.item()

        return step
