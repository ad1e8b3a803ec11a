"""Dropout of spikes: its hash, its share, the independence of its draws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils import murmurhash3_32
from torch import nn

from lib.network import SpikingLayer, mixed, survivors


def always_firing(units, dropout):
    layer = SpikingLayer(1, units, dropout)
    layer.norm.eval()
    nn.init.constant_(layer.norm.bias, 1000.0)
    return layer


def test_dropout_drops_its_share_and_scales_up_the_rest():
    share = 0.3
    spikes = always_firing(40, share)(torch.zeros(50, 50, 1)).detach()
    assert sorted(set(spikes.unique().tolist())) == [0.0, pytest.approx(1 / 0.7)]
    # Five standard deviations of a binomial share: of all 100,000 spikes, and of each unit's 2,500.
    assert abs(float((spikes == 0).double().mean()) - share) < 5 * (share * (1 - share) / 100_000) ** 0.5
    of_units = (spikes == 0).double().mean(dim=(0, 1))
    assert (of_units - share).abs().max() < 5 * (share * (1 - share) / 2_500) ** 0.5


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), dropout=st.floats(0.02, 0.98))
def test_each_seed_drops_its_share_in_every_unit_example_and_step(seed, dropout):
    kept = survivors(seed, dropout, torch.empty(40, 40, 40)).double()
    for dims in [(0, 1), (0, 2), (1, 2)]:
        # 40 shares of 1,600 each for each of 50 seeds: six standard deviations.
        assert (kept.mean(dim=dims) - (1 - dropout)).abs().max() < 6 * (dropout * (1 - dropout) / 1600) ** 0.5


@pytest.mark.parametrize(
    "step", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1), (0, 0, 8), (16, 0, 0)]
)
def test_drops_in_neighbouring_places_are_independent(step):
    kept = survivors(2_718_281_828, 0.5, torch.empty(64, 48, 40))
    here = kept[: 64 - step[0], : 48 - step[1], : 40 - step[2]]
    there = kept[step[0] :, step[1] :, step[2] :]
    assert abs(float((here & there).double().mean()) - 0.25) < 5 * (0.1875 / here.numel()) ** 0.5


def test_the_hash_is_the_end_of_murmurhash3():
    # Of an empty string, MurmurHash3 does nothing but mix the seed a last time.
    seeds = [0, 1, 2**31, 2**32 - 1, *torch.randint(2**32, (200,)).tolist()]
    expected = [murmurhash3_32(b"", seed=seed, positive=True) for seed in seeds]
    assert mixed(torch.tensor(seeds)).tolist() == expected


def test_the_largest_dropout_below_one_drops_nearly_all():
    assert not survivors(1, math.nextafter(1, 0), torch.empty(20, 20, 20)).any()


def test_without_dropout_nothing_is_drawn():
    before = torch.get_rng_state()
    layer = always_firing(4, 0.0)
    torch.set_rng_state(before)
    assert (layer(torch.zeros(3, 5, 1)) == 1).all()
    assert torch.equal(torch.get_rng_state(), before)
    layer.dropout = 0.1
    layer(torch.zeros(3, 5, 1))
    assert not torch.equal(torch.get_rng_state(), before)


def test_drops_follow_from_the_seed_and_differ_from_call_to_call():
    layer, train, found = always_firing(9, 0.5), torch.zeros(7, 3, 1), {}
    for name, seed in (("first", 5), ("second", None), ("again", 5), ("other", 6)):
        if seed is not None:
            torch.manual_seed(seed)
        found[name] = layer(train)
    assert torch.equal(found["first"], found["again"])
    assert not torch.equal(found["first"], found["second"])
    assert not torch.equal(found["first"], found["other"])


def test_a_dropped_spike_passes_no_gradient():
    # One step: du/dI = 1 - leak, which comes back scaled up where the spike is kept, and not where it is dropped.
    layer = SpikingLayer(1, 50, 0.5)
    layer.norm = nn.Identity()
    nn.init.constant_(layer.raw_leak, 0.9)
    layer.bounded = False
    weighted = torch.full((1, 8, 50), 12.0, requires_grad=True)  # u = 0.1 * 12 = 1.2
    spikes = layer.plain(weighted, seed=3)
    spikes.sum().backward()
    assert 0 < (spikes == 0).sum() < spikes.numel()
    torch.testing.assert_close(weighted.grad, 0.1 * spikes.detach())
