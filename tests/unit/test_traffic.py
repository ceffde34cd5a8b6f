"""Bytes, rows and late rows of links between processes, counted by hand; what a simulation counts is in tests/laws."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import pytest
import torch

from kuiper.attacks.adversary import Adversary
from kuiper.link import Channel
from kuiper.link.clock import VirtualClock
from kuiper.link.profiles import uniform
from kuiper.link.remote import RemoteLink, reduce_channels
from kuiper.link.virtual import VirtualHub
from kuiper.link.wire import Header
from kuiper.topology import Exchange

HEAD, ID, COLUMN, VALUE = 32, 4, 8, 4  # bytes of a frame: header, a node's id, a column, a float32
MODEL = Channel("model", 1, width=6, shared=True)
GRADIENT = Channel("gradient", 2, width=6, columns=("loss",), work=1.0)
PARAMETERS = Channel("parameters", 3, width=6)
REPORT = Channel("report", 100, width=0, columns=("loss",), charged=False)
REDUCE = reduce_channels(6, 2, torch.float32)
BLOCKS = [np.array([4]), np.array([0, 1]), np.array([2, 3])]  # an observer or server, and two processes of two nodes


class Wires:
    """What one link posts arrives at another, in a thread of the receiver's."""

    names = ("ps", "worker_1", "worker_2")

    def __init__(self, links: list[RemoteLink]) -> None:
        self.links, self.pool = links, ThreadPoolExecutor(8)
        self.posted: list[Future] = []

    def of(self, sender: int) -> Wires:
        """The mesh of one process."""
        own = object.__new__(Wires)
        own.__dict__ = self.__dict__ | {"sender": sender}
        return own

    def post(self, rank: int, channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor,
             columns: np.ndarray | None, keep: int | None = None) -> None:
        self.posted.append(self.pool.submit(self.deliver, rank, channel, step, nodes, rows.clone(), columns))

    def deliver(self, rank: int, channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor,
                columns: np.ndarray | None) -> None:
        header = Header(channel.number, 1, step, len(nodes), 1 if channel.shared else len(nodes), 0)
        data, at = rows.contiguous().numpy().tobytes(), 0
        if (views := self.links[rank].place(self.sender, header, nodes, columns)) is None:
            return
        for view in views:
            view.cast("B")[:] = data[at : at + view.nbytes]
            at += view.nbytes
        self.links[rank].arrived(self.sender, header, nodes, columns)


@pytest.fixture
def links() -> Iterator[list[RemoteLink]]:
    nobody = Adversary(np.empty(0, np.int64))
    common = ((MODEL, GRADIENT, PARAMETERS, REPORT, *REDUCE), nobody, lambda *_, **__: None, torch.device("cpu"))
    made = [RemoteLink(rank, BLOCKS, *common) for rank in range(3)]
    made.append(VirtualHub(0, BLOCKS, *common, clock=VirtualClock(uniform(4, 1)), idle=False))
    wires = Wires(made)
    for rank, link in enumerate(made):
        link.mesh = wires.of(rank % 3)
    yield made
    for link in made:
        for inbox in link._inboxes.values():
            inbox.shut()
    wires.pool.shutdown()


def moved(link: RemoteLink) -> tuple[int, int, int, int]:
    taken = link.traffic.take()
    return taken["bytes_in"], taken["bytes_out"], taken["rows"], taken["late"]


async def work(link: RemoteLink, only: list[int] | None = None) -> None:
    """Send gradients for the next model: of the nodes that are asked, or of these only."""
    async for request in link.requests(MODEL, 10):
        nodes = request.nodes.tolist() if only is None else only
        await link.send(GRADIENT, request.step, np.array(nodes), torch.ones(len(nodes), 6),
                        {"loss": np.zeros(len(nodes))})
        await link.send(REPORT, request.step, np.array(nodes), torch.ones(len(nodes), 0),
                        {"loss": np.zeros(len(nodes))})
        return


@pytest.mark.parametrize("late", [False, True])
def test_a_server_and_its_workers(links: list[RemoteLink], late: bool) -> None:
    """A model goes once to a process, with its nodes' ids; a late node is counted, its row when it comes; reports are
    free.
    """
    hub, first, second, _ = links
    sent = [2] if late else [2, 3]

    async def step() -> None:
        await hub.publish(MODEL, 1, torch.zeros(6), np.arange(4), reply=GRADIENT)
        gathered = hub.gather(GRADIENT, 1, 3 if late else None)
        _, _, there = await asyncio.gather(work(first, [0, 1]), work(second, sent), gathered)
        assert there.nodes.tolist() == [0, 1, *sent]

    asyncio.run(step())
    model = HEAD + 2 * ID + 6 * VALUE
    rows = [HEAD + count * (ID + COLUMN + 6 * VALUE) for count in (2, len(sent))]
    assert moved(hub) == (sum(rows), 2 * model, 2 + len(sent), int(late))
    assert moved(first) == (model, rows[0], 0, 0)
    assert moved(second) == (model, rows[1], 0, 0)
    if late:
        asyncio.run(second.send(GRADIENT, 1, np.array([3]), torch.ones(1, 6), {"loss": np.zeros(1)}))
        wait(second.mesh.posted[-1:])
        assert moved(hub) == moved(second)[1::-1] + (0, 0) == (HEAD + ID + COLUMN + 6 * VALUE, 0, 0, 0)


@pytest.mark.parametrize("gone", [False, True])
def test_peers_along_an_exchange(links: list[RemoteLink], gone: bool) -> None:
    """0 hears 1, 2 and 3, and 1 hears 3: four edges for one process, of which two rows come over the wire."""
    _, first, second, _ = links
    exchange = Exchange.of(np.array([0, 0, 0, 1]), np.array([1, 2, 3, 3]))
    sent = [2] if gone else [2, 3]

    async def step() -> None:
        first.expect(PARAMETERS, lambda step: np.array([1, 2, 3]))
        second.expect(PARAMETERS, lambda step: np.arange(0))
        await first.send(PARAMETERS, 1, first.nodes, torch.zeros(2, 6), to=exchange)
        await second.send(PARAMETERS, 1, np.array(sent), torch.zeros(len(sent), 6), to=exchange)
        wait(first.mesh.posted)
        await first.neighbours(PARAMETERS, 1, exchange, 0.01 if gone else None)

    asyncio.run(step())
    row = HEAD + len(sent) * (ID + 6 * VALUE)
    assert moved(first) == (row, 0, 2 if gone else 4, 2 if gone else 0)
    assert moved(second)[:2] == (0, row)


def test_a_reduce_counts_a_row_for_each_node(links: list[RemoteLink]) -> None:
    """Each process sends half of its rows' columns, and half of the mean."""
    _, first, second, _ = links

    async def step() -> None:
        rows = torch.arange(12.0).reshape(2, 6)
        means = await asyncio.gather(first.reduce(1, first.nodes, rows, torch.float32),
                                     second.reduce(1, second.nodes, rows + 2, torch.float32))
        assert all(torch.equal(mean, torch.arange(4.0, 10)) for mean in means)

    asyncio.run(step())
    half = HEAD + 2 * (ID + 3 * VALUE) + HEAD + ID + 3 * VALUE
    assert moved(first) == moved(second) == (half, half, 2, 0)


def test_the_hub_of_a_virtual_clock_counts_as_a_simulation_does(links: list[RemoteLink]) -> None:
    """A frame a node, whatever processes they share; what is late has been sent all the same."""
    _, first, second, hub = links

    async def step() -> None:
        first.mesh.links[0] = hub
        await hub.publish(MODEL, 1, torch.zeros(6), np.arange(4), reply=GRADIENT)
        await asyncio.gather(work(first), work(second), hub.gather(GRADIENT, 1, 3))

    asyncio.run(step())
    assert moved(hub) == (4 * (HEAD + ID + COLUMN + 6 * VALUE), 4 * (HEAD + ID + 6 * VALUE), 3, 1)
