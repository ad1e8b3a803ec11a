"""Slices against PyTorch's cross-entropy at shifted weights, and against closed forms on linear models."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lib import fused, posteriors, slices
from lib.networks import ControlClassifier, SpikingClassifier
from lib.posteriors import MeanFieldGaussian, Mixture, NoisyNetwork, PointMass, network_state
from lib.slices import events

ALPHAS = [-1.0, -0.25, 0.0, 0.5, 2.0]


def minibatches(sizes=(4, 4, 4), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(size, 12, 3, generator=generator, dtype=torch.float64),
            torch.randint(4, (size,), generator=generator),
        )
        for size in sizes
    ]


@pytest.fixture
def centre(spiking_network):
    return network_state(spiking_network)


@pytest.fixture
def direction(spiking_network, generator):
    return slices.random_direction(spiking_network.named_parameters(), generator)


@pytest.fixture
def posterior(spiking_network, centre):
    return MeanFieldGaussian(
        centre, {name: torch.full_like(weight.detach(), 0.2) for name, weight in spiking_network.named_parameters()}
    )


def seed(number):
    return torch.Generator().manual_seed(number)


# Directions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_direction_has_unit_norm_over_all_parameters_together(dtype):
    network = nn.Linear(300, 40, dtype=dtype)
    direction = slices.random_direction(network.named_parameters(), seed(0))
    assert {name: tensor.shape for name, tensor in direction.items()} == {"weight": (40, 300), "bias": (40,)}
    assert all(tensor.dtype == dtype and not tensor.requires_grad for tensor in direction.values())
    squares = {name: float(tensor.double().square().sum()) for name, tensor in direction.items()}
    assert sum(squares.values()) == pytest.approx(1, abs=1e-6)
    # The weights are 300 / 301 of the parameters; the share of the 40 others has a standard deviation of 7e-4.
    assert squares["bias"] == pytest.approx(1 / 301, abs=4e-3)


def test_a_direction_follows_from_the_generator():
    network = nn.Linear(5, 2)
    first, again, other = (slices.random_direction(network.named_parameters(), seed(n)) for n in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["weight"], other["weight"])


def test_directions_are_uniform_on_the_sphere():
    generator, model = seed(0), nn.Linear(2, 1)
    drawn = [slices.random_direction(model.named_parameters(), generator) for _ in range(3_000)]
    points = torch.stack([torch.cat([d["weight"].flatten(), d["bias"]]) for d in drawn])
    # On the sphere in three dimensions each coordinate is uniform on [-1, 1] (Archimedes): mean 0, variance 1/3.
    assert (points.mean(dim=0).abs() < 5 * (1 / 3 / 3_000) ** 0.5).all()
    for coordinate in points.T:
        quantiles = torch.quantile(coordinate, torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9]))
        torch.testing.assert_close(quantiles, torch.tensor([-0.8, -0.5, 0.0, 0.5, 0.8]), rtol=0, atol=0.06)


@pytest.mark.parametrize(
    ("part", "prefixes"),
    [("hidden", {"layers"}), ("readout", {"norm", "readout"}), ("all", {"layers", "norm", "readout"})],
)
def test_a_direction_may_be_of_a_part_of_the_network(spiking_network, part, prefixes):
    direction = slices.random_direction(slices.parameters_of(spiking_network, part), seed(0))
    assert {name.split(".")[0] for name in direction} == prefixes
    assert slices.length(direction, direction) == pytest.approx(1, rel=1e-12)


def test_an_unknown_part_is_refused(spiking_network):
    with pytest.raises(ValueError, match="unknown part 'hiden' of a network"):
        slices.parameters_of(spiking_network, "hiden")


def test_filter_normalisation_gives_each_row_the_norm_of_the_network_s(spiking_network, centre, direction):
    centre["readout.weight"][2] = 0
    normalised = slices.filter_normalised(direction, centre)
    assert normalised.keys() == {"layers.0.linear.weight", "layers.1.linear.weight", "readout.weight"}
    for name, tensor in normalised.items():
        torch.testing.assert_close(tensor.norm(dim=1), centre[name].norm(dim=1))
        torch.testing.assert_close(
            tensor * direction[name].norm(dim=1, keepdim=True), direction[name] * centre[name].norm(dim=1, keepdim=True)
        )


def test_filter_normalisation_does_not_see_the_direction_s_scale(centre, direction):
    longer = {name: 1e3 * tensor for name, tensor in direction.items()}
    first, again = slices.filter_normalised(direction, centre), slices.filter_normalised(longer, centre)
    for name in first:
        torch.testing.assert_close(first[name], again[name])


def test_a_direction_without_a_matrix_has_no_filters(centre, direction):
    with pytest.raises(ValueError, match="moves no matrix"):
        slices.filter_normalised({"layers.0.leak": direction["layers.0.leak"]}, centre)


def test_lengths_are_those_of_the_moved_weights_and_of_the_posterior_s_noise(centre, posterior):
    names = ["readout.weight", "readout.bias"]
    expected = torch.cat([centre[name].flatten() for name in names]).norm()
    assert slices.length(centre, names) == pytest.approx(float(expected), rel=1e-12)
    drawn = seed(0)
    noise = [slices.length(slices.moved(posterior.sample(drawn), centre, -1.0), names) ** 2 for _ in range(2_000)]
    # 24 numbers of 0.2^2 times a chi-square of one degree: a standard error of 0.7 %.
    assert np.mean(noise) == pytest.approx(slices.length(posterior.std, names) ** 2, rel=0.035)


# Equation 19


def test_the_deterministic_slice_is_pytorch_s_cross_entropy_at_the_shifted_weights(spiking_network, centre, direction):
    batches = minibatches()
    direction = {name: 5 * tensor for name, tensor in direction.items()}
    losses = slices.deterministic_loss(spiking_network, centre, direction, ALPHAS, batches)
    shifted, expected = copy.deepcopy(spiking_network).eval(), []
    for alpha in ALPHAS:
        state = {name: tensor + alpha * direction.get(name, 0) for name, tensor in centre.items()}
        shifted.load_state_dict(state, strict=False)
        with torch.no_grad():
            expected.append(np.mean([cross_entropy(shifted(x), y).item() for x, y in batches]))
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    assert len(set(losses)) == len(ALPHAS)  # far enough apart for the comparison to say something


def test_a_slice_does_not_depend_on_the_network_s_mode_or_weights(spiking_network, centre, direction):
    given = centre, direction, ALPHAS, minibatches()
    losses = slices.deterministic_loss(spiking_network.train(), *given)
    assert spiking_network.training
    with torch.no_grad():
        for parameter in spiking_network.parameters():
            parameter.add_(1)
    np.testing.assert_array_equal(slices.deterministic_loss(spiking_network.eval(), *given), losses)
    after = network_state(spiking_network)
    assert all(torch.equal(after[name], tensor) for name, tensor in centre.items() if "running" in name)


class Logistic(nn.Module):
    """Logits [w x, 0] for frames of one constant x: the probability of class 0 is sigmoid(w x)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, features):
        score = self.weight * features[:, 0, 0]
        return torch.stack([score, torch.zeros_like(score)], dim=-1)


def of_ones(size, label):
    return torch.ones(size, 2, 1, dtype=torch.float64), torch.full((size,), label)


def scalar(value):
    return {"weight": torch.tensor(float(value), dtype=torch.float64)}


def test_a_logistic_slice_has_its_closed_form():
    # Cross-entropy of class 0 at w = 0.5 + 2 alpha is log(1 + exp(-w)).
    losses = slices.deterministic_loss(Logistic(), scalar(0.5), scalar(2), ALPHAS, [of_ones(3, 0)])
    np.testing.assert_allclose(losses, [math.log1p(math.exp(-(0.5 + 2 * alpha))) for alpha in ALPHAS], rtol=1e-13)


def test_minibatches_count_alike_whatever_their_size():
    # log(1 + exp(-1)) for class 0 and log(1 + exp(1)) for class 1: their mean, not one to three.
    batches = [of_ones(1, 0), of_ones(3, 1)]
    (loss,) = slices.deterministic_loss(Logistic(), scalar(1), scalar(1), [0.0], batches)
    assert loss == pytest.approx((0.31326168751822286 + 1.3132616875182228) / 2, rel=1e-13)


# Equation 20


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_bayesian_logistic_slice_is_the_integral_over_the_shifted_gaussian(alpha):
    # -log of the integral of sigmoid(w) over N(0.3 + alpha, 1.5^2), by Gauss-Hermite quadrature.
    nodes, quadrature = np.polynomial.hermite_e.hermegauss(60)
    expected = -np.log(np.sum(quadrature / (1 + np.exp(-(0.3 + alpha + 1.5 * nodes)))) / np.sum(quadrature))
    (loss,) = slices.bayesian_loss(
        Logistic(), MeanFieldGaussian(scalar(0.3), scalar(1.5)), scalar(1), [alpha], [of_ones(2, 0)], 4_000, seed(1)
    )
    # A sigmoid's standard deviation is at most 1/2, so the mean's is below 0.008, relative to 0.35 or more.
    assert loss == pytest.approx(expected, abs=0.05)


def test_the_prediction_is_averaged_before_its_logarithm():
    # Half the samples are surely right, half surely wrong: -log 1/2. The mean of their losses would be 10.
    sure = Mixture((PointMass(scalar(20)), PointMass(scalar(-20))))
    (loss,) = slices.bayesian_loss(Logistic(), sure, scalar(0), [0.0], [of_ones(2, 0)], 2_000, seed(1))
    assert loss == pytest.approx(math.log(2), abs=0.11)  # five standard errors of the share, 1 / (2 sqrt(2000))


def test_the_bayesian_slice_is_that_of_the_samples_themselves(spiking_network, posterior, direction):
    batches, noise = minibatches(), seed(5)
    losses = slices.bayesian_loss(spiking_network, posterior, direction, ALPHAS, batches, 3, seed(5))
    samples = [posterior.sample(noise) for _ in range(3)]
    network, expected = copy.deepcopy(spiking_network).eval(), []
    for alpha in ALPHAS:
        probabilities = []
        for sample in samples:
            state = {name: tensor + alpha * direction.get(name, 0) for name, tensor in sample.items()}
            network.load_state_dict(state, strict=False)
            with torch.no_grad():
                probabilities.append([network(x).softmax(-1)[range(len(y)), y] for x, y in batches])
        averaged = [torch.stack(of_batch).mean(dim=0) for of_batch in zip(*probabilities, strict=True)]
        expected.append(np.mean([-float(of_batch.log().mean()) for of_batch in averaged]))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)


def test_every_alpha_sees_the_same_noise_in_whatever_order(spiking_network, posterior, direction):
    def losses(alphas):
        return slices.bayesian_loss(spiking_network, posterior, direction, alphas, minibatches(), 4, seed(5))

    forwards = losses(ALPHAS)
    np.testing.assert_array_equal(losses(ALPHAS[::-1])[::-1], forwards)
    np.testing.assert_array_equal([losses([alpha])[0] for alpha in ALPHAS], forwards)
    np.testing.assert_array_equal(losses([0.5] * 3), np.full(3, forwards[3]))


def test_other_noise_gives_another_slice(spiking_network, posterior, direction):
    first, other = (
        slices.bayesian_loss(spiking_network, posterior, direction, ALPHAS, minibatches(), 4, seed(number))
        for number in (5, 6)
    )
    assert (first != other).all()


def test_without_spread_the_bayesian_slice_is_the_deterministic_one(spiking_network, centre, direction):
    still = MeanFieldGaussian(centre, {name: torch.zeros_like(tensor) for name, tensor in centre.items()})
    bayesian = slices.bayesian_loss(spiking_network, still, direction, ALPHAS, minibatches(), 3, seed(5))
    deterministic = slices.deterministic_loss(spiking_network, centre, direction, ALPHAS, minibatches())
    np.testing.assert_allclose(bayesian, deterministic, rtol=1e-12)


@pytest.mark.parametrize(("moving", "computed"), [("readout", 0), ("layers.1", 1), ("layers.0", 2), ("norm", 0)])
def test_layers_that_do_not_move_are_computed_once(spiking_network, posterior, direction, moving, computed):
    """For each of 2 samples the layers from the first one that moves run at each alpha, those before it once."""
    part = {name: 5 * tensor for name, tensor in direction.items() if name.startswith(moving)}
    whole = {name: part.get(name, torch.zeros_like(tensor)) for name, tensor in direction.items()}
    given = ALPHAS, minibatches(), 2

    calls = []
    handles = [
        layer.register_forward_hook(lambda *_, index=index: calls.append(index))
        for index, layer in enumerate(spiking_network.layers)
    ]
    losses = slices.bayesian_loss(spiking_network, posterior, part, *given, seed(5))
    for handle in handles:
        handle.remove()
    counts = [2 * (len(ALPHAS) if index >= 2 - computed else 1) for index in range(2)]
    assert [calls.count(index) for index in range(2)] == counts
    again = slices.bayesian_loss(spiking_network, posterior, whole, *given, seed(5))  # spike by spike
    np.testing.assert_allclose(losses, again, rtol=1e-12)
    assert len(set(losses)) == len(ALPHAS)


def test_every_alpha_sees_the_same_noise_of_a_noisy_network(spiking_network, posterior, direction):
    noisy = NoisyNetwork(posterior)

    def losses(alphas):
        return slices.bayesian_loss(spiking_network, noisy, direction, alphas, minibatches(), 3, seed(5))

    before = torch.get_rng_state()
    forwards = losses(ALPHAS)
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal([losses([alpha])[0] for alpha in ALPHAS], forwards)
    np.testing.assert_array_equal(losses([0.5] * 3), np.full(3, forwards[3]))
    assert len(set(forwards)) == len(ALPHAS)
    # A part of the direction moves the readout alone: the layers before it draw their noise again, and the same.
    readout = {name: 5 * tensor for name, tensor in direction.items() if name.startswith("readout")}
    whole = readout | {name: torch.zeros_like(tensor) for name, tensor in direction.items() if name not in readout}
    part, all_layers = (
        slices.bayesian_loss(spiking_network, noisy, along, ALPHAS, minibatches(), 3, seed(5))
        for along in (readout, whole)
    )
    np.testing.assert_array_equal(part, all_layers)


def test_the_slice_of_a_noisy_network_is_that_of_its_predictions(spiking_network, posterior, direction):
    noisy, batches = NoisyNetwork(posterior), minibatches()
    (loss,) = slices.bayesian_loss(spiking_network, noisy, direction, [0.0], batches, 3, seed(5))
    features, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    predicted = posteriors.predict(spiking_network, noisy, features, 3, seed(5)).mean(dim=0)
    of_batches = predicted[range(len(labels)), labels].log().split([len(labels) for _, labels in batches])
    assert loss == pytest.approx(np.mean([-float(part.mean()) for part in of_batches]), rel=1e-10)


def test_the_losses_of_several_numbers_of_samples_are_those_of_the_first_ones(spiking_network, posterior, direction):
    given = spiking_network, posterior, direction, ALPHAS, minibatches()
    losses = slices.bayesian_losses(*given, [1, 4, 2], seed(5))
    assert losses.shape == (3, len(ALPHAS))
    np.testing.assert_allclose(losses[1], slices.bayesian_loss(*given, 4, seed(5)), rtol=1e-13)
    first = PointMass(posterior.sample(seed(5)))
    np.testing.assert_allclose(losses[0], slices.bayesian_loss(given[0], first, *given[2:], 1, seed(0)), rtol=1e-13)


# Spike by spike


@pytest.mark.parametrize("hidden_sizes", [(6,), (6, 5), (9, 16, 3)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("part", ["all", "hidden", "readout", "layers.0", "leak"])
def test_spike_by_spike_the_losses_are_those_of_the_network_itself(hidden_sizes, bias, part, monkeypatch):
    network = SpikingClassifier(3, 4, hidden_sizes, bias=bias).double()
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.uniform_(5, 10)
            layer.norm.running_mean.normal_(0, 0.1)
            layer.norm.running_var.uniform_(0.5, 2)
    chosen = slices.parameters_of(network, part if part in slices.PARTS else "all")
    if part not in slices.PARTS:
        chosen = [(name, tensor) for name, tensor in chosen if part in name]
    direction = {name: 3 * tensor for name, tensor in slices.random_direction(chosen, seed(0)).items()}
    state = network_state(network)
    around = MeanFieldGaussian(state, {name: torch.full_like(tensor, 0.05) for name, tensor in chosen})
    given = network, around, direction, ALPHAS, minibatches((70, 4, 1))

    assert events.serve(network)
    monkeypatch.setattr(events, "ALPHAS_TOGETHER", 2)
    quick = slices.bayesian_losses(*given, [1, 3], seed(1))
    monkeypatch.setattr(events, "serve", lambda network: False)
    np.testing.assert_allclose(quick, slices.bayesian_losses(*given, [1, 3], seed(1)), rtol=1e-11)
    assert (np.ptp(quick, axis=1) > 0).all()


def test_single_precision_takes_the_same_steps():
    network = SpikingClassifier(5, 4, (32, 32))
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.fill_(3)
    direction = slices.random_direction(network.named_parameters(), seed(0))
    batches = [(torch.randn(20, 30, 5, generator=seed(1)), torch.arange(20) % 4)]
    given = direction, np.linspace(-2, 2, 21), batches
    single = slices.deterministic_loss(network, network_state(network), *given)
    layers = network.layers
    handle = layers[0].register_forward_hook(lambda *_: None)  # with a listener the network itself is run
    assert not events.serve(network)
    plain = slices.deterministic_loss(network, network_state(network), *given)
    handle.remove()
    # A potential within rounding of its threshold is the only difference: few, of the 384,000 of a loss.
    np.testing.assert_allclose(single, plain, atol=2e-3 * np.ptp(plain))


@pytest.mark.parametrize(
    "options",
    [{"neuron": "adlif"}, {"neuron": "rlif"}, {"norm": "layer"}, {"readout": "softmax"}, {"bidirectional": True}],
)
def test_other_networks_are_run_as_they_are(options):
    network = SpikingClassifier(3, 4, (6, 5), **options).double()
    assert not events.serve(network)
    direction = slices.random_direction(network.named_parameters(), seed(0))
    losses = slices.deterministic_loss(network, network_state(network), direction, ALPHAS, minibatches())
    assert np.isfinite(losses).all()


# The surrogate gradient


def test_without_spikes_the_gradient_is_the_limit_of_finite_differences():
    network = ControlClassifier(3, 4, (6, 5), "rnn", dropout=0.5).double()
    direction = slices.random_direction(network.named_parameters(), seed(0))
    steps = [0.2, 0.1, 0.05]
    surrogate, finite = slices.gradient_agreement(network, network_state(network), direction, minibatches(), steps)
    wrong = np.abs(finite - surrogate)
    assert wrong[-1] < 1e-3 * abs(surrogate)
    np.testing.assert_allclose(wrong[:-1] / wrong[1:], 4, rtol=0.05)  # the order of h^2
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_readout_s_gradient_is_exact_behind_spikes(spiking_network, centre):
    direction = slices.random_direction(slices.parameters_of(spiking_network, "readout"), seed(0))
    surrogate, finite = slices.gradient_agreement(spiking_network, centre, direction, minibatches(), [1e-3, 1e-5])
    np.testing.assert_allclose(finite, surrogate, rtol=1e-4)
    network = copy.deepcopy(spiking_network).eval()
    torch.stack([cross_entropy(network(x), y) for x, y in minibatches()]).mean().backward()
    own = dict(network.named_parameters())
    expected = sum(float((own[name].grad * tensor).sum()) for name, tensor in direction.items())
    assert surrogate == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("part", ["all", "hidden"])
@pytest.mark.parametrize("neuron", ["lif", "radlif"])
def test_the_surrogate_s_gradient_is_that_of_pytorch_s_own_operations(neuron, part, monkeypatch):
    network = SpikingClassifier(3, 4, (6, 5), neuron, dropout=0.5).double()
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.uniform_(5, 10)
    direction = slices.random_direction(slices.parameters_of(network, part), seed(0))
    given = network, network_state(network), direction, minibatches(), [1e-3]
    surrogate = slices.gradient_agreement(*given).surrogate
    monkeypatch.setattr(fused, "_kernels", lambda device: None)
    assert slices.gradient_agreement(*given).surrogate == pytest.approx(surrogate, rel=1e-9)
    assert surrogate != 0


def test_hidden_weights_that_act_through_spikes_alone_have_no_slope_but_a_surrogate_s(spiking_network, centre):
    direction = slices.random_direction(slices.parameters_of(spiking_network, "hidden"), seed(0))
    surrogate, finite = slices.gradient_agreement(spiking_network, centre, direction, minibatches(), [1e-9])
    assert surrogate != 0
    assert finite[0] == 0


# Bad input


def test_a_slice_on_no_minibatch_is_refused(spiking_network, centre, direction, posterior):
    with pytest.raises(ValueError, match="at least one minibatch"):
        slices.deterministic_loss(spiking_network, centre, direction, ALPHAS, [])
    with pytest.raises(ValueError, match="at least one minibatch"):
        slices.bayesian_loss(spiking_network, posterior, direction, ALPHAS, [], 3, seed(0))


def test_a_direction_of_another_network_is_refused(spiking_network, centre):
    with pytest.raises(ValueError, match="which the network does not have"):
        slices.deterministic_loss(spiking_network, centre, {"height": torch.ones(3)}, ALPHAS, minibatches())


def test_no_samples_are_refused(spiking_network, posterior, direction):
    with pytest.raises(ValueError, match="at least 1 sample"):
        slices.bayesian_losses(spiking_network, posterior, direction, ALPHAS, minibatches(), [4, 0], seed(0))


def test_alphas_may_be_an_array(spiking_network, centre, direction):
    given = spiking_network, centre, direction
    losses = slices.deterministic_loss(*given, np.array(ALPHAS), minibatches())
    np.testing.assert_array_equal(losses, slices.deterministic_loss(*given, ALPHAS, minibatches()))


def test_no_alphas_give_no_losses(spiking_network, centre, direction):
    assert slices.deterministic_loss(spiking_network, centre, direction, [], minibatches()).shape == (0,)


# Noise on the weights


def test_the_rise_under_noise_is_the_mean_loss_of_single_draws_less_the_centre_s(generator):
    network = nn.Linear(2, 3).double()
    centre = network_state(network)
    inputs, labels = torch.randn(7, 2, dtype=torch.float64), torch.arange(7) % 3

    class Frames(nn.Module):
        """One frame an utterance."""

        def __init__(self):
            super().__init__()
            self.linear = network

        def forward(self, features):
            return self.linear(features[:, 0])

    named = {f"linear.{name}": tensor for name, tensor in centre.items()}
    rise = slices.rise_under_noise(
        Frames(), named, ["linear.bias"], 0.5, inputs[:, None], labels, 4, torch.Generator().manual_seed(3)
    )
    again, losses = torch.Generator().manual_seed(3), []
    for _ in range(4):
        bias = centre["bias"] + 0.5 * torch.randn(3, generator=again, dtype=torch.float64)
        losses.append(float(cross_entropy(inputs @ centre["weight"].T + bias, labels)))
    at_centre = float(cross_entropy(inputs @ centre["weight"].T + centre["bias"], labels))
    assert rise.mean == pytest.approx(np.mean(losses) - at_centre, abs=1e-9)


def test_the_worst_rise_is_that_of_one_draw(spiking_network, centre):
    features, labels = torch.randn(6, 10, 3, dtype=torch.float64), torch.arange(6) % 4
    given = spiking_network, centre, ["readout.weight"], 0.5, features, labels
    each, noise = [], seed(3)
    for _ in range(4):
        each.append(slices.rise_under_noise(*given, 1, noise).mean)
    rise = slices.rise_under_noise(*given, 4, seed(3))
    assert rise.worst == pytest.approx(max(each), abs=1e-12)
    assert rise.mean == pytest.approx(np.mean(each), abs=1e-12)


def test_no_noise_raises_nothing(spiking_network, centre, generator):
    features, labels = torch.randn(6, 10, 3, dtype=torch.float64), torch.arange(6) % 4
    assert slices.rise_under_noise(spiking_network, centre, list(centre), 0.0, features, labels, 2, generator) == (0, 0)
