"""Where an attack acts: at its sender, inside the receiver's gather, on labels, or by silence.

Roles know nothing of this: a link calls the adversary when rows leave and when they arrive, a learner when it
computes them.

Letters: b attackers, k batches of each, d parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kuiper import random

if TYPE_CHECKING:
    from kuiper.aggregation import Rule
    from kuiper.aggregation.apart import Apart

@dataclass(eq=False)
class Adversary:
    """The Byzantine nodes of a job and what they do.

    Attributes:
        byzantine: (b,) int64 node ids, ascending.
        acts_on: 'gather' (omniscient: replaces rows at the receiver, from the honest rows of that gather),
            'neighbours' (the same at a peer, whose own row comes first), 'batches' (at the sender, from rows
            of its own batches in place of honest ones), 'rows' (at the sender), 'labels', 'inputs',
            'nothing_sent', or 'none'.
        attack: the attack's function; None when there is nothing to call. One that takes `generator`, `rule`,
            `state` or `n` is given them.
        seed: of what attacks draw, by node and step.
        rule: what the receiver applies; of a job, known once its model is.
        tolerated: the f that the receiver tells its rule for so many rows; None for the rule's own.
        batches: k, of one that acts on them.
        nodes: n, attackers and all.
        state: what an omniscient attack keeps between gathers.
    """

    byzantine: np.ndarray
    acts_on: str = "none"
    attack: Callable | None = None
    seed: int = 0
    rule: Rule | Apart | None = None
    tolerated: Callable[[int], int] | None = None
    batches: int = 0
    nodes: int = 0
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

    def arriving(self, nodes: np.ndarray, rows: torch.Tensor, step: int) -> torch.Tensor:
        """Rows (m, d) of one gather as the receiver's rule sees them."""
        return self.replaced(nodes, rows, self.state, step) if self.acts_on == "gather" else rows

    def guessing(self, nodes: np.ndarray) -> np.ndarray:
        """Places among `nodes` of attackers that must guess from their own batches what the others send."""
        return np.flatnonzero(np.isin(nodes, self.byzantine) & (self.acts_on == "batches"))

    def guessed(self, rows_bkd: torch.Tensor, step: int | None) -> torch.Tensor:
        """What each of some attackers makes of k rows of its own, (b, d).

        It knows the rule, but not what the rule keeps, and stands in for honest rows with its own.
        """
        given = self._given(rule=self._copied(rows_bkd.shape[1] + len(self.byzantine), step), n=self.nodes)
        if "rule" in given:
            given["rule"].state = {}
        return torch.stack([self.attack(rows_kd, len(self.byzantine), **given)[0] for rows_kd in rows_bkd])

    def at_receiver(self, own: torch.Tensor, senders: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
        """Rows of one peer's neighbours; the peer's own row (d,) comes first, and counts as an honest one.

        Nothing is kept: which receivers share a process must not matter.
        """
        own_and_rows = torch.cat([own[None], rows])
        return self.replaced(np.concatenate([[-1], senders]), own_and_rows, {}, None)[1:]

    def replaced(self, nodes: np.ndarray, rows: torch.Tensor, state: dict[str, torch.Tensor],
                 step: int | None) -> torch.Tensor:
        """Rows with the attackers' made of the honest ones."""
        is_bad = np.isin(nodes, self.byzantine)
        bad, good = _places(is_bad), _places(~is_bad)
        if not len(bad) or not len(good):
            return rows
        given = self._given(rule=self._copied(len(rows), step), state=state)
        return rows.index_copy(0, bad.to(rows.device), self.attack(rows[good], len(bad), **given))

    def _given(self, **context: Any) -> dict[str, Any]:
        """What the attack's function takes of its context."""
        return {name: value for name, value in context.items() if name in self.takes}

    def _copied(self, rows: int, step: int | None) -> Rule | Apart | None:
        """The receiver's rule as it will be applied to so many rows, on a copy of its state."""
        f = None if self.tolerated is None else self.tolerated(rows)
        return None if self.rule is None else self.rule.copy(f, step)

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
