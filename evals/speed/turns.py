"""A selector that waits for its turn, so that a benchmark can time contenders round by round."""

from __future__ import annotations

import numpy as np

from kuiper.selection import Random


class Turns(Random):
    """Before each selection: say on the pipe `done` that what came before is done, and wait for a line on `go`."""

    def __init__(self, go: str, done: str) -> None:
        self.go, self.done = open(go), open(done, "w", buffering=1)

    def select(self, round: int, k: int, available: np.ndarray, seed: int) -> np.ndarray:
        print("done", file=self.done)
        self.go.readline()
        return super().select(round, k, available, seed)
