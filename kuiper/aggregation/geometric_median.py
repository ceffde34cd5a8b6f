"""The geometric median by Weiszfeld's iteration in n-space, and one that weighs its rows."""

from __future__ import annotations

import numpy as np

from kuiper.aggregation.cloud import Cloud, Weights, in_n_space, majority
from kuiper.errors import SpecError

STARTS = ("median", "zero")
TOLERANCE = 1e-9
"""How far a step still moves, as a part of the median distance, when the iteration ends."""
MOST = 1000


@in_n_space
def geometric_median(cloud: Cloud, f: int, *, nu: float = 1e-6, absolute: bool = False, start: str = "median",
                     iterations: int | None = None) -> Weights:
    """The point whose sum of distances to the rows is smallest, smoothed (Pillutla et al. 2022).

    z <- sum of x_i / max(||x_i - z||, nu) over the sum of the weights, until a step moves it by less than
    1e-9 of the median distance. The preset `rfa` is what ByzFL and epfml's code compute: 3 iterations from
    zero with nu = 0.1 absolute, the mean where gradients are small (the authors' code: 4 from the mean).

    Args:
        cloud: rows (n, d), any float dtype. Rows that are infinitely far are left out.
        f: declared Byzantine rows, 2f < n; it only sets how many may be infinitely far.
        nu: smoothing, as a part of the median distance from the start, or absolute.
        absolute: whether nu is.
        start: `median`, the rows' coordinate median, or `zero`.
        iterations: how many; None for as many as it takes.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.
        SpecError: an unknown start.

    Laws: permutation, translation, scale, orthogonal, identical rows, hull; (f, kappa)-robust with
    kappa = 4 (1 + f / (n - 2f))^2 (Allouah et al. 2023). With `absolute`: not scale, not robust to kappa;
    from zero and with few iterations: not translation.
    """
    majority("geometric_median", len(cloud), f)
    if start not in STARTS:
        raise SpecError(f"geometric_median: start = {start!r}", f"choose one of {', '.join(STARTS)}")
    if start == "median":
        cloud = cloud.about_median()
    near = cloud.near  # asked first: norms then come from the Gram product, not from a read of their own
    squared = cloud.squared_from_centre() if start == "median" else cloud.squared_norms()
    floor = nu if absolute else nu * float(np.median(np.sqrt(squared[near])))
    return weiszfeld(cloud, squared, (~cloud.far).astype(float), floor, iterations)


def weiszfeld(cloud: Cloud, squared_m: np.ndarray, alpha_m: np.ndarray, floor: float,
              iterations: int | None = None) -> Weights:
    """Weights of the geometric median of vectors that count alpha_m each.

    Args:
        squared_m: squared distances from where it starts.
        floor: the least distance that a weight is divided by. Where it is 0, most vectors are at the start,
            which then is the median.
    """
    previous = None
    for _ in range(MOST if iterations is None else iterations):
        distance_m = np.maximum(np.sqrt(squared_m), floor)
        if not floor and (distance_m == 0).any():
            return alpha_m * (distance_m == 0)
        weights_m = alpha_m / distance_m
        weights_m /= weights_m.sum()
        if previous is not None and iterations is None:
            step_m = weights_m - previous
            if step_m @ cloud.gram_mm @ step_m <= (TOLERANCE * float(np.median(distance_m))) ** 2:
                break
        previous = weights_m
        squared_m = cloud.squared_from(weights_m)
    return weights_m


@in_n_space
def auto_gm(cloud: Cloud, f: int, *, lamb: float | None = None, iterations: int = 100) -> Weights:
    """Auto-weighted geometric median (Li et al. 2021).

    The smallest sum of alpha_i ||x_i - z|| + lamb/2 ||alpha||^2 over z and weights alpha that sum to one, in
    turns: remote rows end with the weight zero. Blades' autogm means this too, but its Weiszfeld steps lose
    alpha and its search for the threshold does not sort: its values are others.

    Args:
        cloud: rows (n, d), any float dtype. Rows that are infinitely far are left out.
        f: declared Byzantine rows, 2f < n; it only sets how many may be infinitely far.
        lamb: how even the weights are to be; None is n (as Blades once had), in the unit of distances.
        iterations: turns at most.

    Returns:
        (d,), the input's dtype and device.

    Raises:
        TooManyByzantine: 2f >= n.
        JobFailed: more than f rows are infinitely far.

    Laws: permutation, translation, orthogonal, identical rows, hull; not scale.
    """
    n = len(cloud)
    majority("auto_gm", n, f)
    lamb = float(n) if lamb is None else lamb
    cloud = cloud.about_median()
    near_m = (~cloud.far).astype(float)
    alpha_m, squared_m, before = near_m / near_m.sum(), cloud.squared_from_centre(), np.inf
    floor = 1e-6 * float(np.median(np.sqrt(squared_m[cloud.near])))
    for _ in range(iterations):
        weights_m = weiszfeld(cloud, squared_m, alpha_m, floor)
        squared_m = cloud.squared_from(weights_m / weights_m.sum())
        distance_m = np.sqrt(squared_m)
        loss = float(alpha_m[alpha_m > 0] @ distance_m[alpha_m > 0]) + lamb / 2 * float(alpha_m @ alpha_m)
        if before - loss <= 1e-10 * loss:
            break
        before = loss
        alpha_m = _even(distance_m, lamb)
    return weights_m


def _even(distance_m: np.ndarray, lamb: float) -> np.ndarray:
    """max(eta - d_i, 0) / lamb with the eta for which they sum to one."""
    over_m = distance_m - distance_m.min()  # beside large distances a small lamb would round to nothing
    ordered = np.sort(over_m[np.isfinite(over_m)])
    etas = (np.cumsum(ordered) + lamb) / np.arange(1, len(ordered) + 1)
    used = np.flatnonzero(etas >= ordered)[-1]
    return np.maximum(etas[used] - over_m, 0) / lamb
