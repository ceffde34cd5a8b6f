"""Who is here: the processes of a mesh, as the one that asks them knows it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kuiper.errors import JobFailed, QuorumLost
from kuiper.link.stream import LEFT

Notify = Callable[..., None]


@dataclass(frozen=True)
class Losses:
    """What is done about processes that are lost.

    Attributes:
        tolerate: how many may be; None leaves it to the gathers.
        retry: how often each is started again.
        patience: seconds in which one that is started again should be back.
        ended: how a rank has ended for good, '' while that is not known.
    """

    tolerate: int | None = None
    retry: int = 0
    patience: float = 0.0
    ended: Callable[[int], str] = lambda rank: ""


class Attendance:
    """Told by the mesh's threads, asked by the event loop.

    Args:
        blocks: the nodes of every rank.
        notify: called with (event, **values) for what a person should know.
    """

    def __init__(self, blocks: Sequence[np.ndarray], notify: Notify, losses: Losses) -> None:
        self.rank_of = np.zeros(sum(len(block) for block in blocks), np.int64)
        for owner, block in enumerate(blocks):
            self.rank_of[block] = owner
        self.alive = np.ones(len(blocks), bool)
        self._blocks = blocks
        self._notify = notify
        self._losses = losses
        self._lost: dict[int, float] = {}
        """When each was lost, on the monotonic clock; who said goodbye is not."""
        self._reasons: dict[int, str] = {}
        self._attempts = [0] * len(blocks)
        self._returned: set[int] = set()
        """Have joined again, and count from the next step on."""
        self._barred: set[int] = set()
        """Were not let in again."""
        self._lock = threading.Lock()

    def joined(self, rank: int, attempt: int) -> None:
        with self._lock:
            self._attempts[rank] = attempt
            if not self.alive[rank]:
                self._returned.add(rank)

    def gone(self, rank: int, reason: str) -> bool:
        """Whether that is news."""
        with self._lock:
            self._returned.discard(rank)
            if not self.alive[rank]:
                return False
            self.alive[rank] = False
            if reason != LEFT:
                self._lost[rank] = time.monotonic()
                self._reasons[rank] = reason
        if reason != LEFT:
            self._notify("gone", rank=rank, nodes=self._blocks[rank].tolist(), reason=reason)
        return True

    def barred(self, rank: int, reason: str) -> None:
        """One that was lost and started again may not join: it is not waited for any more."""
        with self._lock:
            if rank in self._barred or rank not in self._lost:
                return
            self._barred.add(rank)
            self._reasons[rank] += f", and was not let in again: it {reason}"
        self._notify("barred", rank=rank, nodes=self._blocks[rank].tolist(), reason=reason)

    def live(self, nodes: np.ndarray) -> np.ndarray:
        """Mask of the nodes whose process is here.

        Raises:
            QuorumLost: more processes are gone than may be.
            JobFailed: rank 0 is, and nobody would hear of what is done without it.
        """
        if 0 in self._lost:
            raise JobFailed(f"the server is gone: it {self._reasons[0]}", "look at the log of ps")
        tolerate = self._losses.tolerate
        if tolerate is not None and len(self._lost) > tolerate:
            raise QuorumLost(f"{len(self._lost)} worker processes are gone, on_failure tolerates {tolerate}",
                             "look for the first error: `kuiper logs JOB --errors`")
        return self.alive[self.rank_of[nodes]]

    def lost(self) -> dict[int, str]:
        """What happened to those that are gone, by rank."""
        with self._lock:
            return {rank: self._reasons[rank] for rank in self._lost}

    def welcome(self, step: int) -> set[int]:
        """Those that have joined again: they are asked from this step on, and not waited for before."""
        with self._lock:
            returned, self._returned = self._returned, set()
            self.alive[list(returned)] = True
            for rank in returned:
                self._lost.pop(rank, None)
        for rank in returned:
            self._notify("joined", step=step, rank=rank, nodes=self._blocks[rank].tolist(),
                         attempt=self._attempts[rank])
        return returned

    def may_return(self) -> dict[int, float]:
        """The ranks that are lost and are started again, and until when each can be hoped for (monotonic)."""
        with self._lock:
            until = {rank: lost + self._losses.patience for rank, lost in self._lost.items()
                     if self._attempts[rank] < self._losses.retry and rank not in self._barred
                     and not self._losses.ended(rank)}
        return {rank: end for rank, end in until.items() if time.monotonic() < end}
