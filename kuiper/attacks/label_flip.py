"""Honest computation on wrong labels."""

from __future__ import annotations

from torch import Tensor


def label_flip(labels: Tensor, classes: int) -> Tensor:
    """Label y becomes classes - 1 - y; any shape, integer dtype; the input is not changed."""
    return classes - 1 - labels
