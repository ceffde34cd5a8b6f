"""Laws of the partitions: every sample once, sizes, seeds, skew."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kuiper.data.partition import class_ratios, dirichlet, iid, long_tail, shards, zipf
from kuiper.errors import SpecError
from kuiper.random import numpy_generator

PARTITIONS = {
    "iid": iid,
    "dirichlet .001": partial(dirichlet, alpha=0.001),
    "dirichlet .3": partial(dirichlet, alpha=0.3),
    "dirichlet 100": partial(dirichlet, alpha=100.0),
    "class_ratios": class_ratios,
    "long_tail 10": long_tail,
    "long_tail 1e9": partial(long_tail, imbalance=1e9),
    "shards 1": partial(shards, shards_per_node=1),
    "shards 3": partial(shards, shards_per_node=3),
    "zipf 0": partial(zipf, exponent=0),
    "zipf 1": zipf,
    "zipf 20": partial(zipf, exponent=20.0),
}
LEAST = {"shards 3": 3}  # samples per node that a partition cannot do without; otherwise 1


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
    least = LEAST.get(name, 1)
    labels = labels_of(nodes * least + extra, classes)
    parts = cut(name, labels, nodes, seed)
    assert len(parts) == nodes and min(map(len, parts)) >= least
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


FILLED = {
    "dirichlet": partial(dirichlet, alpha=0.05),
    "class_ratios": class_ratios,
    "long_tail": partial(long_tail, imbalance=1e6),
    "zipf": partial(zipf, exponent=3.0),
}


@pytest.mark.parametrize("name", FILLED)
@given(
    nodes=st.integers(1, 20), min_samples=st.integers(1, 9), extra=st.integers(0, 60), seed=st.integers(0, 50)
)
@settings(max_examples=50, deadline=None)
def test_the_minimum_is_kept(name: str, nodes: int, min_samples: int, extra: int, seed: int) -> None:
    labels = labels_of(nodes * min_samples + extra, 4)
    rng = numpy_generator(seed, "partition")
    parts = FILLED[name](labels, nodes, rng, min_samples=min_samples)
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


def test_class_ratios_are_as_skewed_as_dirichlet_3() -> None:
    labels = labels_of(20_000, 10)
    ratios, drawn, milder = (
        np.mean([skew(cutter(labels, 40, numpy_generator(seed, "skew")), labels) for seed in range(5)])
        for cutter in (class_ratios, partial(dirichlet, alpha=3.0), partial(dirichlet, alpha=10.0))
    )
    assert ratios == pytest.approx(drawn, rel=0.15) and ratios > 1.5 * milder


def test_two_shards_are_two_classes_and_equal_sizes() -> None:
    labels = np.repeat(np.arange(10), 200)
    parts = cut("shards 1", labels, 20, 1)
    assert all(len(part) == 100 and len(np.unique(labels[part])) == 1 for part in parts)
    pairs = [np.unique(labels[part]) for part in shards(labels, 50, numpy_generator(1, "partition"))]
    assert all(len(held) <= 2 for held in pairs) and len({tuple(held) for held in pairs}) > 20


@pytest.mark.parametrize("nodes", [20, 23])
def test_a_long_tail_on_every_node_and_nothing_left_out(nodes: int) -> None:
    """20 nodes of 10 equal classes: the exact profile; with 23 no two sizes are far from it."""
    labels = np.repeat(np.arange(10), 6000)
    parts = long_tail(labels, nodes, numpy_generator(1, "partition"), imbalance=100.0)
    counts_nc = np.stack([np.bincount(labels[part], minlength=10) for part in parts])
    profile = 100.0 ** (-np.arange(10) / 9)
    expected = len(labels) / nodes * profile / profile.sum()
    tails = np.sort(counts_nc, axis=1)[:, ::-1]
    np.testing.assert_allclose(tails, np.tile(expected, (nodes, 1)), rtol=0.5 if nodes % 10 else 0, atol=1.5)
    assert len(set(counts_nc.argmax(1))) == 10


def test_zipf_sizes_follow_the_law_and_labels_are_mixed() -> None:
    labels = labels_of(30_000, 10)
    parts = zipf(labels, 50, numpy_generator(1, "partition"), exponent=1.2)
    sizes = np.sort([len(part) for part in parts])[::-1]
    law = np.arange(1.0, 51) ** -1.2
    np.testing.assert_allclose(sizes, 30_000 * law / law.sum(), atol=1.5)
    largest = max(parts, key=len)
    assert (np.bincount(labels[largest]) > 0.08 * len(largest)).all()
    assert {int(np.argmax([len(p) for p in cut("zipf 1", labels, 9, seed)])) for seed in range(9)} != {0}


def test_too_many_nodes_say_how_many_fit() -> None:
    labels, rng = labels_of(10, 2), numpy_generator(1, "partition")
    with pytest.raises(SpecError, match="11 nodes need 1 .* has 10") as caught:
        iid(labels, 11, rng)
    assert "at most 10" in caught.value.remedy
    with pytest.raises(SpecError, match="4 nodes need 3") as caught:
        dirichlet(labels, 4, rng, alpha=1.0, min_samples=3)
    assert "at most 3" in caught.value.remedy
    with pytest.raises(SpecError, match="6 nodes need 2"):
        shards(labels, 6, rng)


@pytest.mark.parametrize(
    ("function", "key", "value"),
    [
        (dirichlet, "alpha", 0.0),
        (dirichlet, "alpha", float("nan")),
        (dirichlet, "min_samples", 0),
        (class_ratios, "min_samples", 0),
        (long_tail, "imbalance", 0.5),
        (shards, "shards_per_node", 0),
        (zipf, "exponent", -1.0),
        (zipf, "min_samples", 0),
    ],
)
def test_a_wrong_parameter_is_named(function, key: str, value: float) -> None:
    with pytest.raises(SpecError, match=f"partition.{key}: {value}"):
        function(labels_of(10, 2), 2, numpy_generator(1, "partition"), **{key: value})
