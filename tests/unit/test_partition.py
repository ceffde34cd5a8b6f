"""Laws of the partitions: every sample once, sizes, seeds, skew."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kuiper.data.partition import dirichlet, iid
from kuiper.errors import SpecError
from kuiper.random import numpy_generator

PARTITIONS = {
    "iid": iid,
    "dirichlet .001": partial(dirichlet, alpha=0.001),
    "dirichlet .3": partial(dirichlet, alpha=0.3),
    "dirichlet 100": partial(dirichlet, alpha=100.0),
}


def labels_of(size: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, size)


def cut(name: str, labels: np.ndarray, nodes: int, seed: int) -> list[np.ndarray]:
    return PARTITIONS[name](labels, nodes, numpy_generator(seed, "partition"))


@pytest.mark.parametrize("name", PARTITIONS)
@given(
    nodes=st.integers(1, 40), extra=st.integers(0, 300), classes=st.integers(1, 12), seed=st.integers(0, 99)
)
@settings(max_examples=40, deadline=None)
def test_every_sample_once_and_nobody_without(
    name: str, nodes: int, extra: int, classes: int, seed: int
) -> None:
    labels = labels_of(nodes + extra, classes)
    parts = cut(name, labels, nodes, seed)
    assert len(parts) == nodes and min(map(len, parts)) >= 1
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    again = cut(name, labels, nodes, seed)
    assert all(map(np.array_equal, parts, again))


@pytest.mark.parametrize("name", PARTITIONS)
def test_another_seed_is_another_partition(name: str) -> None:
    first, second = (cut(name, labels_of(500, 10), 5, seed) for seed in (1, 2))
    assert not all(map(np.array_equal, first, second))


@given(nodes=st.integers(1, 50), extra=st.integers(0, 200))
def test_iid_sizes_differ_by_one_at_most(nodes: int, extra: int) -> None:
    sizes = [len(part) for part in cut("iid", labels_of(nodes + extra, 3), nodes, 1)]
    assert max(sizes) - min(sizes) <= 1


@given(
    nodes=st.integers(1, 20), min_samples=st.integers(1, 9), extra=st.integers(0, 60), seed=st.integers(0, 50)
)
@settings(deadline=None)
def test_dirichlet_keeps_its_minimum(nodes: int, min_samples: int, extra: int, seed: int) -> None:
    labels = labels_of(nodes * min_samples + extra, 4)
    rng = numpy_generator(seed, "partition")
    parts = dirichlet(labels, nodes, rng, alpha=0.05, min_samples=min_samples)
    assert min(map(len, parts)) >= min_samples
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))


def skew(parts: list[np.ndarray], labels: np.ndarray) -> float:
    """Mean over samples of the total variation between a node's label shares and everyone's."""
    everyone = np.bincount(labels) / len(labels)
    counts_nc = np.stack([np.bincount(labels[part], minlength=len(everyone)) for part in parts])
    sizes_n1 = counts_nc.sum(1, keepdims=True)
    return float(np.abs(counts_nc - sizes_n1 * everyone).sum() / 2 / len(labels))


def test_skew_grows_as_alpha_falls() -> None:
    labels = labels_of(6000, 10)

    def mean_skew(cutter) -> float:
        generators = [numpy_generator(seed, "skew") for seed in range(5)]
        return float(np.mean([skew(cutter(labels, 20, rng), labels) for rng in generators]))

    skews = [mean_skew(partial(dirichlet, alpha=alpha)) for alpha in (0.01, 0.1, 0.3, 1.0, 10.0, 1e6)]
    assert all(more > less + 0.02 for more, less in zip(skews, skews[1:]))
    assert skews[0] > 0.6
    # Equal shares of every class are no more skewed than chance makes an IID cut.
    assert skews[-1] < mean_skew(iid) < skews[-2]


def test_too_many_nodes_say_how_many_fit() -> None:
    labels, rng = labels_of(10, 2), numpy_generator(1, "partition")
    with pytest.raises(SpecError, match="11 nodes need 1 .* has 10") as caught:
        iid(labels, 11, rng)
    assert "at most 10" in caught.value.remedy
    with pytest.raises(SpecError, match="4 nodes need 3") as caught:
        dirichlet(labels, 4, rng, alpha=1.0, min_samples=3)
    assert "at most 3" in caught.value.remedy
    for wrong in ({"alpha": 0.0}, {"alpha": float("nan")}, {"alpha": 1.0, "min_samples": 0}):
        with pytest.raises(SpecError, match="partition."):
            dirichlet(labels, 2, rng, **wrong)
