"""Krum, Multi-Krum and Bulyan: trust the rows whose nearest neighbours are nearest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kuiper.aggregation._bounds import require
from kuiper.aggregation._finite import refuse_beyond
from kuiper.aggregation._order import statistic
from kuiper.aggregation._ties import ascending
from kuiper.aggregation.cloud import Applied, Cloud, Weights, in_n_space, of_rows
from kuiper.errors import SpecError

VARIANTS = {"paper": (2, 2, 2), "byzfl": (2, 1, 0), "garfield": (1, 1, 2), "epfml": (4, 2, 2)}
"""Power of the distances that are summed; how many fewer than n - f neighbours count, and rows are kept."""


def scores(squared_mm: np.ndarray, neighbours: int, power: int = 2) -> np.ndarray:
    """Each vector's sum of its smallest distances to the others, to a power, (m,)."""
    return (np.sort(_to_others(squared_mm), axis=1)[:, :neighbours] ** (power / 2)).sum(axis=1)


def _to_others(squared_mm: np.ndarray) -> np.ndarray:
    return squared_mm + np.diag(np.full(len(squared_mm), np.inf))


@in_n_space
def multi_krum(cloud: Cloud, f: int, *, m: int | None = None, variant: str = "paper") -> Weights:
    """Mean of the m rows of lowest score (Blanchard et al. 2017).

    The score of a row is the sum of its n - f - 2 smallest squared distances to the others. Equal
    scores: the lowest index first. m = 1 is Krum.

    Args:
        cloud: rows (n, d), any float dtype. Non-finite rows, and rows whose squared distances overflow
            float64, are infinitely far.
        f: declared Byzantine rows, n >= 2f + 3.
        m: rows to keep, 1..n-f; None is n - f - 2, as in AggregaThor, also when f = 0 (`byzfl`: n - f).
        variant: what others compute: `byzfl` (ByzFL) takes n - f - 1 neighbours; `garfield` (Garfield's
            Python; its compiled code is the paper's) those and distances that are not squared; `epfml`
            (theirs and Blades') n - f - 2 and fourth powers.

    Returns:
        (d,), the input's dtype and device: the mean of the kept rows, added in float64 in node order.

    Raises:
        TooManyByzantine: n < 2f + 3.
        JobFailed: more than f rows are infinitely far.
        SpecError: m is out of bounds, or the variant unknown.

    Laws: permutation, translation, scale, orthogonal (all where no two scores are equal within
    rounding), identical rows, hull; for m = 1 (f, kappa)-robust with kappa = 6 (1 + f / (n - 2f))
    (Allouah et al. 2023).
    """
    n = len(cloud)
    require("multi_krum", n, f, factor=2, plus=3)
    if variant not in VARIANTS:
        raise SpecError(f"multi_krum: variant = {variant!r}", f"choose one of {', '.join(VARIANTS)}")
    power, unseen, dropped = VARIANTS[variant]
    kept = n - f - dropped if m is None else m
    if not 1 <= kept <= n - f:
        raise SpecError(
            f"multi_krum: m = {m} is not in 1..n-f = 1..{n - f} (n = {n}, f = {f})",
            "leave m out, or set 1 for Krum",
        )
    score_n = scores(cloud.squared_mm, n - f - unseen, power)
    refuse_beyond("multi_krum", int(np.isinf(score_n).sum()), n, f)
    weights = np.zeros(n)
    weights[ascending(score_n)[:kept]] = 1
    return weights


def selected_by_bulyan(cloud: Cloud, f: int, *, m: int | None, variant: str) -> Weights:
    """The theta vectors that Bulyan's first phase selects, as weights (theta, n)."""
    n = len(cloud)
    require("bulyan", n, f, factor=4, plus=3)
    if variant not in ("paper", "garfield"):
        raise SpecError(f"bulyan: variant = {variant!r}", "choose one of paper, garfield")
    most = n - f - 2
    averaged = most if m is None else m
    if not 1 <= averaged <= most:
        raise SpecError(f"bulyan: m = {m} is not in 1..n-f-2 = 1..{most} (n = {n}, f = {f})",
                        "leave m out for 1, as in the paper")
    subtracts = variant == "garfield"
    counted_mm = _of_nearest(cloud.squared_mm, most) if subtracts else cloud.squared_mm
    remaining = list(range(n))
    weights = np.zeros((n - 2 * f - 2 * subtracts, n))
    for turn, weight_n in enumerate(weights):
        here = np.array(remaining)
        among_mm = counted_mm[np.ix_(here, here)]
        score_m = among_mm.sum(1) if subtracts else scores(among_mm, max(1, len(here) - f - 2))
        order = here[ascending(score_m)]
        taken = order[: max(1, min(averaged, most - turn))]
        weight_n[taken] = 1 / len(taken)
        remaining.remove(order[0])
    return weights


def _of_nearest(squared_mm: np.ndarray, neighbours: int) -> np.ndarray:
    """Squared distances to each vector's nearest others, 0 to the rest."""
    counted_mm = np.zeros_like(squared_mm)
    nearest = ascending(_to_others(squared_mm))[:, :neighbours]
    np.put_along_axis(counted_mm, nearest, np.take_along_axis(squared_mm, nearest, axis=1), axis=1)
    return counted_mm


@of_rows
def bulyan(rows_nd: Tensor, f: int, *, m: int | None = 1, variant: str = "paper") -> Tensor:
    """Krum picks, the median judges (El Mhamdi, Guerraoui & Rouault 2018).

    theta = n - 2f times the row of lowest Krum score among those that remain is set apart, scores being
    taken anew over max(1, remaining - f - 2) neighbours. Then per coordinate the mean of the theta - 2f
    values of these nearest their median.

    Args:
        rows_nd: (n, d), any float dtype.
        f: declared Byzantine rows, n >= 4f + 3.
        m: each pick is the mean of the m rows of lowest score, less as fewer remain (AggregaThor's); the
            paper's is 1; None for n - f - 2.
        variant: `paper`, or with `m` None what the compiled code of Garfield and AggregaThor computes:
            `garfield` has theta = n - 2f - 2, takes from a score the distances to rows set apart without
            looking for other neighbours, and the upper of two middle values for the median.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: n < 4f + 3.
        JobFailed: more than f rows are infinitely far.
        SpecError: m is out of bounds, or the variant unknown.

    Laws: permutation, translation, scale (where no two scores are equal: with a single neighbour, as at the
    end for f of 1 or 2, those of two rows that are each other's nearest are), identical rows, hull.
    """
    return _bulyan(Cloud(rows_nd, f, "bulyan"), f, m=m, variant=variant)[0]


def _bulyan(cloud: Cloud, f: int, *, m: int | None, variant: str) -> Applied:
    """Bulyan of a cloud, its second phase a few columns at a time; and how often each vector was picked."""
    picked = selected_by_bulyan(cloud, f, m=m, variant=variant)
    low = len(picked) // 2 if variant == "garfield" else None
    selection = cloud.mixed(picked, f)
    if (rows := selection.rows_picked) is not None:
        judged = statistic("bulyan", "meamed", cloud.rows_nd, 2 * f, low=low, high=low, chosen=rows)
        return judged, picked.sum(0)
    judged = [statistic("bulyan", "meamed", block, 2 * f, low=low, high=low) for block in selection.blocks()]
    return torch.cat(judged), picked.sum(0)


bulyan.on = _bulyan
