"""Where an attack acts: at its sender, inside the receiver's gather, on labels, or by silence.

Roles know nothing of this: a link calls the adversary when rows leave and when they arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Adversary:
    """The Byzantine nodes of a job and what they do.

    Attributes:
        byzantine: (b,) int64 node ids, ascending.
        acts_on: 'gather' (omniscient: replaces rows at the receiver, from the honest rows of
            that gather), 'rows' (at the sender), 'labels', 'nothing_sent', or 'none'.
        attack: the attack's function; None when there is nothing to call.
    """

    byzantine: np.ndarray
    acts_on: str = "none"
    attack: Callable | None = None

    @property
    def silent(self) -> np.ndarray:
        """Nodes that send nothing: to everyone else they are gone."""
        return self.byzantine if self.acts_on == "nothing_sent" else self.byzantine[:0]

    def leaving(self, nodes: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
        """Rows (k, d) as they leave their senders."""
        if self.acts_on != "rows":
            return rows
        bad = _places(np.isin(nodes, self.byzantine))
        return rows if not len(bad) else rows.index_copy(0, bad, self.attack(rows[bad]))

    def arriving(self, nodes: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
        """Rows (m, d) of one gather as the receiver's rule sees them."""
        if self.acts_on != "gather":
            return rows
        is_bad = np.isin(nodes, self.byzantine)
        bad, good = _places(is_bad), _places(~is_bad)
        if not len(bad) or not len(good):
            return rows
        return rows.index_copy(0, bad, self.attack(rows[good], len(bad)))

    def at_receiver(self, own: torch.Tensor, senders: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
        """Rows of one peer's neighbours; the peer's own row (d,) counts as an honest one."""
        own_and_rows = torch.cat([own[None], rows])
        return self.arriving(np.concatenate([[-1], senders]), own_and_rows)[1:]

    def labels(self, nodes: np.ndarray, labels: torch.Tensor, classes: int) -> torch.Tensor:
        """Labels (k, ...) as each node of a block sees them."""
        if self.acts_on != "labels":
            return labels
        bad = _places(np.isin(nodes, self.byzantine)).to(labels.device)
        return labels if not len(bad) else labels.index_copy(0, bad, self.attack(labels[bad], classes))


def _places(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.flatnonzero(mask))
