"""A pooled learner computes what a plain one does, whoever takes which chunk and whatever is still held."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from kuiper.aggregation.sums import ordered_sum
from kuiper.errors import JobFailed
from kuiper.learner import Learner, pool
from kuiper.optim import SGD
from tests.unit.test_learner import NODES, N, dense, learner, points

SGD_ = SGD(0.2, momentum=0.9)


def fresh() -> Learner:
    return learner(dense())


@pytest.fixture
def pooled() -> Iterator[tuple[pool.PooledLearner, list[socket.socket]]]:
    """A pool of two that are threads, and their ends of the sockets."""
    memories = [os.memfd_create("test") for _ in range(5)]
    take, deal = os.pipe()
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    ours = pool.PooledLearner(fresh(), SGD_, memories, deal, [here for here, _ in pairs])
    threads = []
    for _, there in pairs:
        theirs = fresh()
        theirs.batches.data = pool.samples(there, memories)
        threads.append(threading.Thread(target=pool.serve, args=(theirs, SGD_, memories, take, there)))
        threads[-1].start()
    yield ours, [there for _, there in pairs]
    os.close(deal)
    for thread in threads:
        thread.join()
    for descriptor in (*memories, take):
        os.close(descriptor)
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.mark.parametrize("nodes", [1, 2, 10, 57, 1000])
@pytest.mark.parametrize("processes", [1, 2, 7])
def test_chunks_cover_every_place_once_and_shrink(nodes: int, processes: int) -> None:
    dealt = list(pool.chunks(nodes, processes))
    assert [place for start, end in dealt for place in range(start, end)] == list(range(nodes))
    sizes = [end - start for start, end in dealt]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) >= min(nodes, 2 * processes)


def test_rows_are_those_of_a_plain_learner_and_stay_while_held(pooled: tuple) -> None:
    ours, _ = pooled
    plain = fresh()
    held = []
    for batch in range(1, 8):  # more calls than there are matrices to share
        thetas = points(plain.size, N + 1)
        for theta in (thetas[0], thetas[1:]):
            held.append((ours.gradients(theta, NODES, batch), plain.gradients(theta, NODES, batch)))
        few = NODES[batch % 4 :]
        held.append(tuple(one.updates(thetas[0], few, batch, 3, SGD_, 0.5) for one in (ours, plain)))
        other = SGD(0.1)
        held.append(tuple(one.updates(thetas[0], few, batch, 2, other, 1.0) for one in (ours, plain)))
    for (rows, losses), (expected, expected_losses) in held:
        assert torch.equal(rows, expected)
        np.testing.assert_array_equal(losses, expected_losses)
    assert ours.evaluate(thetas[0]) == plain.evaluate(thetas[0])


def test_sums_of_shared_rows_are_handed_out(pooled: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same bits; rows that have changed on the way are summed here."""
    monkeypatch.setattr(pool, "_SPREAD", 1)
    ours, _ = pooled
    weights = np.linspace(0.1, 0.7, N)
    handed: list[object] = []
    monkeypatch.setattr(pool, "ordered_sum", lambda *given: handed.append(given) or ordered_sum(*given))
    for batch in (1, 2):
        rows, _ = ours.gradients(points(ours.size, 1)[0], NODES, batch)
        for some, helpers in ((rows, 2), (rows[:3], 2), (rows[1:], 0), (rows.clone(), 0)):
            expected = ordered_sum(some, weights[: len(some)].tolist())
            assert torch.equal(ours.weighted_sum(some, weights[: len(some)]), expected)
            assert len(handed) == helpers
            handed.clear()


def test_one_that_fails_is_named(pooled: tuple) -> None:
    ours, theirs = pooled
    theirs[1].send(json.dumps({"message": "ValueError: no luck", "remedy": "try again"}).encode())
    with pytest.raises(JobFailed, match="pool process 2: ValueError: no luck"):
        ours.gradients(points(ours.size)[0], NODES, 1)


def test_one_that_dies_is_named(pooled: tuple) -> None:
    ours, theirs = pooled
    theirs[0].shutdown(socket.SHUT_RDWR)
    with pytest.raises(JobFailed, match="pool process 1 of 2 has died"):
        ours.gradients(points(ours.size)[0], NODES, 1)
