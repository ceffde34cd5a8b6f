"""How nodes share the training set: every sample belongs to exactly one node."""

from __future__ import annotations

import heapq

import numpy as np

from kuiper.errors import SpecError


def iid(labels: np.ndarray, nodes: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Shuffle, then cut into parts whose sizes differ by at most one.

    Args:
        labels: (N,), of which only the length counts.
        nodes: how many parts.
        rng: keyed by the job's seed.

    Returns:
        per node its sample indices, int64, ascending.

    Raises:
        SpecError: more nodes than samples.
    """
    _check(len(labels), nodes, min_samples=1)
    return [np.sort(part) for part in np.array_split(rng.permutation(len(labels)), nodes)]


def dirichlet(
    labels: np.ndarray, nodes: int, rng: np.random.Generator, *, alpha: float = 0.5, min_samples: int = 1
) -> list[np.ndarray]:
    """Skew by label: class c is shared out in proportions drawn from Dirichlet(alpha, ..., alpha).

    Small alpha gives a class to a few nodes; large alpha tends to equal shares of every class
    (Hsu, Qi & Brown 2019). A node left with fewer than `min_samples` is filled, one sample at a
    time, from the node that then holds most. Others draw the whole partition again until it fits,
    which for many nodes and small alpha never ends.

    Args:
        labels: (N,) class of each sample.
        nodes: how many parts.
        rng: keyed by the job's seed.
        alpha: concentration, above 0.
        min_samples: that every node holds, at least 1.

    Returns:
        per node its sample indices, int64, ascending.

    Raises:
        SpecError: alpha or min_samples is too small, or there are fewer than
            nodes * min_samples samples.
    """
    if not alpha > 0:
        raise SpecError(f"partition.alpha: {alpha} is not above 0", "0.1 is strong skew, 100 hardly any")
    if min_samples < 1:
        raise SpecError(f"partition.min_samples: {min_samples} is below 1", "choose at least 1")
    _check(len(labels), nodes, min_samples)
    owner = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        bounds = np.cumsum(rng.dirichlet(np.full(nodes, alpha)))[:-1] * len(members)
        owner[members] = np.searchsorted(bounds, np.arange(len(members)), side="right")
    shuffled = rng.permutation(len(labels))
    grouped = shuffled[np.argsort(owner[shuffled], kind="stable")]
    parts = np.split(grouped, np.cumsum(np.bincount(owner, minlength=nodes))[:-1])
    return [np.sort(part) for part in _fill(parts, min_samples)]


def _fill(parts: list[np.ndarray], min_samples: int) -> list[np.ndarray]:
    """Move last samples of the largest parts to those below `min_samples`; ties by node."""
    largest = [(-len(part), node) for node, part in enumerate(parts) if len(part) > min_samples]
    heapq.heapify(largest)
    for node, part in enumerate(parts):
        gained = []
        while len(part) + len(gained) < min_samples:
            negative_size, donor = largest[0]
            gained.append(parts[donor][-1])
            parts[donor] = parts[donor][:-1]
            if -negative_size - 1 > min_samples:
                heapq.heapreplace(largest, (negative_size + 1, donor))
            else:
                heapq.heappop(largest)
        if gained:
            parts[node] = np.concatenate([part, np.array(gained, np.int64)])
    return parts


def _check(samples: int, nodes: int, min_samples: int) -> None:
    if nodes < 1:
        raise SpecError(f"num_workers: {nodes} is below 1", "choose at least 1")
    if samples < nodes * min_samples:
        raise SpecError(
            f"num_workers: {nodes} nodes need {min_samples} sample(s) each, the training set has {samples}",
            f"choose at most {samples // min_samples} nodes or a larger dataset",
        )
