"""Uniform selection: the baseline of federated learning."""

from __future__ import annotations

import numpy as np

from kuiper.random import keys


class Random:
    """k of the available clients, uniformly and without replacement; a pure function of (seed, round)."""

    def select(self, round: int, k: int, available: np.ndarray, seed: int) -> np.ndarray:
        """The k clients whose keys of (seed, round) are smallest.

        A client's key does not depend on who else is available, so one client that leaves changes
        one place in the selection.

        Args:
            round: of the job.
            k: how many, 0 or more.
            available: ids of the clients that can take part, distinct, in any order.
            seed: of the job.

        Returns:
            Ids, ascending int64; all of `available` where k or fewer are.
        """
        available = np.asarray(available, dtype=np.int64)
        if k >= len(available):
            return np.sort(available)
        # Keys are distinct (the mixer is a bijection of the id), so there are no ties to break.
        draws = keys(seed, "select", available, round)
        return np.sort(available[np.argpartition(draws, k)[:k]])
