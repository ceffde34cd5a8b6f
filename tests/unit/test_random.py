"""Keyed draws depend on their key alone: not on shape, order, placement or what was drawn before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kuiper import random

NODES = np.arange(50)


def test_a_draw_depends_on_its_key_alone() -> None:
    together = random.uniforms(7, "coin", NODES, 3)
    assert together.shape == (50,) and together.dtype == np.float64
    shuffled = np.random.default_rng(0).permutation(NODES)
    np.testing.assert_array_equal(random.uniforms(7, "coin", shuffled, 3), together[shuffled])
    alone = [random.uniforms(7, "coin", int(node), 3) for node in NODES]
    assert all(draw.shape == () for draw in alone)
    np.testing.assert_array_equal(alone, together)
    grid = random.uniforms(7, "coin", NODES[:, None], np.arange(5))
    np.testing.assert_array_equal(grid[:, 3], together)
    assert random.uniforms(7, "coin", NODES[:0], 3).shape == (0,)


def test_no_two_keys_share_a_stream() -> None:
    streams = [
        random.keys(seed, purpose, node, step)
        for seed in (0, 1, 2**63)
        for purpose in ("coin", "peer")
        for node in (0, 1, 2)
        for step in (0, 1, 2)
    ]
    assert len({int(key) for key in streams}) == 3 * 2 * 3 * 3
    # Distinct counters give distinct keys for certain, not only probably: the mixer is a bijection.
    assert len(np.unique(random.keys(1, "coin", np.arange(100_000)))) == 100_000


def test_draws_are_uniform_and_neighbours_are_unrelated() -> None:
    draws = random.uniforms(1, "coin", np.arange(400)[:, None], np.arange(500))
    assert 0 <= draws.min() and draws.max() < 1
    counts = np.histogram(draws, bins=100, range=(0, 1))[0]
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert 50 < chi_square < 165  # 99 degrees of freedom: 1e-4 on either side
    for one, next_one in ((draws[1:], draws[:-1]), (draws[:, 1:], draws[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), next_one.ravel())[0, 1]) < 0.01


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_a_permutation_is_one(size: int) -> None:
    order = random.permutation(3, "batch", 5, 1, size)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))
    np.testing.assert_array_equal(order, random.permutation(3, "batch", 5, 1, size))
    if size == 1000:
        assert (order != random.permutation(3, "batch", 5, 2, size)).any()


def test_generators_are_keyed_too() -> None:
    def numpy_draw(node: int) -> float:
        return random.numpy_generator(1, "partition", node).random()

    assert numpy_draw(0) == numpy_draw(0) != numpy_draw(1)
    draws = []
    for key in (0, 1, 0):
        random.seed_torch(1, "dropout", key)
        draws.append(torch.rand(3).tolist())
        torch.rand(key + 1)  # what others draw in between changes nothing
    assert draws[0] == draws[2] != draws[1]
