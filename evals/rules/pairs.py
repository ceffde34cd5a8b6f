"""What is timed: rules of kuiper, each with its counterpart in ByzFL 0.0.11 where it has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kuiper import aggregation

Call = Callable[[torch.Tensor], Any]


@dataclass(frozen=True)
class Pair:
    """One rule.

    Attributes:
        ours: f -> what is called with the rows.
        theirs: ByzFL's name and parameters of f; "" where it has none.
        kind: `reads` (its input once: no part in the mean), `columns`, `distances`, `mixes` (n rows come
            out) or `search`.
    """

    name: str
    ours: Callable[[int], Call]
    kind: str
    theirs: str = ""
    parameters: Callable[[int], dict[str, Any]] = lambda f: {}


def _rule(spec: Any) -> Callable[[int], Call]:
    return lambda f: aggregation.make(spec, f=f)


def _f(f: int) -> dict[str, Any]:
    return {"f": f}


PAIRS = [
    Pair("average", _rule("average"), "reads", "Average"),
    Pair("clip", lambda f: lambda rows: aggregation.clip(rows, f), "reads", "Clipping"),
    Pair("arc", lambda f: lambda rows: aggregation.arc(rows, f), "reads", "ARC", _f),
    Pair("median", _rule("median"), "columns", "Median"),
    Pair("trimmed_mean", _rule("trimmed_mean"), "columns", "TrMean", _f),
    Pair("meamed", _rule("meamed"), "columns", "Meamed", _f),
    Pair("phocas", _rule("phocas"), "columns"),
    Pair("krum", _rule({"krum": {"variant": "byzfl"}}), "distances", "Krum", _f),
    Pair("multi_krum", _rule({"multi_krum": {"variant": "byzfl"}}), "distances", "MultiKrum", _f),
    Pair("geometric_median", _rule("geometric_median"), "distances"),
    Pair("rfa", _rule("rfa"), "distances", "GeometricMedian", lambda f: {"nu": 0.1, "T": 3}),
    Pair("centered_clipping", _rule({"centered_clipping": {"tau": 100.0, "iterations": 1}}), "distances",
         "CenteredClipping", lambda f: {"L": 1, "tau": 100.0}),
    Pair("monna", _rule("monna"), "distances", "MoNNA", _f),
    Pair("caf", _rule("caf"), "distances", "CAF", _f),
    Pair("ctma", _rule("ctma"), "distances"),
    Pair("aksel", _rule("aksel"), "distances"),
    Pair("cge", _rule("cge"), "distances"),
    Pair("auto_gm", _rule("auto_gm"), "distances"),
    Pair("clipped_clustering", lambda f: lambda rows: aggregation.clipped_clustering(rows, f), "distances"),
    Pair("fltrust", _rule("fltrust"), "distances"),
    Pair("signguard", _rule("signguard"), "distances"),
    Pair("dnc", _rule("dnc"), "distances"),
    Pair("bulyan", _rule("bulyan"), "distances"),
    Pair("nnm", lambda f: lambda rows: aggregation.nnm(rows, f), "mixes", "NNM", _f),
    Pair("bucketing", lambda f: lambda rows: aggregation.bucketing(rows, f, s=2), "mixes", "Bucketing",
         lambda f: {"s": 2}),
    Pair("mda", _rule("mda"), "search", "MDA", _f),
    Pair("mva", _rule("mva"), "search"),
    Pair("smea", _rule("smea"), "search", "SMEA", _f),
]
BY_NAME = {pair.name: pair for pair in PAIRS}
SETS = {"MDA", "SMEA"}  # ByzFL tries all sets of n - f rows


def theirs(pair: Pair, f: int) -> Call:
    """ByzFL's counterpart; it needs the operators that kuiper declares where torchvision lacks them."""
    from kuiper.models._torchvision import import_torchvision

    import_torchvision()
    import byzfl

    made = getattr(byzfl, pair.theirs)(**pair.parameters(f))
    if pair.theirs == "ARC":  # it changes its input
        return lambda rows: made(rows.clone())
    return made
