"""Where an attack acts: at its sender, inside the receiver's gather, on labels, or by silence.

Roles know nothing of this: a link calls the adversary when rows leave and when they arrive.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from kuiper import random

if TYPE_CHECKING:
    from kuiper.aggregation import Rule


@dataclass(frozen=True)
class Adversary:
    """The Byzantine nodes of a job and what they do.

    Attributes:
        byzantine: (b,) int64 node ids, ascending.
        acts_on: 'gather' (omniscient: replaces rows at the receiver, from the honest rows of that gather),
            'neighbours' (the same at a peer, whose own row comes first), 'rows' (at the sender), 'labels',
            'inputs', 'nothing_sent', or 'none'.
        attack: the attack's function; None when there is nothing to call. One that takes `generator`, `rule`
            or `state` is given them.
        seed: of what attacks draw, by node and step.
        rule: what the receiver applies.
        state: what an omniscient attack keeps between gathers.
    """

    byzantine: np.ndarray
    acts_on: str = "none"
    attack: Callable | None = None
    seed: int = 0
    rule: Rule | None = None
    state: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def silent(self) -> np.ndarray:
        """Nodes that send nothing: to everyone else they are gone."""
        return self.byzantine if self.acts_on == "nothing_sent" else self.byzantine[:0]

    @cached_property
    def takes(self) -> frozenset[str]:
        """Parameters of the attack's function."""
        return frozenset(inspect.signature(self.attack).parameters) if self.attack else frozenset()

    def leaving(self, nodes: np.ndarray, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Rows (k, d) as they leave their senders."""
        if self.acts_on != "rows":
            return rows
        bad = _places(np.isin(nodes, self.byzantine))
        if not len(bad):
            return rows
        return rows.index_copy(0, bad.to(rows.device), self._of_each(nodes, bad, rows, step))

    def arriving(self, nodes: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
        """Rows (m, d) of one gather as the receiver's rule sees them."""
        return self.replaced(nodes, rows, self.state) if self.acts_on == "gather" else rows

    def at_receiver(self, own: torch.Tensor, senders: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
        """Rows of one peer's neighbours; the peer's own row (d,) comes first, and counts as an honest one.

        Nothing is kept: which receivers share a process must not matter.
        """
        own_and_rows = torch.cat([own[None], rows])
        return self.replaced(np.concatenate([[-1], senders]), own_and_rows, {})[1:]

    def replaced(self, nodes: np.ndarray, rows: torch.Tensor, state: dict[str, torch.Tensor]) -> torch.Tensor:
        """Rows with the attackers' made of the honest ones."""
        is_bad = np.isin(nodes, self.byzantine)
        bad, good = _places(is_bad), _places(~is_bad)
        if not len(bad) or not len(good):
            return rows
        context = {"rule": self.rule, "state": state}
        given = {name: value for name, value in context.items() if name in self.takes}
        return rows.index_copy(0, bad.to(rows.device), self.attack(rows[good], len(bad), **given))

    def labels(self, nodes: np.ndarray, labels: torch.Tensor, classes: int) -> torch.Tensor:
        """Labels (k, ...) as each node of a block sees them."""
        if self.acts_on != "labels":
            return labels
        bad = _places(np.isin(nodes, self.byzantine)).to(labels.device)
        return labels if not len(bad) else labels.index_copy(0, bad, self.attack(labels[bad], classes))

    def inputs(self, nodes: np.ndarray, inputs: torch.Tensor, number: int) -> torch.Tensor:
        """Inputs (k, b, ...) of one batch of each node of a block."""
        if self.acts_on != "inputs":
            return inputs
        bad = _places(np.isin(nodes, self.byzantine))
        if not len(bad):
            return inputs
        return inputs.index_copy(0, bad.to(inputs.device), self._of_each(nodes, bad, inputs, number))

    def _of_each(self, nodes: np.ndarray, bad: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """The attack on some rows; node by node where each draws for itself."""
        if "generator" not in self.takes:
            return self.attack(rows[bad])
        return torch.cat([
            self.attack(rows[place : place + 1],
                        generator=random.numpy_generator(self.seed, "attack", int(nodes[place]), step))
            for place in bad.tolist()])


def _places(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(mask))
