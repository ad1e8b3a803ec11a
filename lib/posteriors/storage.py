"""Posteriors in files: plain tensors, names and lists, of which nothing is executed."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch

from lib.files import atomic_write
from lib.posteriors.families import LowRankGaussian, MeanFieldGaussian, Mixture, NoisyNetwork, PointMass, Posterior

FAMILIES = {
    "PointMass": PointMass,
    "MeanFieldGaussian": MeanFieldGaussian,
    "LowRankGaussian": LowRankGaussian,
}


def to_dict(posterior: Posterior) -> dict:
    """Plain tensors, names and lists, such as ``torch.load(weights_only=True)`` accepts."""
    if isinstance(posterior, Mixture):
        return {"family": "Mixture", "components": [to_dict(component) for component in posterior.components]}
    if isinstance(posterior, NoisyNetwork):
        return {"family": "NoisyNetwork", "weights": to_dict(posterior.weights)}
    return {"family": type(posterior).__name__} | {name: dict(value) for name, value in vars(posterior).items()}


def from_dict(stored: Mapping) -> Posterior:
    """The inverse of ``to_dict``. Raises ``ValueError`` for what is not a stored posterior."""
    fields = dict(stored)
    family = fields.pop("family", None)
    if family == "Mixture":
        return Mixture(tuple(from_dict(component) for component in fields["components"]))
    if family == "NoisyNetwork":
        return NoisyNetwork(from_dict(fields["weights"]))
    if family not in FAMILIES:
        raise ValueError(f"{family!r} is not a family of posteriors: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[family](**fields)


def save(posterior: Posterior, path: Path) -> None:
    """Write whole or not at all."""
    store(to_dict(posterior), path)


def store(tensors: dict, path: Path) -> None:
    """``torch.save``, whole or not at all; through memory, for on a full disk it does not say what is wrong."""
    written = io.BytesIO()
    torch.save(tensors, written)
    with atomic_write(path) as aside:
        aside.write_bytes(written.getbuffer())


def load(path: Path) -> Posterior:
    """Raises ``ValueError`` for a file that does not hold a whole posterior; nothing in it is executed."""
    try:
        return from_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: delete its folder and train again") from error
    except Exception as error:  # damaged bytes can lead to any
        raise ValueError(f"{path} does not hold a whole posterior: delete its folder and train again") from error
