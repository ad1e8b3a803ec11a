"""Slices: the loss along lines through weight space, and how angular it is there."""

from lib.slices.agreement import Slopes, gradient_agreement
from lib.slices.angularity import (
    Jumps,
    angularity_exponent,
    excess_variation,
    jumps,
    quadratic_residual,
    roughness,
)
from lib.slices.directions import PARTS, filter_normalised, length, moved, parameters_of, random_direction
from lib.slices.lines import Batches, bayesian_loss, bayesian_losses, curves, deterministic_loss
from lib.slices.sharpness import Rise, rise_under_noise

__all__ = [
    "PARTS",
    "Batches",
    "Jumps",
    "Rise",
    "Slopes",
    "angularity_exponent",
    "bayesian_loss",
    "bayesian_losses",
    "curves",
    "deterministic_loss",
    "excess_variation",
    "filter_normalised",
    "gradient_agreement",
    "jumps",
    "length",
    "moved",
    "parameters_of",
    "quadratic_residual",
    "random_direction",
    "rise_under_noise",
    "roughness",
]
