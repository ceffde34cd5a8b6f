"""Rows that hold more than parameters: a rule is applied to those, and to the rest by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Rule = Callable[[Tensor, int], Tensor]


def apart(rule: Rule, parameters: int) -> Rule:
    """The rule on the first `parameters` columns, and once more on the others.

    The others are changes of BatchNorm's running statistics: variances of activations, whose size has
    nothing to do with that of gradients, and which would decide distances between whole rows.
    """
    return partial(_apart, rule, parameters)


def _apart(rule: Rule, parameters: int, rows_nd: Tensor, f: int) -> Tensor:
    return torch.cat([rule(part, f) for part in rows_nd.tensor_split((parameters,), dim=1)])
