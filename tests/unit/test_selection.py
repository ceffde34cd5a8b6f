"""Random selection: seeded, uniform, and without a state."""

from __future__ import annotations

import numpy as np

from kuiper.selection import Random


def test_selects_k_of_the_available_as_a_function_of_seed_and_round() -> None:
    available = np.array([9, 2, 40, 7, 11, 5, 30, 1])
    chosen = Random().select(3, 4, available, seed=1)
    assert len(chosen) == 4 and set(chosen) <= set(available) and list(chosen) == sorted(chosen)
    assert chosen.dtype == np.int64
    assert np.array_equal(Random().select(3, 4, available[::-1], seed=1), chosen)
    picks = {tuple(Random().select(r, 4, available, seed=s)) for r in range(5) for s in range(5)}
    assert len(picks) > 10


def test_too_few_available_gives_them_all() -> None:
    for available in ([], [3], [5, 3]):
        ids = np.array(available, dtype=np.int64)
        assert Random().select(0, 2, ids, seed=0).tolist() == sorted(available)
    assert Random().select(0, 0, np.arange(3), seed=0).tolist() == []


def test_one_that_leaves_changes_one_place() -> None:
    everyone = np.arange(100)
    chosen = Random().select(0, 10, everyone, seed=2)
    without = Random().select(0, 10, np.delete(everyone, chosen[0]), seed=2)
    assert set(chosen[1:]) <= set(without) and len(without) == 10


def test_uniform() -> None:
    counts = np.zeros(20)
    for r in range(2000):
        counts[Random().select(r, 5, np.arange(20), seed=7)] += 1
    assert (abs(counts - 500) < 5 * np.sqrt(500 * 0.75)).all()
