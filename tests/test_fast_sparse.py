"""Products spike by spike against the plain form's, in double precision; when they are taken, what they leave alone."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fast import COMPILED
from torch import nn
from torch.nn.functional import cross_entropy, linear

from lib import network
from lib.fast import sparse
from lib.fast import threads as sharing
from lib.network import SpikingClassifier
from lib.networks import biased
from lib.neurons import NEURONS

# What the norm makes of the currents: no spike, a few, many, and one in nearly every step.
DENSITIES = {"none": (1, -9), "few": (3, -0.6), "many": (8, 1.0), "all": (1, 40)}


def classifier(sizes, density="few", neuron="lif", dropout=0.25, bias=False):
    kind = biased(NEURONS[neuron]) if bias else NEURONS[neuron]
    made = SpikingClassifier(5, 4, sizes, dropout, kind).double()
    weight, shift = DENSITIES[density]
    for layer in made.layers:
        nn.init.constant_(layer.norm.weight, weight)
        nn.init.constant_(layer.norm.bias, shift)
    return made


def minibatch(batch, time):
    return torch.randn(batch, time, 5, dtype=torch.float64), torch.arange(batch) % 4


def one_step(
    made, features, labels, loss=lambda made, trains, labels: cross_entropy(made.classify(trains[-1]), labels)
):
    """The trains, and the gradients of all parameters and of the features."""
    made, features = copy.deepcopy(made), features.clone().requires_grad_()
    torch.manual_seed(7)
    trains = made.hidden_spikes(features)
    loss(made, trains, labels).backward()
    gradients = {"features": features.grad} | {name: tensor.grad for name, tensor in made.named_parameters()}
    return [train.detach() for train in trains], gradients


@pytest.fixture
def plainly(monkeypatch):
    """A step without any kernel."""

    def step(*given):
        with monkeypatch.context() as patch:
            patch.setattr(network, "fast", None)
            return one_step(*given)

    return step


@pytest.fixture
def always(monkeypatch):
    """Every product goes by events, however many there are."""
    monkeypatch.setattr(sparse, "pays", lambda *_: True)


def assert_same(found, expected, tolerance=1e-11):
    for train, reference in zip(found[0], expected[0], strict=True):
        assert torch.equal(train, reference)
    for name, reference in expected[1].items():
        if reference is None:
            assert found[1][name] is None
        else:
            scale = max(1e-3, float(reference.abs().max()))
            torch.testing.assert_close(found[1][name], reference, rtol=0, atol=tolerance * scale, msg=name)


@pytest.mark.parametrize("neuron", COMPILED)
@pytest.mark.parametrize("density", DENSITIES)
def test_from_no_spike_to_one_in_every_step_a_step_is_the_plain_form_s(always, plainly, density, neuron):
    made, (features, labels) = classifier((37, 21, 18), density, neuron), minibatch(6, 35)
    found, expected = one_step(made, features, labels), plainly(made, features, labels)
    assert_same(found, expected)
    rate = float((expected[0][0] > 0).double().mean())
    low, high = {"none": (0, 0), "few": (0.005, 0.1), "many": (0.1, 0.7), "all": (0.7, 1)}[density]
    assert low <= rate <= high or (neuron, density) not in {("lif", name) for name in DENSITIES}


@settings(max_examples=60)
@given(
    time=st.integers(1, 34), batch=st.integers(1, 4), inputs=st.integers(1, 40), units=st.integers(1, 150),
    rate=st.sampled_from([0.0, 0.02, 0.3, 1.0]), bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_three_products_are_those_of_any_sizes(time, batch, inputs, units, rate, bias, seed):
    torch.manual_seed(seed)
    fires, wants = (torch.rand(time, batch, inputs) < rate for _ in range(2))
    train, wanted = 1.25 * fires.double(), torch.zeros(time, batch, inputs, dtype=torch.float64, requires_grad=True)
    weight, grad = torch.randn(units, inputs, dtype=torch.float64), torch.randn(time, batch, units, dtype=torch.float64)
    weight.requires_grad_()
    offset = torch.randn(units, dtype=torch.float64, requires_grad=True) if bias else None
    events = sparse.Events(words_of(fires), words_of(wants), 1.25, wanted, 0.0, 0.0, train._version)
    weighted = sparse._Product.apply(train, wanted, weight, offset, events)
    torch.testing.assert_close(weighted, linear(train, weight, offset))
    asked = [wanted, weight, *([offset] if bias else [])]
    by_train, by_weight, *by_bias = torch.autograd.grad(weighted, asked, grad)
    torch.testing.assert_close(by_train, (grad @ weight.detach()) * wants)
    torch.testing.assert_close(by_weight, grad.flatten(0, 1).T @ train.flatten(0, 1))
    assert not bias or torch.allclose(by_bias[0], grad.sum(dim=(0, 1)))


def words_of(flags):
    """Words [batch, words, units] of flags [time, batch, units], by numpy: the earliest step is the lowest bit."""
    padded = np.pad(flags.numpy(), ((0, -len(flags) % 16), (0, 0), (0, 0))).reshape(-1, 16, *flags.shape[1:])
    return (
        torch.from_numpy((padded * (1 << np.arange(16))[:, None, None]).sum(axis=1).astype(np.uint16))
        .transpose(0, 1)
        .contiguous()
    )


def test_neurons_write_down_what_they_do():
    layer, train = NEURONS["lif"](5, 9, 0.3), torch.randn(20, 3, 5)
    nn.init.constant_(layer.norm.weight, 4)
    spikes = layer(train)
    events = spikes.events
    assert torch.equal(events.fired, words_of(spikes > 0))
    potential = network.lif_potential(layer.normalised(layer.linear(train)), layer.held("leak"))
    near = network.boxcar(potential).bool()
    wanting = events.wanting.numpy()
    passed = sum(int(word).bit_count() for word in wanting.ravel())
    assert not (wanting & ~words_of(near).numpy()).any()  # only where the boxcar is open
    assert passed == pytest.approx(0.7 * int(near.sum()), rel=0.15)  # less what drops out
    assert (events.spiking, events.opened) == (float((spikes > 0).double().mean()), passed / spikes.numel())


def test_single_precision_gives_the_same_spikes_and_gradients_to_rounding(always, plainly):
    made, (features, labels) = classifier((130, 70)).float(), minibatch(8, 40)
    found, expected = one_step(made, features.float(), labels), plainly(made, features.float(), labels)
    if all(map(torch.equal, found[0], expected[0])):  # no input lies within rounding of the threshold here
        assert_same(found, expected, 2e-5)
    else:
        assert sum(int((own != other).sum()) for own, other in zip(found[0], expected[0], strict=True)) < 20


def penalised(made, trains, labels):
    """A loss that asks for the spikes of every layer too."""
    return cross_entropy(made.classify(trains[-1]), labels) + sum(train.square().sum() for train in trains) / 99


@pytest.mark.parametrize("bias", [False, True])
def test_a_loss_of_the_spikes_themselves_adds_its_gradient(always, plainly, bias):
    made, given = classifier((20, 15, 10), bias=bias), (*minibatch(4, 20), penalised)
    assert_same(one_step(made, *given), plainly(made, *given))


@pytest.mark.parametrize("frozen", ["layers.0", "layers.1.linear", "layers.1", "readout"])
def test_parameters_that_stand_still_get_no_gradient(always, plainly, frozen):
    made, given = classifier((20, 15)), minibatch(4, 20)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))
    assert_same(one_step(made, *given), plainly(made, *given))


def test_a_single_utterance_and_evaluation_are_no_exception(always, plainly):
    made, given = classifier((37, 21)).eval(), minibatch(1, 50)
    assert_same(one_step(made, *given), plainly(made, *given))


def keeps_gradients(made, trains, labels):
    for train in trains:
        train.retain_grad()
    made.kept = trains
    return cross_entropy(made.classify(trains[-1]), labels)


def test_a_train_that_keeps_its_gradient_gets_all_of_it(always, plainly):
    made, given, found = classifier((20, 15)), minibatch(4, 20), []

    def loss(made, trains, labels):
        found.append(trains)
        return keeps_gradients(made, trains, labels)

    assert_same(one_step(made, *given, loss), plainly(made, *given, loss))
    for train, reference in zip(*found, strict=True):
        torch.testing.assert_close(train.grad, reference.grad)


def test_a_train_that_is_changed_is_heard_as_it_is(always):
    first, second = classifier((20, 15)).layers
    train, other = (first(minibatch(3, 20)[0].transpose(0, 1)).detach() for _ in range(2))
    for each in (train, other):
        each.events = first(minibatch(3, 20)[0].transpose(0, 1)).events  # another train's, to be told apart
        each.events.version = each._version
    by_events = second.eval().linear(train), sparse.weighed(second.linear, train)
    assert not torch.allclose(*by_events)
    train.mul_(1)
    torch.testing.assert_close(second.linear(train), sparse.weighed(second.linear, train))
    torch.testing.assert_close(second.linear(other.double() * 1), sparse.weighed(second.linear, other * 1))


def test_without_gradients_nothing_is_kept_for_them():
    layer, train = classifier((20,)).layers[0], minibatch(3, 20)[0].transpose(0, 1)
    with torch.no_grad():
        assert len(layer(train).events.wanting) == 0
    with torch.inference_mode():  # in which nobody sees a train change
        assert not hasattr(layer(train), "events")


def test_nothing_is_kept_alive_by_what_it_keeps(always):
    made, (features, labels) = classifier((20, 15)), minibatch(4, 20)
    trains = made.hidden_spikes(features)
    loss, events = cross_entropy(made.classify(trains[-1]), labels), [weakref.ref(train.events) for train in trains]
    gc.collect()
    gc.disable()
    try:
        loss.backward()
        del loss, trains
        assert [each() for each in events] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("product", ["_weigh", "_by_weight", "_by_train"])
@pytest.mark.parametrize(("density", "taken"), [("none", True), ("all", False)])
def test_the_dense_product_is_taken_where_events_are_too_many(monkeypatch, product, density, taken):
    called, kernel = [], getattr(sparse, product)
    monkeypatch.setattr(sparse, product, lambda *given: called.append(product) or kernel(*given))
    made, given = classifier((64, 64), density), minibatch(4, 20)
    if product == "_by_train" and not taken:  # a boxcar is open where a potential is near its threshold
        nn.init.constant_(made.layers[0].norm.weight, 0.01)
        nn.init.constant_(made.layers[0].norm.bias, 1.0)
    one_step(made, *given)
    assert bool(called) == taken


def test_what_pays_grows_with_the_rows():
    assert not sparse.pays(0.2, sparse.FORWARD, 128)
    assert sparse.pays(0.2, sparse.FORWARD, 1024)
    assert sparse.pays(0.0, sparse.BY_TRAIN, 1)


@pytest.mark.parametrize("neuron", COMPILED)
def test_the_number_of_threads_changes_no_bit(monkeypatch, always, neuron):
    made, given, found = classifier((33, 20), "few", neuron).float(), minibatch(7, 20), []
    given = given[0].float(), given[1]
    monkeypatch.setattr(sharing, "ELEMENTS_PER_THREAD", 1)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(1)
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)  # BLAS keeps to one
            found.append(one_step(made, *given))
    finally:
        monkeypatch.undo()
        torch.set_num_threads(before)
    for trains, gradients in found[1:]:
        assert all(map(torch.equal, trains, found[0][0]))
        assert all(torch.equal(gradient, found[0][1][name]) for name, gradient in gradients.items())
