"""Every rule against its definition, written out on the rows themselves, with distances taken directly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kuiper import aggregation
from kuiper.aggregation import make
from tests.laws.rules import attacked, normal

SIZES = [(7, 1), (12, 2), (15, 3), (19, 4)]


def _distances(rows: Tensor) -> Tensor:
    return (rows[:, None] - rows[None]).norm(dim=2)


def _near(values: Tensor, centre: Tensor, kept: int) -> Tensor:
    """Per coordinate the mean of the values nearest a centre."""
    order = (values - centre).abs().argsort(dim=0)[:kept]
    return values.gather(0, order).mean(0)


def _nearest_mean(rows: Tensor, to: Tensor, kept: int) -> Tensor:
    return rows[(rows - to).norm(dim=1).argsort(stable=True)[:kept]].mean(0)


def _middle(rows: Tensor) -> Tensor:
    """The midpoint of the two middle values."""
    n, ordered = len(rows), rows.sort(0).values
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def _krum_scores(rows: Tensor, neighbours: int, power: int) -> Tensor:
    return _distances(rows).sort(1).values[:, 1 : neighbours + 1].pow(power).sum(1)


def _multi_krum(neighbours: int, power: int, kept: int | None) -> Callable[[Tensor, int], Tensor]:
    """`neighbours` and `kept` (None: one) count down from n - f."""

    def rule(rows: Tensor, f: int) -> Tensor:
        most = len(rows) - f
        score = _krum_scores(rows, most - neighbours, power)
        return rows[score.argsort(stable=True)[: 1 if kept is None else most - kept]].mean(0)

    return rule


def _bulyan(rows: Tensor, f: int) -> Tensor:
    remaining, picked = list(range(len(rows))), []
    while len(picked) < len(rows) - 2 * f:
        score = _krum_scores(rows[remaining], max(1, len(remaining) - f - 2), 2)
        picked.append(remaining.pop(int(score.argmin())))
    return _near(rows[picked], _middle(rows[picked]), len(picked) - 2 * f)


def _bulyan_garfield(rows: Tensor, f: int) -> Tensor:
    """As compiled code has it: scores lose the distances to what was picked, each pick is a mean."""
    n, squared = len(rows), _distances(rows).square()
    theta = n - 2 * f - 2
    neighbours = [squared[i].argsort()[1 : n - f - 1].tolist() for i in range(n)]
    score = [float(squared[i, neighbours[i]].sum()) for i in range(n)]
    picked = []
    for turn in range(theta):
        order = sorted(range(n), key=lambda i: score[i])
        picked.append(rows[order[: n - f - 2 - turn]].mean(0))
        for i in range(n):
            score[i] -= float(squared[i, order[0]]) if order[0] in neighbours[i] else 0
        score[order[0]] = math.inf
    values = torch.stack(picked)
    return _near(values, values.sort(0).values[theta // 2], theta - 2 * f)


def _centered_clipping(rows: Tensor, f: int) -> Tensor:
    v = torch.zeros_like(rows[0])
    for _ in range(3):
        away = rows - v
        v = v + (away * (2.0 / away.norm(dim=1, keepdim=True)).clamp(max=1)).mean(0)
    return v


def _caf(rows: Tensor, f: int) -> Tensor:
    weights, best, smallest = torch.ones(len(rows), dtype=rows.dtype), rows.mean(0), math.inf
    while weights.sum() > len(rows) - 2 * f:
        share = weights / weights.sum()
        mean = share @ rows
        values, vectors = torch.linalg.eigh((share[:, None] * (rows - mean)).T @ (rows - mean))
        if values[-1] < smallest:
            best, smallest = mean, float(values[-1])
        tau = ((rows - mean) @ vectors[:, -1]).square()
        weights = weights * (1 - tau / tau[weights > 0].max()).clamp(min=0)
    return best


def _dnc(rows: Tensor, f: int) -> Tensor:
    away = rows - rows.mean(0)
    score = (away @ torch.linalg.svd(away)[2][0]).square()
    return rows[score.argsort()[: len(rows) - f]].mean(0)


def _signguard(rows: Tensor, f: int) -> Tensor:
    """2-means of two groups that lie apart is where the sorted fractions have their largest gap."""
    norms, positive = rows.norm(dim=1), (rows > 0).double().mean(1)
    usual = (norms >= 0.1 * norms.median()) & (norms <= 3 * norms.median())
    ordered = positive.sort().values
    lower = positive <= ordered[int(ordered.diff().argmax())]
    alike = lower if lower.sum() > len(rows) / 2 else ~lower
    kept = rows[usual & alike]
    most = float(np.median(norms))
    return (kept * (most / kept.norm(dim=1, keepdim=True)).clamp(max=1)).mean(0)


def _fltrust(rows: Tensor, f: int) -> Tensor:
    trust = torch.nn.functional.cosine_similarity(rows[1:], rows[:1]).relu()
    return trust @ torch.nn.functional.normalize(rows[1:]) * rows[0].norm() / trust.sum()


def _sign_majority(rows: Tensor, f: int) -> Tensor:
    return rows.sign().sum(0).sign()


DEFINITIONS: dict[str, tuple[Any, Callable[[Tensor, int], Tensor]]] = {
    "krum": ("krum", _multi_krum(2, 2, None)),
    "krum-byzfl": ({"krum": {"variant": "byzfl"}}, _multi_krum(1, 2, None)),
    "krum-garfield": ({"krum": {"variant": "garfield"}}, _multi_krum(1, 1, None)),
    "krum-epfml": ({"krum": {"variant": "epfml"}}, _multi_krum(2, 4, None)),
    "multi_krum": ("multi_krum", _multi_krum(2, 2, 2)),
    "multi_krum-byzfl": ({"multi_krum": {"variant": "byzfl"}}, _multi_krum(1, 2, 0)),
    "multi_krum-garfield": ({"multi_krum": {"variant": "garfield"}}, _multi_krum(1, 1, 2)),
    "bulyan": ("bulyan", _bulyan),
    "bulyan-garfield": ({"bulyan": {"variant": "garfield", "m": None}}, _bulyan_garfield),
    "trimmed_mean": ("trimmed_mean", lambda rows, f: rows.sort(0).values[f : len(rows) - f].mean(0)),
    "meamed": ("meamed", lambda rows, f: _near(rows, _middle(rows), len(rows) - f)),
    "phocas": ("phocas", lambda rows, f: _near(rows, rows.sort(0).values[f : len(rows) - f].mean(0),
                                               len(rows) - f)),
    "cge": ("cge", lambda rows, f: _nearest_mean(rows, torch.zeros_like(rows[0]), len(rows) - f)),
    "aksel": ("aksel", lambda rows, f: _nearest_mean(rows, _middle(rows), (len(rows) + 1) // 2)),
    "aksel-n-f": ({"aksel": {"keep": "n-f"}},
                  lambda rows, f: _nearest_mean(rows, _middle(rows), len(rows) - f)),
    "monna": ({"monna": {"reference": 4}}, lambda rows, f: _nearest_mean(rows, rows[4], len(rows) - f)),
    "ctma": ({"ctma": {"base": "median"}}, lambda rows, f: _nearest_mean(rows, _middle(rows), len(rows) - f)),
    "centered_clipping": ({"centered_clipping": {"tau": 2.0}}, _centered_clipping),
    "caf": ("caf", _caf),
    "dnc": ("dnc", _dnc),
    "fltrust": ("fltrust", _fltrust),
    "sign_majority": ("sign_majority", _sign_majority),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_rule_is_its_definition(name: str) -> None:
    """Of honest rows, and with f others near and far."""
    spec, definition = DEFINITIONS[name]
    for seed, (n, f) in enumerate(2 * SIZES):
        rows, _ = attacked(seed, n, 20, f, (0.5, 30.0)[seed % 2] * normal(seed + 1, f, 20))
        torch.testing.assert_close(make(spec, f=f)(rows), definition(rows, f), rtol=1e-9, atol=1e-9)


def test_signguard_is_its_definition() -> None:
    """Of honest rows that point one way, and f of any norm that point the other way."""
    for seed, (n, f) in enumerate(2 * SIZES):
        rows = 0.5 + normal(seed, n, 400)
        rows[1 : f + 1] = (-1.0, -50.0, -1e-3)[seed % 3] * (0.5 + normal(seed + 1, f, 400))
        torch.testing.assert_close(make("signguard", f=f)(rows), _signguard(rows, f), rtol=1e-9, atol=1e-9)


def test_auto_gm_is_best_in_its_weights_and_in_its_point() -> None:
    """Given the point, its weights are the projection of -distances / lamb; given those, it is stationary."""
    for seed, lamb in enumerate((0.5, 2.0, 40.0)):
        rows, _ = attacked(seed, 11, 6, 3, 5 + normal(seed, 3, 6))
        found = make({"auto_gm": {"lamb": lamb, "iterations": 1000}}, f=3)(rows)
        away = rows - found
        distance = away.norm(dim=1)
        low, high = distance.min(), distance.max() + lamb
        for _ in range(100):  # the threshold by bisection
            eta = (low + high) / 2
            low, high = (eta, high) if (eta - distance).clamp(min=0).sum() < lamb else (low, eta)
        alpha = (eta - distance).clamp(min=0) / lamb
        pull = (alpha[:, None] * away / distance[:, None].clamp(min=1e-12))[distance > 1e-5].sum(0)
        assert pull.norm() <= alpha[distance <= 1e-5].sum() + 1e-4


def test_pre_aggregators_are_their_definitions() -> None:
    for seed, (n, f) in enumerate(SIZES):
        rows, _ = attacked(seed, n, 20, f, 10 * normal(seed + 1, f, 20))
        close = torch.testing.assert_close
        order = _distances(rows).argsort(1)[:, : n - f]
        close(aggregation.nnm(rows, f), torch.stack([rows[near].mean(0) for near in order]))
        norms = rows.norm(dim=1)
        clipped = norms.sort().values[n - 1 - 2 * f * (n - f) // n]
        for most, made in ((clipped, aggregation.arc(rows, f)), (3.0, aggregation.clip(rows, f, c=3.0))):
            close(made, rows * (most / norms).clamp(max=1)[:, None])
        shuffled = rows[np.random.default_rng(seed).permutation(n)]
        buckets = aggregation.bucketing(rows, f, s=3, generator=np.random.default_rng(seed))
        close(buckets, torch.stack([part.mean(0) for part in shuffled.split(3)]))
