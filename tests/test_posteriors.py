"""One set of properties for every family of posteriors, and what belongs to each alone."""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from lib import posteriors
from lib.methods.families import LowRankGaussian, NoisyNetwork
from lib.posteriors import MeanFieldGaussian, Mixture, PointMass, predict, seeded_draws


def seed(number):
    return torch.Generator().manual_seed(number)


def gaussian_around(state, std=0.3):
    """Noise on the parameters, none on the batch-norm statistics."""
    return MeanFieldGaussian(
        state, {name: torch.full_like(tensor, std) for name, tensor in state.items() if "running" not in name}
    )


def low_rank_around(state, std=0.2, factor=0.3, rank=3):
    """Noise of its own on each parameter but the leaks, and noise that all parameters share."""
    around = gaussian_around(state, std)
    factors = {name: factor * torch.randn(rank, *tensor.shape).to(tensor) for name, tensor in around.std.items()}
    return LowRankGaussian(state, {name: tensor for name, tensor in around.std.items() if "leak" not in name}, factors)


def family(name, state):
    """A posterior of each family; without spread in its components where the name says so."""
    other = {name: 0.5 * tensor + 0.1 for name, tensor in state.items()}
    return {
        "PointMass": PointMass(state),
        "MeanFieldGaussian": gaussian_around(state),
        "LowRankGaussian": low_rank_around(state),
        "NoisyNetwork of Gaussian weights": NoisyNetwork(gaussian_around(state)),
        "NoisyNetwork of points": NoisyNetwork(Mixture((PointMass(state), PointMass(other)))),
        "Mixture of points": Mixture((PointMass(state), PointMass(other))),
        "Mixture of Gaussians": Mixture((gaussian_around(state), gaussian_around(other, 0.1))),
        "Mixture of mixtures": Mixture((Mixture((PointMass(state), gaussian_around(other))), PointMass(other))),
    }[name]


FAMILIES = [
    "PointMass", "MeanFieldGaussian", "LowRankGaussian", "NoisyNetwork of Gaussian weights", "NoisyNetwork of points",
    "Mixture of points", "Mixture of Gaussians", "Mixture of mixtures",
]  # fmt: skip


@pytest.fixture
def state(spiking_network):
    return posteriors.network_state(spiking_network)


@pytest.fixture(params=FAMILIES)
def posterior(request, state):
    return family(request.param, state)


@pytest.fixture
def features():
    return torch.randn(10, 12, 3, dtype=torch.float64)


LABELS = torch.arange(10) % 4


def assert_states_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert torch.equal(first[name], second[name]), name


def flat(state):
    return torch.cat([state[name].flatten() for name in sorted(state)])


# Every family


def test_samples_follow_from_the_generator_alone(posterior):
    first = [posterior.sample(generator) for generator in [seed(1)] for _ in range(8)]
    torch.manual_seed(99)
    again = [posterior.sample(generator) for generator in [seed(1)] for _ in range(8)]
    other = [posterior.sample(generator) for generator in [seed(2)] for _ in range(8)]
    for one, two in zip(first, again, strict=True):
        assert_states_equal(one, two)
    same = all(torch.equal(flat(one), flat(two)) for one, two in zip(first, other, strict=True))
    assert same == isinstance(posterior, PointMass)


@pytest.mark.parametrize("training", [True, False])
def test_predictions_are_those_of_the_network_with_the_sampled_weights(posterior, spiking_network, features, training):
    predicted = predict(spiking_network.train(training), posterior, features, 3, seed(4))
    network, expected = copy.deepcopy(spiking_network).eval(), []
    for state, noise in seeded_draws(posterior, 3, seed(4)):
        network.load_state_dict(state, strict=False)
        if noise is not None:
            network.train()
            for norm in (network.norm, *(layer.norm for layer in network.layers)):
                norm.eval()
            torch.manual_seed(noise)
        expected.append(network(features).softmax(dim=-1))
    assert predicted.shape == (3, 10, 4)
    assert not predicted.requires_grad
    torch.testing.assert_close(predicted, torch.stack(expected).detach())


def test_predictions_follow_from_the_generator_alone(posterior, spiking_network, features):
    first = predict(spiking_network, posterior, features, 3, seed(4))
    before = torch.manual_seed(99).get_state()
    assert torch.equal(predict(spiking_network, posterior, features, 3, seed(4)), first)
    assert torch.equal(torch.get_rng_state(), before)
    other = predict(spiking_network, posterior, features, 3, seed(5))
    assert torch.equal(first, other) == (posterior.distinct(3) != 3)


def test_predictions_do_not_depend_on_how_the_examples_are_batched(posterior, spiking_network, features, monkeypatch):
    if isinstance(posterior, NoisyNetwork):  # its masks are drawn for each batch
        spiking_network.dropout.p = 0.0
        for layer in spiking_network.layers:
            layer.dropout = 0.0
    whole = predict(spiking_network, posterior, features, 2, seed(4))
    monkeypatch.setattr(posteriors, "SPIKES_TOGETHER", 3 * 12 * 6)  # 3 utterances of 12 frames, 6 units
    torch.testing.assert_close(predict(spiking_network, posterior, features, 2, seed(4)), whole)


def snapshot(network):
    return (
        copy.deepcopy(network.state_dict()),
        {name: module.training for name, module in network.named_modules()},
        [(parameter.requires_grad, parameter.grad) for parameter in network.parameters()],
        [parameter.data_ptr() for parameter in network.parameters()],
    )


def assert_untouched(network, before):
    after = snapshot(network)
    assert_states_equal(before[0], after[0])
    assert before[1:] == after[1:]


@pytest.mark.parametrize("frozen_norm", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_predicting_leaves_the_network_as_it_was(posterior, spiking_network, features, training, frozen_norm):
    network = spiking_network.train(training)
    if frozen_norm:
        network.layers[0].norm.eval()
    before = snapshot(network)
    predict(network, posterior, features, 2, seed(4))
    assert_untouched(network, before)


@pytest.mark.parametrize("training", [False, True])
def test_a_forward_pass_that_raises_leaves_the_network_as_it_was(posterior, spiking_network, features, training):
    network = spiking_network.train(training)
    before = snapshot(network)

    def interrupted(*_):
        raise KeyboardInterrupt

    handle = network.readout.register_forward_hook(interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(network, posterior, features, 2, seed(4))
    handle.remove()
    assert_untouched(network, before)


@pytest.mark.parametrize("samples", [0, -1])
def test_predicting_needs_a_sample(posterior, spiking_network, features, generator, samples):
    with pytest.raises(ValueError, match=f"at least 1 sample of the weights, not {samples}"):
        predict(spiking_network, posterior, features, samples, generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_loaded_exactly(name, dtype, state, tmp_path):
    posterior = family(name, {name: tensor.to(dtype) for name, tensor in state.items()})
    path = tmp_path / "posterior.pt"
    posteriors.save(posterior, path)
    loaded = posteriors.load(path)
    assert type(loaded) is type(posterior)
    for number in range(8):
        assert_states_equal(loaded.sample(seed(number)), posterior.sample(seed(number)))
    torch.load(path, weights_only=True)  # nothing but tensors, names and lists
    assert [entry.name for entry in tmp_path.iterdir()] == ["posterior.pt"]


def test_saving_that_fails_leaves_what_was_there(posterior, state, tmp_path, monkeypatch):
    path = tmp_path / "posterior.pt"
    posteriors.save(PointMass({"weight": torch.ones(2)}), path)
    before = path.read_bytes()

    def full_disk(aside, content):
        write(aside, b"half")
        raise OSError("No space left on device")

    write = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        posteriors.save(posterior, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["posterior.pt"]


# What belongs to one family


def many_samples(posterior, count):
    generator = seed(7)
    return torch.stack([flat(posterior.sample(generator)) for _ in range(count)])


def test_gaussian_samples_have_the_mean_and_spread_of_the_posterior():
    mean = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([[0.0], [30.0]])}
    std = {"a": torch.tensor([0.5, 2.0]), "b": torch.tensor([[0.1], [4.0]])}
    count = 20_000
    samples = many_samples(MeanFieldGaussian(mean, std), count)
    # Five standard errors: sigma / sqrt(n) of a mean, sigma / sqrt(2 n) of a standard deviation.
    assert ((samples.mean(dim=0) - flat(mean)).abs() < 5 * flat(std) / count**0.5).all()
    assert ((samples.std(dim=0) - flat(std)).abs() < 5 * flat(std) / (2 * count) ** 0.5).all()
    correlations = torch.corrcoef(samples.T) - torch.eye(4)
    assert (correlations.abs() < 5 / count**0.5).all()


def test_low_rank_samples_have_the_mean_and_covariance_of_the_posterior():
    mean = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([[0.0], [30.0]]), "c": torch.tensor([5.0])}
    std = {"a": torch.tensor([0.5, 2.0])}
    factors = {"a": torch.tensor([[1.0, 0.0], [0.0, -1.0]]), "b": torch.tensor([[[2.0], [1.0]], [[0.0], [3.0]]])}
    # diag(std^2) + F^T F, the rows of F being (1, 0, 2, 1) and (0, -1, 0, 3).
    covariance = torch.tensor([[1.25, 0, 2, 1], [0, 5, 0, -3], [2, 0, 4, 2], [1, -3, 2, 10]])
    count = 20_000
    samples = many_samples(LowRankGaussian(mean, std, factors), count)
    assert (samples[:, 4] == 5).all()
    variances = covariance.diag()
    assert ((samples.mean(dim=0) - flat(mean))[:4].abs() < 5 * (variances / count) ** 0.5).all()
    # The variance of a product of two Gaussians about their means is v1 v2 + cov^2.
    errors = ((variances[:, None] * variances + covariance**2) / count) ** 0.5
    assert ((torch.cov(samples.T)[:4, :4] - covariance).abs() < 5 * errors).all()


@pytest.mark.parametrize(
    ("std", "factors", "message"),
    [
        ({"weight": torch.ones(3)}, {"weight": torch.ones(2, 2)}, "'weight' has no mean of the same shape"),
        ({"weight": torch.ones(2, 1)}, {"weight": torch.ones(2, 2)}, "'weight' has no mean of the same shape"),
        ({"height": torch.ones(2)}, {"weight": torch.ones(2, 2)}, "'height' has no mean of the same shape"),
        ({}, {"weight": torch.ones(2)}, "factor 'weight' has no mean of the same shape behind its rank"),
        ({}, {"height": torch.ones(2, 2)}, "factor 'height' has no mean"),
        ({}, {}, "one or more factors, all of the same rank"),
        ({}, {"weight": torch.ones(2, 2), "bias": torch.ones(3, 1)}, "one or more factors, all of the same rank"),
    ],
)
def test_a_low_rank_that_does_not_fit_is_refused(std, factors, message):
    with pytest.raises(ValueError, match=message):
        LowRankGaussian({"weight": torch.ones(2), "bias": torch.ones(1)}, std, factors)


def test_the_components_of_a_mixture_take_turns_in_predictions():
    first, second, third = (PointMass({"w": torch.tensor([float(number)])}) for number in range(3))
    states = seeded_draws(Mixture((first, Mixture((second, third)))), 8, seed(0))
    assert [int(state["w"]) for state, _ in states] == [0, 1, 0, 2, 0, 1, 0, 2]


def test_an_ensemble_of_points_needs_each_of_them_once(state, spiking_network, features, generator):
    members = [PointMass({name: tensor * factor for name, tensor in state.items()}) for factor in (0.5, 1.0, 2.0)]
    ensemble = Mixture(tuple(members))
    samples = ensemble.distinct(100)
    assert samples == 3
    each = [predict(spiking_network, member, features, 1, generator)[0] for member in members]
    assert torch.equal(predict(spiking_network, ensemble, features, samples, generator), torch.stack(each))


@pytest.mark.parametrize("other", ["MeanFieldGaussian", "LowRankGaussian", "NoisyNetwork of points"])
def test_what_has_a_spread_needs_as_many_samples_as_asked_for(state, other):
    assert PointMass(state).distinct(7) == 1
    assert family(other, state).distinct(7) == 7


def test_noise_belongs_around_a_mixture():
    point = PointMass({"w": torch.ones(1)})
    with pytest.raises(ValueError, match="make a noisy network of the mixture"):
        Mixture((point, NoisyNetwork(point)))


def test_dropped_spikes_are_dropped_for_each_sample_and_batch_anew(spiking_network, state, monkeypatch):
    features = torch.randn(1, 48, 3, dtype=torch.float64).expand(6, -1, -1)
    monkeypatch.setattr(posteriors, "SPIKES_TOGETHER", 2 * 48 * 6)  # 2 utterances of 48 frames, 6 units
    predicted = predict(spiking_network, NoisyNetwork(PointMass(state)), features, 5, seed(1))
    assert len(predicted.flatten(0, 1).unique(dim=0)) == 30


# States and files


def test_a_network_s_state_is_a_copy_of_parameters_and_statistics(spiking_network):
    state = posteriors.network_state(spiking_network)
    named = {*dict(spiking_network.named_parameters()), *dict(spiking_network.named_buffers())}
    assert state.keys() == {name for name in named if not name.endswith("num_batches_tracked")}
    before = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for tensor in spiking_network.state_dict().values():
            tensor.add_(1)
    assert_states_equal(state, before)
    assert not any(tensor.requires_grad for tensor in state.values())


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'Laplace' is not a family of posteriors: expected one of PointMass"):
        posteriors.from_dict({"family": "Laplace", "mean": {}})
    with pytest.raises(ValueError, match="None is not a family"):
        posteriors.from_dict({"weight": torch.ones(2)})


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(share, state, tmp_path):
    path = tmp_path / "posterior.pt"
    posteriors.save(PointMass(state), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"posterior\.pt does not hold a whole posterior"):
        posteriors.load(path)


class Trap:
    sprung = False

    def __reduce__(self):
        return Trap.spring, ()

    @staticmethod
    def spring():
        Trap.sprung = True


@pytest.mark.parametrize(
    "write", [lambda path: torch.save(Trap(), path), lambda path: path.write_bytes(pickle.dumps(Trap(), protocol=2))]
)
def test_nothing_in_a_file_is_run(write, tmp_path):
    path = tmp_path / "posterior.pt"
    write(path)
    with pytest.raises(ValueError, match=r"posterior\.pt does not hold a whole posterior"):
        posteriors.load(path)
    assert not Trap.sprung


def test_an_absent_file_is_said_to_be_absent(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"posterior\.pt is missing: delete its folder and train again"):
        posteriors.load(tmp_path / "posterior.pt")
