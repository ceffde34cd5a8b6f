"""Rows that hold more than parameters: a rule is applied to those, and to the rest by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from kuiper.aggregation.rule import Rule


class Apart:
    """A rule on the first `parameters` columns, and once more on the others.

    The others are changes of BatchNorm's running statistics: variances of activations, whose size has
    nothing to do with that of gradients, and which would decide distances between whole rows.
    """

    def __init__(self, rule: Rule, parameters: int) -> None:
        self.parameters = parameters
        self.rules = (rule, rule.copy())

    def __call__(self, rows_nd: Tensor, f: int | None = None, step: int | None = None) -> Tensor:
        """As the rule."""
        parts = rows_nd.tensor_split((self.parameters,), dim=1)
        return torch.cat([rule(part, f, step) for rule, part in zip(self.rules, parts, strict=True)])

    def copy(self, f: int | None = None, step: int | None = None) -> Apart:
        """As the rule's."""
        other = Apart(self.rules[0], self.parameters)
        other.rules = tuple(rule.copy(f, step) for rule in self.rules)
        return other

    @property
    def state(self) -> dict[str, Tensor]:
        """Of both: that of the others under a name of its own."""
        first, second = self.rules
        return first.state | {f"apart.{name}": value for name, value in second.state.items()}

    @state.setter
    def state(self, state: dict[str, Tensor]) -> None:
        first, second = self.rules
        first.state = {name: value for name, value in state.items() if not name.startswith("apart.")}
        second.state = {name.removeprefix("apart."): value for name, value in state.items()
                        if name.startswith("apart.")}

    def influence(self, byzantine: list[int]) -> float | None:
        """Of the parameters."""
        return self.rules[0].influence(byzantine)
