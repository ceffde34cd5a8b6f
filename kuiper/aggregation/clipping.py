"""Rules and pre-aggregators that scale rows down: centred clipping, clip, ARC."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kuiper.aggregation.cloud import Applied, Cloud, Weights, majority, mixes, of_rows
from kuiper.errors import SpecError


@of_rows
def centered_clipping(rows_nd: Tensor, f: int, *, tau: float = 10.0, iterations: int = 3,
                      state: dict[str, Tensor] | None = None) -> Tensor:
    """v <- v + mean((x_i - v) min(1, tau / ||x_i - v||)) (Karimireddy, He & Jaggi 2021).

    Args:
        rows_nd: (n, d), any float dtype. Rows that are infinitely far are left out.
        f: declared Byzantine rows, 2f < n; it only sets how many may be infinitely far.
        tau: how far one row can pull, times 1/n.
        iterations: of the line above.
        state: holds `v` (d,), zero at first, which is replaced; None starts from zero and keeps nothing.

    Returns:
        (d,), the input's dtype and device: v.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.
        SpecError: tau or iterations below what means something, or rows of another width than v.

    Laws: permutation, orthogonal from v = 0; no row moves the result by more than iterations tau / n.
    """
    cloud = Cloud(rows_nd, f, "centered_clipping")
    return _clipped(cloud, f, tau=tau, iterations=iterations, state={} if state is None else state)[0]


def _clipped(cloud: Cloud, f: int, *, tau: float, iterations: int, state: dict[str, Tensor]) -> Applied:
    """Centred clipping of a cloud, about state["v"], which is replaced; and how hard each vector pulled."""
    majority("centered_clipping", len(cloud), f)
    if not tau > 0 or iterations < 1:
        raise SpecError(f"centered_clipping: tau = {tau}, iterations = {iterations}",
                        "give tau > 0, iterations >= 1")
    v_d = state["v"].to(cloud.rows_nd) if "v" in state else torch.zeros_like(cloud.rows_nd[0])
    if v_d.shape != cloud.rows_nd[0].shape:
        raise SpecError(f"centered_clipping: v, kept from earlier calls, has {len(v_d)} entries, and rows "
                        f"have {cloud.rows_nd.shape[1]}", "make another rule for rows of another width")
    cloud = cloud.about(v_d)
    weights_m = np.zeros(len(cloud))
    for _ in range(iterations):  # once from v is one read, without a Gram product
        squared_m = cloud.squared_from(weights_m) if iterations > 1 else cloud.squared_from_centre()
        with np.errstate(divide="ignore"):
            pull_m = np.minimum(1, tau / np.sqrt(squared_m)) / len(cloud)
        pull_m[np.isinf(squared_m)] = 0
        weights_m = weights_m * (1 - pull_m.sum()) + pull_m
    state["v"] = cloud.mean(weights_m[None]) + (1 - weights_m.sum()) * v_d
    return state["v"].clone(), weights_m


centered_clipping.on = _clipped


@mixes
def clip(cloud: Cloud, f: int, *, c: float = 2.0) -> Weights:
    """Scale rows whose norm is above c down to it.

    Args:
        cloud: rows (n, d), any float dtype. Rows that are infinitely far stay so.
        c: the largest norm.

    Returns:
        (n, d), the input's dtype and device.
    """
    if not c > 0:
        raise SpecError(f"clip: c = {c} is not above 0", "give the largest norm that may pass")
    return np.diag(_scale(cloud.squared_norms(), c))


@mixes
def arc(cloud: Cloud, f: int) -> Weights:
    """Adaptive robust clipping (Allouah et al. 2024): the k = floor(2 f (n - f) / n) rows of largest norm
    are scaled down to the largest norm of the others.

    Args:
        cloud: rows (n, d), any float dtype. Rows that are infinitely far stay so.
        f: 2f < n.

    Returns:
        (n, d), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.
    """
    n = len(cloud)
    majority("arc", n, f)
    squared_m = cloud.squared_norms()
    clipped = math.floor(2 * f * (n - f) / n)
    return np.diag(_scale(squared_m, math.sqrt(np.sort(squared_m)[n - clipped - 1])))


def _scale(squared_m: np.ndarray, most: float) -> np.ndarray:
    """What norms above `most` are multiplied by; 1 for the infinite ones, which no factor makes smaller."""
    norms_m = np.sqrt(squared_m)
    scale_m = np.ones(len(norms_m))
    large = (norms_m > most) & np.isfinite(norms_m)
    scale_m[large] = most / norms_m[large]
    return scale_m
