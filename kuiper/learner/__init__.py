"""Flat parameters and the engines that compute gradients."""

from kuiper.learner.batches import Batches
from kuiper.learner.flat import FlatModel
from kuiper.learner.learner import Learner

__all__ = ["Batches", "FlatModel", "Learner"]
