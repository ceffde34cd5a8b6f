"""The virtual clock: what counts is known before it is computed, and nothing else is computed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from kuiper.attacks.adversary import Adversary
from kuiper.errors import QuorumLost
from kuiper.link import Channel
from kuiper.link.clock import VirtualClock, WallClock
from kuiper.link.local import Switchboard
from kuiper.link.profiles import Profiles
from kuiper.link.wire import frame_bytes
from kuiper.topology import Exchange

MODEL = Channel("model", 1, width=4, shared=True)
GRADIENT = Channel("gradient", 2, width=4, columns=("loss",), work=1000)
PARAMETERS = Channel("parameters", 3, width=250)


def devices(*ms: float, kbit: float = np.inf, latency: float = 0.0) -> Profiles:
    """3 s of compute a step for every ms, since a row is worth 1000 samples."""
    ones = np.ones(len(ms))
    return Profiles(np.array(ms), kbit * ones, latency * ones, np.inf)


@dataclass
class Played:
    """What the hub gathered step by step, when, and what the nodes were asked to compute."""

    counted: list[list[int]] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    computed: list[list[int]] = field(default_factory=list)
    clock_while_computing: list[float] = field(default_factory=list)


def play(
    profiles: Profiles, steps: int = 1, byzantine: tuple[int, ...] = (), wall: bool = False, **gather: float
) -> Played:
    """A hub that asks every node at every step, and nodes that answer."""
    n = len(profiles.latency)
    clock = WallClock() if wall else VirtualClock(profiles)
    hub, block = Switchboard(n, Adversary(np.array(byzantine, np.int64)), clock).links()
    played = Played()

    async def serve() -> None:
        for step in range(1, steps + 1):
            await hub.publish(MODEL, step, torch.zeros(4), np.arange(n), reply=GRADIENT)
            gathered = await hub.gather(GRADIENT, step, **gather)
            played.counted.append(gathered.nodes.tolist())
            played.late.append(gathered.late)
            played.ends.append(hub.now())
        await hub.close()

    async def work() -> None:
        async for request in block.requests(MODEL, 1):
            played.computed.append(request.nodes.tolist())
            played.clock_while_computing.append(block.now())
            rows = torch.zeros(len(request.nodes), 4)
            losses = {"loss": np.zeros(len(request.nodes))}
            await block.send(GRADIENT, request.step, request.nodes, rows, losses)

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
            group.create_task(work())

    try:
        asyncio.run(both())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return played


def test_a_round_lasts_as_long_as_the_last_that_counts() -> None:
    played = play(devices(5, 1, 4, 2, 3), steps=3, quorum=3)
    assert played.counted == [[1, 3, 4]] * 3  # the fastest, in node order
    assert played.late == [2, 2, 2]
    assert played.ends == pytest.approx([9, 18, 27])


def test_what_will_not_count_is_never_computed() -> None:
    played = play(devices(5, 1, 4, 2, 3), steps=2, quorum=2)
    assert played.computed == played.counted == [[1, 3]] * 2
    assert played.clock_while_computing == played.ends  # the arrivals were known before


def test_a_full_quorum_waits_for_the_slowest() -> None:
    played = play(devices(5, 1, 4))
    assert (played.counted, played.late, played.ends) == ([[0, 1, 2]], [0], pytest.approx([15]))


@pytest.mark.parametrize("server", [np.inf, 10.0], ids=["free", "shared-port"])
@pytest.mark.parametrize("wall", [False, True], ids=["virtual", "wall"])
def test_ties_are_drawn_anew_each_step(wall: bool, server: float) -> None:
    """Every one of 8 equal nodes counts in about half of 100 steps, where 4 rows are enough."""
    profiles = replace(devices(*[1] * 8, kbit=1000), server_kbit_per_s=server)
    played = play(profiles, steps=100, quorum=4, wall=wall)
    often = np.bincount(np.concatenate(played.counted), minlength=8)
    assert often.sum() == 400 and often.min() >= 30, often
    assert played.counted == play(profiles, steps=100, quorum=4, wall=wall).counted
    assert 0 not in np.concatenate(play(devices(2, 1, 1, 1, 1), steps=9, quorum=3).counted)  # slower: no tie


@pytest.mark.parametrize("wall", [False, True], ids=["virtual", "wall"])
def test_byzantine_rows_arrive_first_and_delay_nobody(wall: bool) -> None:
    played = play(devices(1, 2, 3, 100, 100), byzantine=(3, 4), quorum=3, wall=wall)
    assert played.counted[0][1:] == [3, 4]  # by the wall nobody is slower: which honest node counts is drawn
    if not wall:
        assert played.counted == [[0, 3, 4]] and played.ends == pytest.approx([3])


def test_a_deadline_ends_the_round_and_may_lose_the_quorum() -> None:
    made_do = play(devices(1, 2, 3, 100), deadline=7, minimum=2)
    assert (made_do.counted, made_do.late, made_do.ends) == ([[0, 1]], [2], pytest.approx([7]))
    in_time = play(devices(1, 2, 3, 100), deadline=7, quorum=2, minimum=2)
    assert in_time.ends == pytest.approx([6])  # all that were wanted came: no need to wait
    with pytest.raises(QuorumLost, match="2 rows of 4 by the deadline of 7 s, 3 are needed"):
        play(devices(1, 2, 3, 100), deadline=7, minimum=3)


def test_peers_wait_for_their_senders_only() -> None:
    """t_i <- max(t_i + compute_i, max over senders j of t_j + latency_j + transfer): max-plus."""
    rng = np.random.default_rng(1)
    n, ms, latency, kbit = 6, rng.uniform(1, 5, 6), rng.uniform(0, 2, 6), rng.uniform(1, 10, 6)
    clock = VirtualClock(Profiles(ms, kbit, latency, np.inf))
    _, block = Switchboard(n, Adversary(np.empty(0, np.int64)), clock).links()
    exchanges = [Exchange.of(np.arange(n), (np.arange(n) + hop) % n) for hop in (1, 2, 3)]
    exchanges += [Exchange.of(np.array([0, 1, 5]), np.array([4, 4, 1])), Exchange.of(*np.empty((2, 0), int))]
    expected = np.zeros(n)
    bits = 8 * frame_bytes(PARAMETERS, 1, 1)

    def share(exchange: Exchange, to: int, by: int) -> float:
        """Both ends divide their bandwidth among this step's transfers."""
        return min(kbit[to] / (exchange.receivers == to).sum(), kbit[by] / (exchange.senders == by).sum())

    async def walk() -> None:
        nonlocal expected
        for step, exchange in enumerate(exchanges, 1):
            await block.send(PARAMETERS, step, block.nodes, torch.zeros(n, 250), to=exchange)
            block.charge(100)
            await block.neighbours(PARAMETERS, step, exchange)
            after = expected + 3 * 100 * ms / 1000
            for to, by in zip(exchange.receivers, exchange.senders, strict=True):
                transfer = bits / (1000 * share(exchange, to, by))
                after[to] = max(after[to], expected[by] + latency[by] + transfer)
            expected = after
            np.testing.assert_allclose(clock.nodes, expected, rtol=1e-12)

    asyncio.run(walk())
    assert block.now() == clock.nodes.max()


def test_a_peer_waits_no_longer_than_the_deadline() -> None:
    """Node 0 hears node 1 in time and node 2, whose row takes 10 s, not."""
    clock = VirtualClock(Profiles(np.ones(3), np.full(3, np.inf), np.array([0.0, 1.0, 10.0]), np.inf))
    _, block = Switchboard(3, Adversary(np.empty(0, np.int64)), clock).links()
    exchange = Exchange.of(np.array([0, 0]), np.array([1, 2]))

    async def step() -> list[tuple[list[int], list[float]]]:
        rows = torch.arange(3.0)[:, None].expand(3, 250)
        await block.send(PARAMETERS, 1, block.nodes, rows, to=exchange)
        block.charge(500)
        heard = await block.neighbours(PARAMETERS, 1, exchange, deadline=2.0)
        return [(places.tolist(), rows[:, 0].tolist()) for places, rows in heard.turns(block.nodes)]

    assert asyncio.run(step()) == [([0], [1.0])]
    np.testing.assert_allclose(clock.nodes, [1.5 + 2, 1.5, 1.5])
    moved = block.traffic.take()
    assert (moved["rows"], moved["late"]) == (1, 1)


def test_all_reduce_is_a_ring_at_the_pace_of_the_slowest() -> None:
    n, width = 4, 1000
    clock = VirtualClock(devices(1, 2, 3, 4, kbit=50.0, latency=0.5))
    _, block = Switchboard(n, Adversary(np.empty(0, np.int64)), clock).links()
    block.charge(1000)
    asyncio.run(block.reduce(1, block.nodes, torch.zeros(n, width), torch.float32))
    hop = 0.5 + 8 * 4 * width / n / (1000 * 50.0)
    np.testing.assert_allclose(clock.nodes, np.full(n, 12 + 2 * (n - 1) * hop))
