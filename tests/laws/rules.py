"""The table of rules: which laws each obeys. Adding a rule is a function, a yaml, and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from kuiper import aggregation, registry
from kuiper.aggregation import Rule

ROUNDING = 32 * torch.finfo(torch.float64).eps
"""Of a few operations after another."""
ITERATED = 1e-7
"""Of Weiszfeld's steps, which begin elsewhere where rows are turned, and end when one moves by 1e-9."""


@dataclass(frozen=True)
class Row:
    """A rule as a spec writes it, and the laws beyond those that all rules obey.

    Attributes:
        spec, pre: what `aggregation.make` takes.
        robust: f rows anywhere leave the result bounded; `together`: if they agree; `finite`: if they are;
            False: one row breaks it.
        inside: under attack the result stays in the coordinate hull of the honest rows.
        trusts: row 0 is taken on trust: it is honest, and keeps its place.
        permutation, translation, scale, odd (scale by -1), orthogonal, identical, hull: equivariances.
        untied: (n, f) -> (n, f, how far f rows are moved) for which no two scores are equal by definition;
            where they are the lowest index decides, and the order of rows matters.
        tolerance: of equivariances, as a part of the largest entry.
        kappa: of r = f / (n - 2f) and f / n.
    """

    name: str
    spec: Any
    pre: Any = ()
    robust: bool | str = True
    inside: bool = True
    trusts: bool = False
    permutation: bool = True
    translation: bool = True
    scale: bool = True
    odd: bool = True
    orthogonal: bool = False
    identical: bool = True
    hull: bool = True
    untied: Callable[[int, int], tuple[int, int, float]] = lambda n, f: (n, f, 0.0)
    tolerance: float = ROUNDING
    kappa: Callable[[float, float], float] | None = None

    def rule(self, f: int) -> Rule:
        return aggregation.make(self.spec, f=f, pre=self.pre)

    def __call__(self, rows: Tensor, f: int) -> Tensor:
        return self.rule(f)(rows)

    def least(self, f: int) -> int:
        """The fewest rows for f."""
        rule = self.rule(f)
        return registry.least_rows(rule.pre_confs, rule.conf, f)

    def most_byzantine(self, n: int) -> int:
        return max(f for f in range(n) if f == 0 or self.least(f) <= n)


def _median(r: float, part: float) -> float:
    return 4 * (1 + r) ** 2


def _krum(r: float, part: float) -> float:
    return 6 * (1 + r)


def _trimmed(r: float, part: float) -> float:
    return 6 * r * (1 + r)


def _mixed(of: Callable[[float, float], float], r: float, part: float) -> float:
    return 8 * part / (1 - part) * (of(r, part) + 1)


def _around(of: Callable[[float, float], float], r: float, part: float) -> float:
    return 60 * part * (1 + of(r, part))


def _odd(n: int, f: int) -> tuple[int, int, float]:
    return n | 1, f, 0.0


def _row(name: str, spec: Any = None, **laws: Any) -> Row:
    return Row(name, spec or name, **laws)


RULES = [
    _row("average", robust=False, orthogonal=True),
    _row("average_finite", robust=False, orthogonal=True),
    _row("median", kappa=_median),
    _row("median-lower", {"median": {"convention": "lower"}}, odd=False, kappa=_median),
    _row("median-upper", {"median": {"convention": "upper"}}, odd=False, kappa=_median),
    _row("trimmed_mean", kappa=_trimmed),
    _row("meamed", inside=False),
    _row("phocas", inside=False),
    _row("krum", orthogonal=True, kappa=_krum),
    _row("krum-garfield", {"krum": {"variant": "garfield"}}, orthogonal=True),
    _row("krum-byzfl", {"krum": {"variant": "byzfl"}}, orthogonal=True),
    _row("krum-epfml", {"krum": {"variant": "epfml"}}, orthogonal=True),
    _row("multi_krum", orthogonal=True),
    # With one neighbour, as in the last turns for f < 3, rows that are each other's nearest have one score.
    _row("bulyan", untied=lambda n, f: (max(n, 15), 3, 0.0)),
    # Here that is so without Byzantine rows; and the upper of two middle values is not odd.
    _row("bulyan-garfield", {"bulyan": {"variant": "garfield", "m": None}}, odd=False,
         untied=lambda n, f: (max(n, 4 * max(f, 1) + 3), max(f, 1), 0.0)),
    # Two rows make the diameter of many sets: one set is best where f rows are remote.
    _row("mda", orthogonal=True, untied=lambda n, f: (n, f, 100.0)),
    _row("mda-nearest", {"mda": {"search": "nearest"}}, orthogonal=True, untied=lambda n, f: (n, f, 100.0)),
    _row("mva", orthogonal=True),
    _row("smea", orthogonal=True),
    _row("cge", translation=False, inside=False, orthogonal=True),
    _row("aksel"),
    _row("aksel-n-f", {"aksel": {"keep": "n-f"}}),
    _row("condense", trusts=True),
    _row("monna", trusts=True, orthogonal=True),
    _row("geometric_median", inside=False, orthogonal=True, tolerance=ITERATED, kappa=_median),
    _row("rfa", inside=False, translation=False, scale=False, odd=False, orthogonal=True),
    # It ends where its objective, which is flat at the best point, moves by less than 1e-10.
    _row("auto_gm", inside=False, scale=False, odd=False, orthogonal=True, tolerance=1e-5),
    _row("centered_clipping", inside=False, translation=False, scale=False, odd=False, orthogonal=True,
         identical=False, hull=False),
    _row("ctma", orthogonal=True, kappa=partial(_around, _median)),
    _row("ctma-trimmed_mean", {"ctma": {"base": "trimmed_mean"}}, kappa=partial(_around, _trimmed)),
    _row("ctma-rfa", {"ctma": {"base": "rfa"}}, translation=False, scale=False, odd=False, orthogonal=True),
    _row("caf", inside=False, orthogonal=True),
    # One direction does not show rows that are remote in several, which draw the mean that it is about.
    _row("dnc", robust="together", orthogonal=True),
    # Of an odd number of rows, two clusters differ in size; with other signs other equal pairs are first.
    _row("signguard", inside=False, translation=False, odd=False, hull=False, untied=_odd),
    _row("clipped_clustering", inside=False, translation=False, orthogonal=True, hull=False, untied=_odd),
    _row("fltrust", trusts=True, inside=False, translation=False, orthogonal=True, hull=False),
    _row("sign_majority", inside=False, translation=False, scale=False, odd=False, identical=False,
         hull=False),
    # Rows with the same neighbours become the same: two pairs of such have one score.
    _row("nnm-krum", "krum", pre="nnm", inside=False, orthogonal=True, permutation=False,
         kappa=partial(_mixed, _krum)),
    _row("nnm-median", "median", pre="nnm", inside=False, kappa=partial(_mixed, _median)),
    _row("nnm-trimmed_mean", "trimmed_mean", pre="nnm", inside=False, kappa=partial(_mixed, _trimmed)),
    # Half of the mixtures may be one point and half another: whatever lies between is a median.
    _row("nnm-geometric_median", "geometric_median", pre="nnm", inside=False,
         kappa=partial(_mixed, _median)),
    # Places are drawn, so that another order makes other buckets.
    _row("bucketing-median", "median", pre={"bucketing": {"s": 2}}, inside=False, permutation=False),
    _row("clip-average", "average", pre={"clip": {"c": 3.0}}, inside=False, translation=False, scale=False,
         odd=False, orthogonal=True, identical=False, hull=False, robust="finite"),
    _row("arc-nnm-krum", "krum", pre=["arc", "nnm"], inside=False, permutation=False, translation=False,
         orthogonal=True, hull=False),
]


def each(*laws: str, rules: list[Row] = RULES) -> pytest.MarkDecorator:
    """Over every rule that claims all of these laws."""
    chosen = [row for row in rules if all(getattr(row, law) for law in laws)]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def shuffled(seed: int, n: int, kept: int = 0) -> Tensor:
    """0..n-1 in random order, the first `kept` in their places."""
    order = torch.randperm(n - kept, generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.arange(kept), kept + order])


def attacked(seed: int, n: int, d: int, f: int, values: Tensor, trusted: int = 0) -> tuple[Tensor, Tensor]:
    """(rows, honest rows): f rows at random places behind the trusted ones hold `values`, broadcast."""
    rows = normal(seed, n, d, dtype=values.dtype)
    places = shuffled(seed, n, trusted).roll(-trusted)
    rows[places[:f]] = values
    return rows, rows[places[f:].sort().values]


def in_hull(result: Tensor, rows: Tensor) -> bool:
    """Within the rows' coordinate hull, up to one rounding of the result."""
    slack = torch.finfo(result.dtype).eps * rows.abs().amax(0)
    return bool(((result >= rows.amin(0) - slack) & (result <= rows.amax(0) + slack)).all())
