"""Rules that look for the direction in which rows are spread too far: CAF and DnC."""

from __future__ import annotations

import numpy as np
import torch

from kuiper.aggregation._blas import on_one_thread
from kuiper.aggregation.cloud import Cloud, Weights, in_n_space, majority
from kuiper.aggregation.nearest import nearest
from kuiper.errors import SpecError


@in_n_space
def caf(cloud: Cloud, f: int) -> Weights:
    """Covariance filter (Allouah et al. 2025, "Towards trustworthy federated learning with untrusted
    participants", algorithm 2; the idea is Diakonikolas et al.'s).

    Weights c_i = 1. While they sum to more than n - 2f: take the weighted mean and the top eigenvector of
    the weighted covariance, tau_i the squared projection of row i, and c_i <- c_i (1 - tau_i / tau_max).
    The result is the mean whose top eigenvalue was smallest.

    Args:
        cloud: rows (n, d), any float dtype. Rows that are infinitely far have the weight 0.
        f: declared Byzantine rows, 2f < n.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.

    Laws: permutation, translation, scale, orthogonal (where the top eigenvalue is simple), identical rows,
    hull.
    """
    n = len(cloud)
    majority("caf", n, f)
    weights_m = (~cloud.far).astype(float)
    best_m, smallest = weights_m, np.inf
    while weights_m.sum() > n - 2 * f:
        eigenvalue, tau_m = top_projections(cloud.gram_mm, weights_m)
        if eigenvalue < smallest:
            best_m, smallest = weights_m, eigenvalue
        largest = tau_m[weights_m > 0].max()
        if largest <= 0:
            break
        weights_m = weights_m * np.clip(1 - tau_m / largest, 0, 1)
    return best_m


@on_one_thread
def top_projections(gram_mm: np.ndarray, weights_m: np.ndarray) -> tuple[float, np.ndarray]:
    """Top eigenvalue of the weighted covariance of some vectors, and their squared projections on its vector.

    X^T C X and C^1/2 X X^T C^1/2 have the same eigenvalues: the second is n by n.
    """
    from scipy.linalg import eigh

    share_m = weights_m / weights_m.sum()
    mean_m = gram_mm @ share_m
    centred_mm = gram_mm - mean_m - mean_m[:, None] + share_m @ mean_m
    root_m = np.sqrt(share_m)
    top = (len(root_m) - 1,) * 2
    values, vectors = eigh(root_m[:, None] * centred_mm * root_m, subset_by_index=top, check_finite=False)
    eigenvalue = max(float(values[0]), 0.0)
    if eigenvalue == 0:
        return 0.0, np.zeros(len(weights_m))
    return eigenvalue, (centred_mm @ (root_m * vectors[:, 0])) ** 2 / eigenvalue


@in_n_space
def dnc(cloud: Cloud, f: int, *, iterations: int = 1, coordinates: int = 10_000,
        generator: np.random.Generator | None = None) -> Weights:
    """Divide and conquer (Shejwalkar & Houmansadr 2021).

    In each of some random subsets of the coordinates: centre the rows, and drop the f with the largest
    squared projections on the top singular vector. The result is the mean of the rows that were never
    dropped; of the n - f with the smallest sum of projections where all were.

    Args:
        cloud: rows (n, d), any float dtype. Rows that are infinitely far are dropped first.
        f: rows to drop, 2f < n.
        iterations: subsets.
        coordinates: of each subset, at most d.
        generator: of the subsets; None for one that is always the same.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.

    Laws: permutation, translation, scale, identical rows, hull. Rows that are far in different directions are
    not all found by one direction: bounded only against attackers that agree.
    """
    n = len(cloud)
    majority("dnc", n, f)
    if iterations < 1 or coordinates < 1:
        raise SpecError(f"dnc: iterations = {iterations}, coordinates = {coordinates}",
                        "give at least 1 of each")
    generator = generator or np.random.default_rng(0)
    d = cloud.rows_nd.shape[1]
    kept, total, near = np.ones(n, bool), np.zeros(n), np.isfinite(cloud.squared_norms())
    for _ in range(iterations):
        subset = cloud
        if coordinates < d:
            columns = np.sort(generator.choice(d, coordinates, replace=False))
            subset = Cloud(cloud.rows_nd[:, torch.from_numpy(columns)], f, "dnc", cloud.mixture_mn)
        eigenvalue, projected = top_projections(subset.gram_mm, near.astype(float))
        score = np.where(near, projected / (eigenvalue or 1), np.inf)
        kept &= nearest(score, n - f) > 0
        total += score
    return kept.astype(float) if kept.any() else nearest(total, n - f)
