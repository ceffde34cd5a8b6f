"""Rows as points in n-space: what most rules need to know of them, from one Gram product.

Krum, the geometric median, clipping, NNM, CTMA and their like only ever ask for distances between points
that are weighted sums of the rows. With the n x n inner products at hand a rule iterates there and ends in
weights; d-sized work is one product and one weighted sum.

Dimension letters: n rows, d parameters, m vectors (what a rule sees: the rows, or mixtures of them),
p = n + 1 points (the rows, then the origin).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial, wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kuiper.aggregation import kernels
from kuiper.aggregation._blas import on_one_thread
from kuiper.aggregation._bounds import require
from kuiper.aggregation._finite import refuse_beyond
from kuiper.aggregation._order import statistic
from kuiper.arguments import as_count, as_rows

Weights = np.ndarray
"""float64: (m,) of a rule whose result is the weighted mean, (1, m) of one whose result is the weighted sum;
(k, m) of a pre-aggregator."""


class Cloud:
    """m vectors: n rows, or mixtures of them.

    Args:
        rows_nd: any float dtype and device; never changed.
        f: declared Byzantine vectors.
        rule: who asks, for messages.
        mixture_mn: what the vectors are of the rows; None: they are the rows.
        centre_d: the point that inner products are taken about; None: the coordinate median of some rows,
            so that neither a common offset nor a few distant rows leave distances without digits.
        median_of: how many rows, the first; None: 2f + 3, of which most are honest.
    """

    def __init__(self, rows_nd: Tensor, f: int, rule: str, mixture_mn: np.ndarray | None = None,
                 centre_d: Tensor | None = None, median_of: int | None = None) -> None:
        self.rows_nd = rows_nd
        self.f = f
        self.rule = rule
        self.mixture_mn = mixture_mn
        self.centre_d = centre_d
        self.median_of = min(2 * f + 3 if median_of is None else median_of, len(rows_nd))

    def __len__(self) -> int:
        return len(self.rows_nd) if self.mixture_mn is None else len(self.mixture_mn)

    @cached_property
    def _products(self) -> tuple[np.ndarray, np.ndarray]:
        """Inner products of the points about the centre, (p, p), and which rows are infinitely far, (n,)."""
        gram_pp = _gram(self.rows_nd, self.centre_d, self.median_of)
        bad_n = ~np.isfinite(gram_pp.diagonal()[:-1])
        if bad_n.any():
            bad_n = _not_finite(self.rows_nd)
            centre_d = self.centre_d
            if centre_d is None:
                centre_d = statistic(self.rule, "median", self.rows_nd, self.f)
            gram_pp = _gram(self.rows_nd, centre_d, far=np.flatnonzero(bad_n).tolist())
            bad_n |= ~np.isfinite(gram_pp.diagonal()[:-1])  # too large to be squared
            gram_pp[:-1][bad_n] = 0
            gram_pp[:, :-1][:, bad_n] = 0
        return gram_pp, bad_n

    @cached_property
    def far(self) -> np.ndarray:
        """Which vectors are infinitely far, (m,) bool: not finite, or too large to be squared.

        Raises:
            JobFailed: more than f are.
        """
        far = self._products[1]
        if self.mixture_mn is not None:
            far = ((self.mixture_mn != 0) & far).any(1)
        refuse_beyond(self.rule, int(far.sum()), len(self), self.f)
        return far

    @cached_property
    def near(self) -> np.ndarray:
        """Indices of the vectors that are not."""
        return np.flatnonzero(~self.far)

    @cached_property
    def _points_mp(self) -> np.ndarray:
        """The vectors as affine combinations of the points; those that are infinitely far are zero."""
        mixture = np.eye(len(self)) if self.mixture_mn is None else self.mixture_mn
        points = np.concatenate([mixture, 1 - mixture.sum(1, keepdims=True)], axis=1)
        points[self.far] = 0
        return points

    @cached_property
    def gram_mm(self) -> np.ndarray:
        """Inner products of the vectors about the centre; zero for those that are infinitely far."""
        gram_pp = self._products[0]
        if self.mixture_mn is None:
            return gram_pp[:-1, :-1] * ~self.far * ~self.far[:, None]
        return _between(self._points_mp, gram_pp)

    @cached_property
    def squared_mm(self) -> np.ndarray:
        """||x_i - x_j||^2, inf to those that are infinitely far, 0 on the diagonal."""
        gram_mm = self.gram_mm
        norms_m = gram_mm.diagonal()
        squared = np.maximum(norms_m[:, None] + norms_m - 2 * gram_mm, 0)
        squared[self.far] = squared[:, self.far] = np.inf
        np.fill_diagonal(squared, 0)
        return squared

    @cached_property
    def about_origin_mm(self) -> np.ndarray:
        """x_i . x_j, zero for vectors that are infinitely far."""
        if self.mixture_mn is None:
            gram_pp = self._products[0]
            to_origin_n = gram_pp[-1, :-1]
            about = gram_pp[:-1, :-1] - to_origin_n - to_origin_n[:, None] + gram_pp[-1, -1]
            return about * ~self.far * ~self.far[:, None]
        points = self._points_mp.copy()
        points[:, -1] -= 1
        points[self.far] = 0
        return _between(points, self._products[0])

    def squared_norms(self) -> np.ndarray:
        """||x_i||^2, (m,), inf for those that are infinitely far: one read where nothing else is known."""
        if self._untouched:
            return self._read()
        return np.where(self.far, np.inf, np.maximum(self.about_origin_mm.diagonal(), 0))

    def squared_from_centre(self) -> np.ndarray:
        """Squared distances of the vectors from the centre, (m,): one read where no more is asked."""
        if self._untouched and self.centre_d is not None:
            return self._read(self.centre_d)
        return np.where(self.far, np.inf, np.maximum(self.gram_mm.diagonal(), 0))

    @property
    def _untouched(self) -> bool:
        return self.mixture_mn is None and "_products" not in self.__dict__

    def _read(self, centre_d: Tensor | None = None) -> np.ndarray:
        squares = _squared_norms(self.rows_nd, centre_d)
        refuse_beyond(self.rule, int((~np.isfinite(squares)).sum()), len(self), self.f)
        return np.where(np.isfinite(squares), squares, np.inf)

    def squared_from(self, weights_m: np.ndarray) -> np.ndarray:
        """Squared distances of the vectors from a mean of them, (m,)."""
        along_m = self.gram_mm @ weights_m
        squared = self.gram_mm.diagonal() - 2 * along_m + weights_m @ along_m
        return np.where(self.far, np.inf, np.maximum(squared, 0))

    def about(self, centre_d: Tensor) -> Cloud:
        """The same vectors, about a point."""
        return Cloud(self.rows_nd, self.f, self.rule, self.mixture_mn, centre_d)

    def about_median(self) -> Cloud:
        """The same vectors, about the coordinate median of all rows; unless products are there already."""
        if "_products" in self.__dict__ or self.median_of == len(self.rows_nd):
            return self
        return Cloud(self.rows_nd, self.f, self.rule, self.mixture_mn, None, len(self.rows_nd))

    def mixed(self, weights_km: np.ndarray, f: int) -> Cloud:
        """The cloud of k mixtures of these vectors."""
        cloud = Cloud(self.rows_nd, f, self.rule, self.of(weights_km), self.centre_d, self.median_of)
        if "_products" in self.__dict__:
            cloud.__dict__["_products"] = self._products
        return cloud

    def of(self, weights_km: np.ndarray) -> np.ndarray:
        """Weights of the vectors as weights of the rows."""
        return weights_km if self.mixture_mn is None else _times(weights_km, self.mixture_mn)

    def mean(self, weights: Weights) -> Tensor:
        """What a rule's weights give, (d,) in the rows' dtype; vectors of weight 0 are not looked at."""
        if weights.ndim == 2:
            return combine(self.rows_nd, self.of(weights))[0]
        return combine(self.rows_nd, self.of(weights[None]), [weights.sum()])[0]

    def blocks(self) -> Iterator[Tensor]:
        """The vectors, a few columns at a time; all at once where they are the rows."""
        if self.mixture_mn is None:
            return iter([self.rows_nd])
        d = self.rows_nd.shape[1]
        width = max(1, min(1 << 17, d // 8))
        return (self.vectors(slice(start, start + width)) for start in range(0, max(d, 1), width))

    def vectors(self, columns: slice = slice(None)) -> Tensor:
        """Columns of the vectors themselves, (m, w)."""
        rows_nw = self.rows_nd[:, columns]
        if self.mixture_mn is None:
            return rows_nw
        return combine(rows_nw, self.mixture_mn) if self.rows_picked is None else rows_nw[self.rows_picked]

    @property
    def rows_picked(self) -> list[int] | None:
        """Which row each vector is; None where one is a mixture."""
        if self.mixture_mn is None:
            return list(range(len(self)))
        picked_m = self.mixture_mn.argmax(1)
        return picked_m.tolist() if (self.mixture_mn == np.eye(len(self.rows_nd))[picked_m]).all() else None


Applied = tuple[Tensor, np.ndarray | None]
"""A rule's result (d,), and its weights of the vectors where it has them."""


def weighing(weigh: Callable[..., Weights]) -> Callable[..., Applied]:
    """How a function (cloud, f) -> weights is applied to a cloud."""

    def on(cloud: Cloud, f: int, **parameters: Any) -> Applied:
        weights = weigh(cloud, f, **parameters)
        return cloud.mean(weights), weights.reshape(-1)

    return on


def in_n_space(weigh: Callable[..., Weights]) -> Callable[..., Tensor]:
    """A rule (rows (n, d), f) -> (d,) from a function (cloud, f) -> weights (m,).

    The function stays as `.weigh`, and `.on` applies it to mixtures of rows without making them.
    """

    @wraps(weigh)
    def rule(rows_nd: Tensor, f: int, **parameters: Any) -> Tensor:
        cloud = Cloud(*_checked(weigh, rows_nd, f), weigh.__name__)
        return cloud.mean(weigh(cloud, cloud.f, **parameters))

    rule.weigh, rule.on = weigh, weighing(weigh)
    return rule


def by_coordinate(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A rule (rows (n, d), f) -> (d,) that judges every coordinate by itself: of mixtures, a few are made at
    a time."""

    def on(cloud: Cloud, f: int, **parameters: Any) -> Applied:
        if cloud.mixture_mn is None or "generator" in parameters:
            return rule(cloud.vectors(), f, **parameters), None
        return torch.cat([rule(block, f, **parameters) for block in cloud.blocks()]), None

    checked = of_rows(rule)
    checked.on = on
    return checked


def of_rows(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A rule (rows (n, d), f) -> (d,) whose arguments are checked; of rows that require a gradient it takes the
    values.

    Raises:
        SpecError: rows or f are not what the rule takes.
    """

    @wraps(rule)
    def checked(rows_nd: Tensor, f: int, **parameters: Any) -> Tensor:
        return rule(*_checked(rule, rows_nd, f), **parameters)

    return checked


def _checked(rule: Callable[..., Any], rows_nd: Any, f: Any) -> tuple[Tensor, int]:
    return as_rows(rows_nd, rule.__name__), as_count(f, "f")


def mixes(weigh: Callable[..., Weights]) -> Callable[..., Tensor]:
    """A pre-aggregator (rows (n, d), f) -> (m, d) from a function (cloud, f) -> weights (m, n)."""

    @wraps(weigh)
    def pre_aggregator(rows_nd: Tensor, f: int, **parameters: Any) -> Tensor:
        cloud = Cloud(*_checked(weigh, rows_nd, f), weigh.__name__)
        return combine(cloud.rows_nd, weigh(cloud, cloud.f, **parameters))

    pre_aggregator.weigh = weigh
    return pre_aggregator


def unwrapped(rule: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A function, and the parameters that a partial of it fills in."""
    return (rule.func, rule.keywords) if isinstance(rule, partial) else (rule, {})


def apply(rule: Callable[..., Tensor], cloud: Cloud, f: int) -> Applied:
    """A rule, with its parameters filled in, on a cloud; vectors are made only for one that needs them."""
    function, parameters = unwrapped(rule)
    if hasattr(function, "on"):
        return function.on(cloud, f, **parameters)
    return rule(cloud.vectors(), f), None


def majority(rule: str, n: int, f: int) -> None:
    """Raise unless 2f < n, what every robust rule needs."""
    require(rule, n, f, factor=2, plus=1)


def combine(rows_nd: Tensor, weights_mn: np.ndarray, divisors_m: Sequence[float] | None = None) -> Tensor:
    """weights @ rows / divisors, (m, d) in the rows' dtype, added in float64.

    A row whose weight is 0 everywhere is not looked at.
    """
    divisors_m = np.ones(len(weights_mn)) if divisors_m is None else np.asarray(divisors_m, float)
    if rows_nd.device.type == "cpu":
        return kernels.combine(rows_nd, weights_mn, divisors_m)
    used = np.flatnonzero(weights_mn.any(0)).tolist()
    rows_ud = rows_nd if len(used) == len(rows_nd) else rows_nd[used]
    weights_mu = torch.from_numpy(weights_mn[:, used] / divisors_m[:, None]).to(rows_nd.device)
    result = torch.empty((len(weights_mn), rows_nd.shape[1]), dtype=rows_nd.dtype, device=rows_nd.device)
    for columns in _blocks(*rows_nd.shape):
        result[:, columns] = (weights_mu @ rows_ud[:, columns].double()).to(rows_nd.dtype)
    return result


@on_one_thread
def _times(weights_km: np.ndarray, mixture_mn: np.ndarray) -> np.ndarray:
    return weights_km @ mixture_mn


@on_one_thread
def _between(points_mp: np.ndarray, gram_pp: np.ndarray) -> np.ndarray:
    """Inner products of combinations of the points."""
    return points_mp @ gram_pp @ points_mp.T


def _gram(rows_nd: Tensor, centre_d: Tensor | None, median_of: int = 1, far: Sequence[int] = ()) -> np.ndarray:
    if rows_nd.device.type == "cpu":
        return kernels.gram(rows_nd, centre_d, median_of, far)
    n = len(rows_nd)
    if centre_d is None:
        centre_d = statistic("gram", "median", rows_nd[:median_of], median_of)
    total_pp = torch.zeros((n + 1, n + 1), dtype=torch.float64, device=rows_nd.device)
    for columns in _blocks(*rows_nd.shape):
        points_pw = total_pp.new_zeros((n + 1, columns.stop - columns.start))
        points_pw[:n] = rows_nd[:, columns]
        points_pw[far] = 0
        points_pw -= centre_d[columns]
        total_pp += points_pw @ points_pw.T
    return total_pp.cpu().numpy()


def _squared_norms(rows_nd: Tensor, centre_d: Tensor | None = None) -> np.ndarray:
    if rows_nd.device.type == "cpu":
        return kernels.squared_norms(rows_nd, centre_d)
    total_n = torch.zeros(len(rows_nd), dtype=torch.float64, device=rows_nd.device)
    for columns in _blocks(*rows_nd.shape):
        away_nw = rows_nd[:, columns].double()
        total_n += (away_nw if centre_d is None else away_nw - centre_d[columns]).square().sum(1)
    return total_n.cpu().numpy()


def _not_finite(rows_nd: Tensor) -> np.ndarray:
    return np.array([not row.isfinite().all() for row in rows_nd])


def _blocks(n: int, d: int) -> list[slice]:
    """Columns of which float64 copies stay far below the size of the input."""
    width = min(d, max(1, min(1 << 18, d // 16 + 1)))
    return [slice(start, min(start + width, d)) for start in range(0, d, max(width, 1))]
