"""Pre-aggregators that mix rows: nearest-neighbour mixing and bucketing."""

from __future__ import annotations

import math

import numpy as np

from kuiper.aggregation._ties import ascending
from kuiper.aggregation.cloud import Cloud, Weights, majority, mixes
from kuiper.errors import SpecError, TooManyByzantine
from kuiper.registry import largest


@mixes
def nnm(cloud: Cloud, f: int) -> Weights:
    """Nearest-neighbour mixing (Allouah et al. 2023, "Fixing by mixing"): every row becomes the mean of the
    n - f rows nearest to it, itself included.

    Args:
        cloud: rows (n, d), any float dtype. A row that is infinitely far stays as it is.
        f: rows to leave out, 2f < n. Equally far: the lowest index first, but each row before all others.

    Returns:
        (n, d), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.
    """
    n = len(cloud)
    majority("nnm", n, f)
    squared_mm = cloud.squared_mm.copy()
    np.fill_diagonal(squared_mm, -1)
    nearest = ascending(squared_mm)[:, : n - f]
    weights = np.zeros((n, n))
    np.put_along_axis(weights, nearest, 1 / (n - f), axis=1)
    weights[cloud.far] = np.eye(n)[cloud.far]
    return weights


@mixes
def bucketing(cloud: Cloud, f: int, *, s: int | None = None, least: int = 1,
              generator: np.random.Generator | None = None) -> Weights:
    """Rows in random order, then the means of s at a time (Karimireddy, He & Jaggi 2022).

    Args:
        cloud: rows (n, d), any float dtype. A bucket with a row that is infinitely far is so.
        f: stays as it is: f rows spoil at most f of the ceil(n / s) buckets.
        s: rows in a bucket; None for the largest s for which there are `least` buckets.
        least: how many what follows needs.
        generator: of the order; None for one that is always the same.

    Returns:
        (ceil(n / s), d), the input's dtype and device.

    Raises:
        SpecError: s is below 1.
        TooManyByzantine: the buckets are fewer than `least`.
    """
    n = len(cloud)
    s = largest(n, least) if s is None else s
    if s < 1:
        raise SpecError(f"bucketing: s = {s} is below 1", "give how many rows make a bucket, or leave it out")
    count = math.ceil(n / s)
    if count < least:
        raise TooManyByzantine(
            f"bucketing: s = {s} makes {count} buckets of n = {n} rows, and what follows needs {least}",
            "lower s, or leave it out")
    order = (generator or np.random.default_rng(0)).permutation(n)
    weights = np.zeros((count, n))
    for bucket in range(count):
        members = order[bucket * s : (bucket + 1) * s]
        weights[bucket, members] = 1 / len(members)
    return weights
