"""While the tests run, what goes in and out of every function of ``lib`` is held to its annotations, shapes too."""

import os

import jaxtyping

# A float's annotation admits an int (PEP 484), which beartype leaves to a setting.
jaxtyping.install_import_hook("lib", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

# One thread: the tests' networks are far too small for more.
torch.set_num_threads(1)

# The same examples each time, and no time limit for each, since the first one may have to be compiled.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def spiking_network():
    """Three features to four classes through six and five neurons, in float64; as drawn they would stay silent."""
    from lib.network import SpikingClassifier

    network = SpikingClassifier(3, 4, (6, 5), dropout=0.5).double()
    with torch.no_grad():
        for layer in network.layers:
            layer.norm.weight.uniform_(5, 10)
            layer.norm.bias.uniform_(0, 2)
        network.norm.running_mean.uniform_(0, 0.5)
        network.norm.running_var.uniform_(0.05, 0.2)
    return network


@pytest.fixture
def toy_frames():
    """Noise with a class each for three offsets: 60 utterances of 20 frames of 5 values, of two speakers."""
    import numpy as np

    from lib.features import Frames

    labels = torch.arange(60) % 3
    features = torch.randn(60, 20, 5, generator=torch.Generator().manual_seed(0)) + labels[:, None, None]
    parts = np.repeat(["train", "validation", "test"], 20)
    return Frames(features, labels, parts, np.repeat(["one", "two"] * 3, 10), ("low", "middle", "high"), "0" * 32)


@pytest.fixture(scope="session")
def built_book(tmp_path_factory):
    """The pages of the committed book, built once for all workers; building fails on any warning."""
    from pathlib import Path

    from filelock import FileLock

    from lib.pages import render, stage

    build = tmp_path_factory.getbasetemp()
    build = (build.parent if os.environ.get("PYTEST_XDIST_WORKER") else build) / "book"
    with FileLock(f"{build}.lock"):
        if not (build / "html").exists():
            stage(Path(__file__).resolve().parents[1], build / "source", {}, {})
            render(build / "source", build / "html")
    return build / "html"


@pytest.fixture
def toy(tmp_path):
    """A small repository whose notebooks take a moment."""
    from toy_book import make

    return make(tmp_path / "toy")
