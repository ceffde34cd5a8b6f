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


@dataclass(frozen=True)
class Row:
    """A rule as a spec writes it, and the laws beyond those that all rules obey.

    Attributes:
        spec, pre: what `aggregation.make` takes.
        robust: f rows anywhere leave the result bounded; `together`: if they agree; False: one row breaks it.
        inside: under attack the result stays in the coordinate hull of the honest rows.
        permutation, translation, scale, odd (scale by -1), orthogonal, identical, hull: equivariances.
        kappa: of r = f / (n - 2f) and f / n.
    """

    name: str
    spec: Any
    pre: Any = ()
    robust: bool | str = True
    inside: bool = True
    permutation: bool = True
    translation: bool = True
    scale: bool = True
    odd: bool = True
    orthogonal: bool = False
    identical: bool = True
    hull: bool = True
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
    # Two that are each other's nearest have one score, many sets have one diameter: the lowest index decides.
    _row("bulyan", permutation=False),
    _row("bulyan-garfield", {"bulyan": {"variant": "garfield", "m": None}}, permutation=False),
    _row("mda", permutation=False, orthogonal=True),
    _row("mda-nearest", {"mda": {"search": "nearest"}}, orthogonal=True),
    _row("mva", orthogonal=True),
    _row("smea", orthogonal=True),
    _row("cge", translation=False, inside=False, orthogonal=True),
    _row("aksel"),
    _row("aksel-n-f", {"aksel": {"keep": "n-f"}}),
    _row("condense", robust=False, permutation=False),
    _row("monna", robust=False, permutation=False, orthogonal=True),
    _row("geometric_median", inside=False, orthogonal=True, kappa=_median),
    _row("rfa", inside=False, translation=False, scale=False, odd=False, orthogonal=True),
    _row("auto_gm", inside=False, scale=False, odd=False, orthogonal=True),
    _row("centered_clipping", inside=False, translation=False, scale=False, odd=False, orthogonal=True,
         identical=False, hull=False),
    _row("ctma", orthogonal=True, kappa=partial(_around, _median)),
    _row("ctma-trimmed_mean", {"ctma": {"base": "trimmed_mean"}}, kappa=partial(_around, _trimmed)),
    _row("ctma-rfa", {"ctma": {"base": "rfa"}}, translation=False, scale=False, odd=False, orthogonal=True),
    _row("caf", inside=False, orthogonal=True),
    _row("dnc", robust="together", orthogonal=True),
    _row("signguard", inside=False, permutation=False, translation=False, odd=False, hull=False),
    _row("clipped_clustering", inside=False, translation=False, orthogonal=True, hull=False),
    _row("fltrust", robust=False, permutation=False, translation=False, orthogonal=True, hull=False),
    _row("sign_majority", inside=False, translation=False, scale=False, odd=False, identical=False,
         hull=False),
    _row("nnm-krum", "krum", pre="nnm", inside=False, orthogonal=True, kappa=partial(_mixed, _krum)),
    _row("nnm-median", "median", pre="nnm", inside=False, kappa=partial(_mixed, _median)),
    _row("nnm-trimmed_mean", "trimmed_mean", pre="nnm", inside=False, kappa=partial(_mixed, _trimmed)),
    _row("nnm-geometric_median", "geometric_median", pre="nnm", inside=False, orthogonal=True,
         kappa=partial(_mixed, _median)),
    _row("bucketing-median", "median", pre={"bucketing": {"s": 2}}, inside=False, permutation=False),
    _row("clip-average", "average", pre={"clip": {"c": 3.0}}, inside=False, translation=False, scale=False,
         odd=False, orthogonal=True, identical=False, hull=False, robust="finite"),
    _row("arc-nnm-krum", "krum", pre=["arc", "nnm"], inside=False, translation=False, orthogonal=True,
         hull=False),
]


def each(*laws: str, rules: list[Row] = RULES) -> pytest.MarkDecorator:
    """Over every rule that claims all of these laws."""
    chosen = [row for row in rules if all(getattr(row, law) for law in laws)]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row.name)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def attacked(seed: int, n: int, d: int, f: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, honest rows): f rows at random places hold `values`, broadcast."""
    rows = normal(seed, n, d, dtype=values.dtype)
    places = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    rows[places[:f]] = values
    return rows, rows[places[f:].sort().values]


def in_hull(result: Tensor, rows: Tensor) -> bool:
    """Within the rows' coordinate hull, up to one rounding of the result."""
    slack = torch.finfo(result.dtype).eps * rows.abs().amax(0)
    return bool(((result >= rows.amin(0) - slack) & (result <= rows.amax(0) + slack)).all())
