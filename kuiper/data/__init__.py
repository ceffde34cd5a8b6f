"""Datasets held in memory as tensors, how nodes share them, and live augmentation.

A dataset is a function `name(seed, **params) -> Dataset`, a partition a function
`name(labels, nodes, rng, **params) -> list of index arrays`; each has one yaml in `config/groups`.
"""

from kuiper.data.dataset import Dataset
from kuiper.data.validation import hold_out

__all__ = ["Dataset", "hold_out"]
