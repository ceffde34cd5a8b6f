"""What is timed: every rule and pre-aggregator of kuiper, with its counterpart in ByzFL 0.0.11 where it has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from kuiper import aggregation, registry

Call = Callable[[torch.Tensor], Any]
ONCE = ("average", "clip", "arc")
"""Read their input once, whoever writes them: no part in the mean."""
SETS = {"MDA": 100_000, "SMEA": 1_000}
"""ByzFL tries all sets of n - f rows: up to how many it is waited for (SMEA looks at all columns for each)."""
BYZFL: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "average": ("Average", lambda f: {}),
    "clip": ("Clipping", lambda f: {}),
    "arc": ("ARC", lambda f: {"f": f}),
    "median": ("Median", lambda f: {}),
    "trimmed_mean": ("TrMean", lambda f: {"f": f}),
    "meamed": ("Meamed", lambda f: {"f": f}),
    "krum": ("Krum", lambda f: {"f": f}),
    "multi_krum": ("MultiKrum", lambda f: {"f": f}),
    "rfa": ("GeometricMedian", lambda f: {"nu": 0.1, "T": 3}),
    "centered_clipping": ("CenteredClipping", lambda f: {"L": 1, "tau": 100.0}),
    "monna": ("MoNNA", lambda f: {"f": f}),
    "caf": ("CAF", lambda f: {"f": f}),
    "nnm": ("NNM", lambda f: {"f": f}),
    "bucketing": ("Bucketing", lambda f: {"s": 2}),
    "mda": ("MDA", lambda f: {"f": f}),
    "smea": ("SMEA", lambda f: {"f": f}),
}
SAME: dict[str, dict[str, Any]] = {"krum": {"variant": "byzfl"}, "multi_krum": {"variant": "byzfl"},
                                   "centered_clipping": {"tau": 100.0, "iterations": 1}, "bucketing": {"s": 2}}
"""Parameters with which ours is what ByzFL's is."""


@dataclass(frozen=True)
class Pair:
    """One rule or pre-aggregator.

    Attributes:
        kind: by the cost that its yaml states: `reads` its input, sorts `columns`, needs `distances`,
            `mixes` rows by distances, or is a `search`.
        theirs: ByzFL's name; "" where it has none.
    """

    name: str
    group: str
    kind: str
    theirs: str

    def ours(self, f: int) -> Call:
        """What is called with the rows (n, d)."""
        parameters = SAME.get(self.name, {})
        if self.group == "pre_aggregator":
            return partial(getattr(aggregation, self.name), f=f, **parameters)
        return aggregation.make({self.name: parameters}, f=f)

    def byzfl(self, f: int) -> Call:
        """Its counterpart; it needs the operators that kuiper declares where torchvision lacks them."""
        from kuiper.models._torchvision import import_torchvision

        import_torchvision()
        import byzfl

        made = getattr(byzfl, self.theirs)(**BYZFL[self.name][1](f))
        changes_its_input = self.theirs in ("ARC", "Clipping")
        return (lambda rows: made(rows.clone())) if changes_its_input else made


def _pair(name: str, group: str) -> Pair:
    cost = registry.table(group)[name]["_cost_"]
    kind = "columns" if "log" in cost else "reads"
    if cost.startswith("n^2 d"):
        kind = "mixes" if group == "pre_aggregator" else "search" if "search" in cost else "distances"
    return Pair(name, group, kind, BYZFL.get(name, ("",))[0])


PAIRS = [_pair(name, group) for group in ("aggregator", "pre_aggregator") for name in registry.table(group)]
BY_NAME = {pair.name: pair for pair in PAIRS}
