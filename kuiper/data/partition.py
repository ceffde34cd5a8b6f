"""How nodes share the training set: every sample belongs to exactly one node."""

from __future__ import annotations

import heapq
from collections.abc import Callable

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
    return _share_out(labels, nodes, rng, min_samples, lambda _: rng.dirichlet(np.full(nodes, alpha)))


def class_ratios(
    labels: np.ndarray, nodes: int, rng: np.random.Generator, *, min_samples: int = 1
) -> list[np.ndarray]:
    """Skew by label and size: class c is shared out in proportion to one uniform draw in (0, 1] per node.

    The random ratios of Oort (Lai et al. 2021): a mild skew, of the variance that `dirichlet` has at
    alpha = 3.

    Args:
        labels: (N,) class of each sample.
        nodes: how many parts.
        rng: keyed by the job's seed.
        min_samples: that every node holds, at least 1, filled as in `dirichlet`.

    Returns:
        per node its sample indices, int64, ascending.

    Raises:
        SpecError: min_samples is below 1, or there are fewer than nodes * min_samples samples.
    """

    def shares(_: int) -> np.ndarray:
        ratios_n = 1 - rng.random(nodes)
        return ratios_n / ratios_n.sum()

    return _share_out(labels, nodes, rng, min_samples, shares)


def long_tail(
    labels: np.ndarray, nodes: int, rng: np.random.Generator, *, imbalance: float = 10.0, min_samples: int = 1
) -> list[np.ndarray]:
    """Long-tailed classes on every node: imbalance^(-r / (C - 1)) of the r-th for one of the first, r < C.

    The exponential profile of Cao et al. (2019), who thin out the one training set and drop the rest.
    Here nothing is dropped: every node has another first class, the rest follow in a common cyclic
    order, and each class is shared out in proportion to what the nodes ask of it. The profile is
    exact where the classes are of one size and their number divides the number of nodes; one node
    alone holds everything, and no tail.

    Args:
        labels: (N,) class of each sample.
        nodes: how many parts.
        rng: keyed by the job's seed.
        imbalance: how many times as often the first class is held as the last, at least 1.
        min_samples: that every node holds, at least 1, filled as in `dirichlet`.

    Returns:
        per node its sample indices, int64, ascending.

    Raises:
        SpecError: imbalance or min_samples is below 1, or there are fewer than nodes * min_samples
            samples.
    """
    if not imbalance >= 1:
        raise SpecError(f"partition.imbalance: {imbalance} is below 1", "1 is none, 100 strong")
    classes = len(np.unique(labels))
    place_c, first_n = rng.permutation(classes), rng.permutation(nodes) % max(classes, 1)

    def shares(label: int) -> np.ndarray:
        rank_n = (place_c[label] - first_n) % classes
        asked_n = float(imbalance) ** (-rank_n / max(classes - 1, 1))
        return asked_n / asked_n.sum()

    return _share_out(labels, nodes, rng, min_samples, shares)


def shards(
    labels: np.ndarray, nodes: int, rng: np.random.Generator, *, shards_per_node: int = 2
) -> list[np.ndarray]:
    """Sort by label, cut into nodes * shards_per_node shards, deal each node as many at random.

    The "pathological" split of McMahan et al. (2017): with two shards most nodes hold two classes.
    Samples of one class are shuffled first; shards differ by one sample at most.

    Args:
        labels: (N,) class of each sample.
        nodes: how many parts.
        rng: keyed by the job's seed.
        shards_per_node: at least 1.

    Returns:
        per node its sample indices, int64, ascending.

    Raises:
        SpecError: shards_per_node is below 1, or there are more shards than samples.
    """
    if shards_per_node < 1:
        raise SpecError(f"partition.shards_per_node: {shards_per_node} is below 1", "choose at least 1")
    _check(len(labels), nodes, shards_per_node)
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    cut = np.array_split(ordered, nodes * shards_per_node)
    dealt = rng.permutation(len(cut)).reshape(nodes, shards_per_node)
    return [np.sort(np.concatenate([cut[shard] for shard in hand])) for hand in dealt]


def zipf(
    labels: np.ndarray, nodes: int, rng: np.random.Generator, *, exponent: float = 1.0, min_samples: int = 1
) -> list[np.ndarray]:
    """Sizes by Zipf's law, labels mixed: the r-th largest node holds a share proportional to r^-exponent.

    Which node is the r-th largest is drawn. Nodes below `min_samples` are filled as in `dirichlet`.

    Args:
        labels: (N,), of which only the length counts.
        nodes: how many parts.
        rng: keyed by the job's seed.
        exponent: 0 gives equal sizes; 1 a largest node n times the smallest.
        min_samples: that every node holds, at least 1.

    Returns:
        per node its sample indices, int64, ascending.

    Raises:
        SpecError: exponent is negative, min_samples is below 1, or there are fewer than
            nodes * min_samples samples.
    """
    if not exponent >= 0:
        raise SpecError(f"partition.exponent: {exponent} is below 0", "0 is none, 1 is Zipf's own")
    _check(len(labels), nodes, min_samples)
    shares_n = (1.0 + rng.permutation(nodes)) ** -float(exponent)
    bounds = np.rint(np.cumsum(shares_n / shares_n.sum()) * len(labels)).astype(np.int64)[:-1]
    parts = np.split(rng.permutation(len(labels)), bounds)
    return [np.sort(part) for part in _fill(parts, min_samples)]


def _share_out(
    labels: np.ndarray,
    nodes: int,
    rng: np.random.Generator,
    min_samples: int,
    shares: Callable[[int], np.ndarray],
) -> list[np.ndarray]:
    """Cut every class between the nodes.

    Args:
        shares: of the c-th class that occurs, (nodes,), summing to 1.
    """
    _check(len(labels), nodes, min_samples)
    owner = np.empty(len(labels), np.int64)
    for index, label in enumerate(np.unique(labels)):
        members = rng.permutation(np.flatnonzero(labels == label))
        bounds = np.cumsum(shares(index))[:-1] * len(members)
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
    if min_samples < 1:
        raise SpecError(f"partition.min_samples: {min_samples} is below 1", "choose at least 1")
    if nodes < 1:
        raise SpecError(f"num_workers: {nodes} is below 1", "choose at least 1")
    if samples < nodes * min_samples:
        raise SpecError(
            f"num_workers: {nodes} nodes need {min_samples} sample(s) each, the training set has {samples}",
            f"choose at most {samples // min_samples} nodes or a larger dataset",
        )
