"""Draw samples that stand for a whole set, whatever order the set is stored in."""

from __future__ import annotations

import numpy as np

from kuiper import random


def stratified_order(labels: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Return a random order of all samples in which every part holds the classes in their proportion.

    The i-th of the m samples of a class, in a random order of its own, lies at (i + u) / m of the way, u uniform
    in [0, 1). The first k samples, and any k that follow each other, therefore hold k m / N of that class, give or
    take two.

    Args:
        labels: (N,) class of each sample.
        seed: of the job.
        purpose: of the draw; two purposes give two independent orders.

    Returns:
        (N,) int64 indices, each of 0..N-1 once.
    """
    total = len(labels)
    shuffled = random.permutation(seed, purpose, 0, 0, total)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(total) - np.repeat(starts, counts)
    position = (rank + random.uniforms(seed, purpose, 0, 1, by_class)) / np.repeat(counts, counts)
    return by_class[np.argsort(position, kind="stable")]
