"""Rules that cluster rows or weigh them by angles: those of Blades."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kuiper.aggregation import kernels
from kuiper.aggregation._finite import infinitely_far
from kuiper.aggregation.cloud import Cloud, Weights, by_coordinate, in_n_space, majority, of_rows, weighing
from kuiper.aggregation.nearest import trusted


@in_n_space
def fltrust(cloud: Cloud, f: int, *, reference: int = 0) -> Weights:
    """Mean of the other rows, scaled to the norm of a trusted one, with weights ReLU(cosine to it) (Cao et
    al. 2021).

    Args:
        cloud: rows (n, d), any float dtype.
        f: declared Byzantine rows, 2f < n; it only sets how many may be infinitely far.
        reference: index of the trusted row, which is the result where no other agrees with it.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows, or the trusted one, are infinitely far.
        SpecError: there is no such row.

    Laws: scale, orthogonal, identical rows; permutation where the reference follows.
    """
    majority("fltrust", len(cloud), f)
    trusted(cloud, "fltrust", reference)
    products = cloud.about_origin_mm
    norms = np.sqrt(np.maximum(products.diagonal(), 0))
    lengths = np.where(norms > 0, norms, 1)
    trust = np.maximum(products[reference] / (lengths * lengths[reference]), 0)
    trust[reference] = 0
    if not trust.any():
        trust[reference] = 1
    return (trust * norms[reference] / lengths / trust.sum())[None]


@in_n_space
def signguard(cloud: Cloud, f: int) -> Weights:
    """Mean of the rows with a usual norm and usual signs, clipped to the median norm (Xu et al. 2022).

    Usual norms are within [0.1, 3] of their median; usual signs are the larger of two clusters (2-means) of
    the fractions of positive, negative and zero entries of all rows. Of two clusters of one size, that of
    the lowest row; where no row is both, the rows of usual norm. The paper looks at a random part of the
    entries; Blades clips first, so that no norm is too large.

    Args:
        cloud: rows (n, d), any float dtype.
        f: declared Byzantine rows, 2f < n; it only sets how many may be infinitely far.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.

    Laws: permutation (where the clusters differ in size), scale, identical rows.
    """
    majority("signguard", len(cloud), f)
    norms = np.sqrt(cloud.squared_norms())
    finite = np.isfinite(norms)
    median = float(np.median(norms[finite]))
    usual = (norms >= 0.1 * median) & (norms <= 3 * median)
    both = usual.copy()
    both[finite] &= _larger_of_two(_sign_fractions(cloud)[finite])
    chosen = np.flatnonzero(both if both.any() else usual)
    return _mean_of_clipped(norms, median, chosen)


@of_rows
def clipped_clustering(rows_nd: Tensor, f: int, *, state: dict[str, Tensor] | None = None) -> Tensor:
    """Mean of the larger of two clusters of rows, clipped to the median of all norms so far (Li, Ngai &
    Voigt 2023).

    Clusters by average linkage of cosine distances. Of two clusters of one size, that of the lowest row.
    Blades' code moreover clips to 1e5 at most.

    Args:
        rows_nd: (n, d), any float dtype. Rows that are infinitely far are left out.
        f: declared Byzantine rows, 2f < n; it only sets how many may be infinitely far.
        state: holds `norms`, (steps x n,) float64 of all calls, which grows; None keeps nothing.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.

    Laws: permutation (where the clusters differ in size), scale without a history, orthogonal, identical.
    """
    cloud = Cloud(rows_nd, f, "clipped_clustering")
    return cloud.mean(larger_cluster(cloud, f, state={} if state is None else state))


def larger_cluster(cloud: Cloud, f: int, *, state: dict[str, Tensor]) -> Weights:
    """Clipped clustering's weights; state["norms"] grows by the finite norms."""
    from scipy.cluster import hierarchy

    majority("clipped_clustering", len(cloud), f)
    near = cloud.near
    products = cloud.about_origin_mm[np.ix_(near, near)]
    norms = np.sqrt(np.maximum(products.diagonal(), 0))
    past = state.get("norms", torch.zeros(0, dtype=torch.float64))
    state["norms"] = torch.cat([past.cpu(), torch.from_numpy(norms)])  # a checkpoint comes back on a device
    lengths = np.where(norms > 0, norms, 1)
    distances = 1 - np.clip(products / lengths / lengths[:, None], -1, 1)
    larger = np.ones(len(near), bool)
    if len(near) > 2:
        tree = hierarchy.average(distances[np.triu_indices(len(near), 1)])
        larger = _larger(hierarchy.fcluster(tree, 2, "maxclust"))
    everywhere = np.full(len(cloud), np.inf)
    everywhere[near] = norms
    return _mean_of_clipped(everywhere, float(np.median(state["norms"])), near[larger])


clipped_clustering.on = weighing(larger_cluster)


@by_coordinate
def sign_majority(rows_nd: Tensor, f: int) -> Tensor:
    """Per coordinate the sign that most rows have: -1, 0 or 1 (Bernstein et al. 2019, signSGD).

    Args:
        rows_nd: (n, d), any float dtype. Non-finite rows do not vote.
        f: declared Byzantine rows, 2f < n; it only sets how many non-finite rows are accepted.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are non-finite.

    Laws: permutation; any positive scale leaves it as it is.
    """
    majority("sign_majority", len(rows_nd), f)
    far = infinitely_far("sign_majority", rows_nd, f)
    if rows_nd.device.type == "cpu":
        return kernels.majorities(rows_nd, far)
    votes_d = torch.zeros(rows_nd.shape[1], dtype=torch.int32, device=rows_nd.device)
    for i, row_d in enumerate(rows_nd):
        if i not in far:
            votes_d += row_d.sign().int()
    return votes_d.sign_().to(rows_nd.dtype)


def _mean_of_clipped(norms: np.ndarray, most: float, chosen: np.ndarray) -> Weights:
    weights = np.zeros((1, len(norms)))
    large = norms[chosen] > most
    weights[0, chosen] = np.where(large, most / np.where(large, norms[chosen], 1), 1) / len(chosen)
    return weights


def _sign_fractions(cloud: Cloud) -> np.ndarray:
    """Fractions of positive, negative and zero entries of every vector, (m, 3)."""
    fractions = sum(map(_signs, cloud.blocks())) / max(cloud.rows_nd.shape[1], 1)
    return np.column_stack([fractions, 1 - fractions.sum(1)])


def _signs(vectors_mw: Tensor) -> np.ndarray:
    if vectors_mw.device.type == "cpu":
        return kernels.signs(vectors_mw)
    return torch.stack([(vectors_mw > 0).sum(1), (vectors_mw < 0).sum(1)], dim=1).cpu().numpy()


def _larger_of_two(features: np.ndarray) -> np.ndarray:
    """The larger cluster of 2-means, started from the two points that are farthest apart.

    Points are taken in the order of their values, so that the order of rows decides nothing but which of
    two clusters of one size is taken.
    """
    order = np.lexsort(features.T)
    points = features[order]
    squared = ((points[:, None] - points) ** 2).sum(2)
    first, second = np.unravel_index(squared.argmax(), squared.shape)
    if first == second:
        return np.ones(len(points), bool)
    centres, labels = points[[first, second]], None
    for _ in range(100):
        nearer = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
        if labels is not None and (nearer == labels).all():
            break
        labels = nearer
        centres = np.stack([points[labels == label].mean(0) for label in (0, 1)])
    return _larger(labels[np.argsort(order)])


def _larger(labels: np.ndarray) -> np.ndarray:
    """Mask of the cluster with most members; of equal ones, that of the first."""
    return max(((labels == label) for label in dict.fromkeys(labels.tolist())), key=np.sum)
