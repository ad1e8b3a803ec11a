"""Gradients by enumeration against finite differences, sampling, and what theory says of each estimator."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from lib import estimators
from lib.estimators import compare, estimates, exact_gradient, expected_loss, hidden_parameters, patterns, random_case

SHAPE = {"hidden_sizes": (2, 1), "time": 3, "features": 2, "classes": 2}


@pytest.fixture(params=[0.3, 1.0])
def case(request):
    return random_case(request.param, 0, **SHAPE)


def test_the_exact_gradient_is_the_expected_loss_s_finite_difference(case):
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in hidden_parameters(case).items()}

    def loss(*tensors):
        return expected_loss(dict(zip(parameters, tensors, strict=True)), case)

    tensors = tuple(parameters.values())
    assert torch.autograd.gradcheck(loss, tensors, rtol=1e-6, atol=1e-9)
    exact = exact_gradient(case)
    assert exact.norm() > 1e-3
    torch.testing.assert_close(exact, torch.cat([g.flatten() for g in torch.autograd.grad(loss(*tensors), tensors)]))


def test_the_expected_loss_and_the_mean_of_an_estimator_are_those_of_sampling(case):
    # What training does, many times in a batch: its mean loss and its gradient.
    copies = 40_000
    network = case.network.train().requires_grad_(True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        logits = network(case.features.expand(copies, -1, -1))
    loss = cross_entropy(logits, case.label.expand(copies))
    sampled = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.layers.parameters()))])
    network.requires_grad_(False)
    gradients, probabilities = estimates(case)["straight-through"]
    mean = probabilities @ gradients
    variance = probabilities @ (gradients - mean).square()
    assert float(loss.detach()) == pytest.approx(float(expected_loss(hidden_parameters(case), case)), abs=0.02)
    assert ((sampled - mean).abs() <= 5 * (variance / copies).sqrt() + 1e-12).all()


def test_every_pattern_is_listed_once_and_the_score_function_has_no_bias(case):
    listed = patterns(case)
    assert listed.shape == listed.unique(dim=0).shape == (2**9, 9)
    found = estimates(case)
    for _, probabilities in found.values():
        assert float(probabilities.sum()) == pytest.approx(1)
    gradients, probabilities = found["score function"]
    torch.testing.assert_close(probabilities @ gradients, exact_gradient(case), rtol=1e-9, atol=1e-12)


def test_one_spike_has_the_biases_that_theory_gives():
    # One unit and one step. With two classes the loss of a spike is a softplus, so that straight-through and trapezoid
    # have the errors of L'(0) and L'(1) weighted by probability and evenly.
    case = random_case(1.0, 3, (1,), 1, 2, 2)
    gradients, probabilities = (torch.stack(found) for found in zip(*[
        estimates(case)[name] for name in ("straight-through", "trapezoid")
    ], strict=True))  # fmt: skip
    spike = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    losses = cross_entropy(case.network.classify(spike[None, :, None]), case.label.expand(2), reduction="none")
    slopes = torch.autograd.grad(losses.sum(), spike)[0]
    difference = (losses[1] - losses[0]).detach()
    exact, weights = exact_gradient(case), probabilities[0]
    torch.testing.assert_close(weights @ gradients[0], exact * (weights @ slopes) / difference)
    torch.testing.assert_close(weights @ gradients[1], exact * slopes.mean() / difference)


def test_more_noise_less_bias_and_less_bias_more_variance():
    table = compare([0.3, 2.0], range(4), hidden_sizes=(2, 1), time=3)
    median = table.groupby(["estimator", "deviation"])[["bias", "variance", "cosine"]].median()
    for name in ("straight-through", "trapezoid"):
        assert median["bias"][name, 2.0] < median["bias"][name, 0.3]
    for deviation in (0.3, 2.0):
        bias, variance = (median[column].xs(deviation, level="deviation") for column in ("bias", "variance"))
        assert bias["score function"] < 1e-6 < bias["trapezoid"] < bias["straight-through"] < 1
        assert variance["score function"] > variance["trapezoid"]
        assert variance["boxcar, no noise"] == 0
    assert median["cosine"]["straight-through", 2.0] > 0.99


def test_a_table_has_a_row_for_each_estimator_and_network_and_comes_out_the_same():
    before = torch.get_rng_state()
    table = compare([1.0], [0, 1], hidden_sizes=(2,), time=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(table) == ["deviation", "seed", "estimator", "bias", "variance", "cosine"]
    assert len(table) == 2 * (len(estimators.CARRIERS) + 2)
    assert table.equals(compare([1.0], [0, 1], hidden_sizes=(2,), time=2))
    with pytest.raises(ValueError, match="18 spikes have too many patterns"):
        compare([1.0], [0], hidden_sizes=(3, 3), time=3)
