"""Means of the n - f rows nearest to something: to zero, to the median, to a row, to another rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from kuiper.aggregation._order import statistic
from kuiper.aggregation._ties import ascending
from kuiper.aggregation.cloud import Applied, Cloud, Weights, apply, in_n_space, majority, of_rows, unwrapped
from kuiper.errors import JobFailed, SpecError


def nearest(squared_m: np.ndarray, kept: int) -> Weights:
    """1 for the `kept` smallest, lowest index first among equals; 0 for the others."""
    weights = np.zeros(len(squared_m))
    weights[ascending(squared_m)[:kept]] = 1
    return weights


@in_n_space
def cge(cloud: Cloud, f: int) -> Weights:
    """Comparative gradient elimination: mean of the n - f rows of smallest norm (Gupta, Liu & Vaidya 2021).

    Args:
        cloud: rows (n, d), any float dtype.
        f: rows to drop, 2f < n.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.

    Laws: permutation, scale, orthogonal, identical rows, hull; not translation.
    """
    majority("cge", len(cloud), f)
    return nearest(cloud.squared_norms(), len(cloud) - f)


@in_n_space
def aksel(cloud: Cloud, f: int, *, keep: str = "majority") -> Weights:
    """Mean of the c rows nearest the coordinate median (Boussetta et al. 2021, AKSEL; Garfield's code takes
    the lower median of an even n).

    Args:
        cloud: rows (n, d), any float dtype.
        f: declared Byzantine rows, n >= 2f + 1.
        keep: `majority` for c = floor((n + 1) / 2), or `n-f`.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.
        SpecError: `keep` is neither.

    Laws: permutation, translation, scale, identical rows, hull.
    """
    n = len(cloud)
    majority("aksel", n, f)
    if keep not in ("majority", "n-f"):
        raise SpecError(f"aksel: keep = {keep!r}", "choose one of majority, n-f")
    if cloud.mixture_mn is not None:  # the median of mixtures is none of the rows'
        cloud = Cloud(cloud.vectors(), f, "aksel")
    about = cloud.about(statistic("aksel", "median", cloud.rows_nd, f))
    return nearest(about.squared_from_centre(), (n + 1) // 2 if keep == "majority" else n - f)


@in_n_space
def monna(cloud: Cloud, f: int, *, reference: int = 0) -> Weights:
    """Mean of the n - f rows nearest a trusted one, itself included (Farhadkhani et al. 2023, MoNNA).

    Args:
        cloud: rows (n, d), any float dtype.
        f: rows to drop, 2f < n.
        reference: index of the trusted row.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows, or the trusted one, are infinitely far.
        SpecError: there is no such row.

    Laws: translation, scale, orthogonal, identical rows, hull; permutation where the reference follows.
    """
    majority("monna", len(cloud), f)
    trusted(cloud, "monna", reference)
    if cloud.mixture_mn is None:
        return nearest(cloud.about(cloud.rows_nd[reference]).squared_from_centre(), len(cloud) - f)
    return nearest(cloud.squared_mm[reference], len(cloud) - f)


def trusted(cloud: Cloud, rule: str, reference: int) -> None:
    """Raise unless there is such a row, and it is finite."""
    if not 0 <= reference < len(cloud):
        raise SpecError(f"{rule}: reference = {reference} is not one of the rows 0..{len(cloud) - 1}",
                        "give the index of the trusted row")
    lost = not cloud.rows_nd[reference].isfinite().all() if cloud.mixture_mn is None else cloud.far[reference]
    if lost:
        raise JobFailed(f"{rule}: the trusted row, {reference}, is not finite or overflows",
                        "an honest node diverged: lower the learning rate")


@of_rows
def ctma(rows_nd: Tensor, f: int, *, base: Callable[..., Tensor]) -> Tensor:
    """Centred trimmed meta-aggregator: mean of exactly the n - f rows nearest base(rows) (Dahan & Levy 2024).

    Args:
        rows_nd: (n, d), any float dtype.
        f: rows to drop, 2f < n, and what the base needs.
        base: any rule (rows, f) -> (d,).

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n, or too few rows for the base.
        JobFailed: more than f rows are infinitely far.

    Laws: permutation, translation, scale, orthogonal as far as the base obeys them; identical rows, hull;
    (f, kappa)-robust with 60 (f / n) (1 + kappa of the base) (Dahan & Levy 2024).
    """
    return _around(Cloud(rows_nd, f, "ctma"), f, base=base)[0]


def _around(cloud: Cloud, f: int, *, base: Callable[..., Tensor]) -> Applied:
    """CTMA of a cloud; where the base has weights in n-space, its result itself is never made."""
    majority("ctma", len(cloud), f)
    function, parameters = unwrapped(base)
    weights = None
    if hasattr(function, "weigh"):
        cloud = cloud.about_median()  # what some bases start at: one product then serves both
        weights = function.weigh(cloud, f, **parameters)
    if weights is not None and weights.ndim == 1:
        squared = cloud.squared_from(weights / weights.sum())
    else:
        squared = cloud.about(apply(base, cloud, f)[0]).squared_from_centre()
    weights = nearest(squared, len(cloud) - f)
    return cloud.mean(weights), weights


ctma.on = _around
