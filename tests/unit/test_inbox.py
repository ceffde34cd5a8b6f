"""Where arriving rows land, driven by threads as the mesh drives it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch

from kuiper.errors import ProtocolError, QuorumLost
from kuiper.link import Channel
from kuiper.link.base import Gathered
from kuiper.link.inbox import Inbox
from kuiper.link.wire import Header

WIDTH = 64
CHANNEL = Channel("gradient", 2, width=WIDTH, columns=("loss",))
NODES = np.arange(6)


class Mesh:
    """Delivers frames from threads. A row of node i at step t is filled with 1000 t + i."""

    def __init__(self, channel: Channel = CHANNEL) -> None:
        self.alive = np.ones(len(NODES), bool)
        self.inbox = Inbox(channel, lambda asked: self.alive[asked])
        self.threads = ThreadPoolExecutor(12)

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, *_: object) -> None:
        self.inbox.shut()  # lets go of every waiting thread, or the next line would hang
        self.threads.shutdown()

    def send(self, step: int, *nodes: int, before: Callable[[], object] | None = None) -> Future[bool]:
        """True once the frame has landed, False when it was not wanted; `before` runs while it arrives."""

        def deliver() -> bool:
            ids, channel = np.array(nodes), self.inbox.channel
            header = Header(channel.number, 1, step, len(ids), len(ids), len(ids) * channel.row_bytes)
            views = self.inbox.place(header, ids)
            if views is None:
                return False
            if before is not None:
                before()
            content = torch.from_numpy(1000.0 * step + ids).float()[:, None].repeat(1, channel.width)
            data, written = content.numpy().tobytes(), 0
            assert sum(view.nbytes for view in views) == len(data)
            for view in views:
                view[:] = data[written : written + view.nbytes]
                written += view.nbytes
            self.inbox.arrived(header, ids, ids[:, None] / 10)
            return True

        return self.threads.submit(deliver)

    def gather(self, step: int, quorum: int | None = None, deadline: float | None = None,
               minimum: int = 1) -> tuple[Gathered, np.ndarray]:
        return asyncio.run(self.inbox.gather(step, quorum, deadline, minimum))


def check(gathered: Gathered, step: int, nodes: list[int]) -> None:
    assert gathered.nodes.tolist() == nodes
    expected = torch.tensor([1000.0 * step + node for node in nodes])[:, None].expand(-1, WIDTH)
    assert torch.equal(gathered.rows, expected)
    np.testing.assert_array_equal(gathered.columns["loss"], np.array(nodes) / 10)


def waits(future: Future[bool]) -> bool:
    time.sleep(0.05)
    return not future.done()


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh() as mesh:
        mesh.inbox.expect(lambda step: NODES)
        yield mesh


# -- what counts ---------------------------------------------------------------------------


def test_rows_come_in_node_order(mesh: Mesh) -> None:
    """Whatever the order of arrival, and whether or not the nodes of a frame are neighbours."""
    for frame in ((5,), (1, 2), (0, 3, 4)):
        assert mesh.send(1, *frame).result(5)
    gathered, missing = mesh.gather(1)
    check(gathered, 1, NODES.tolist())
    assert gathered.late == 0 and not len(missing)


def test_a_gather_wakes_when_the_last_row_lands(mesh: Mesh) -> None:
    hold = threading.Event()
    mesh.send(1, 0, 1, 2, 3, 4)
    last = mesh.send(1, 5, before=lambda: hold.wait(5))
    began = time.monotonic()
    threading.Timer(0.1, hold.set).start()
    gathered, _ = mesh.gather(1)
    assert time.monotonic() - began >= 0.09 and last.result(5)
    check(gathered, 1, NODES.tolist())


def test_repeated_unexpected_and_late_frames_get_no_memory(mesh: Mesh) -> None:
    mesh.inbox.expect(lambda step: NODES[::2])
    assert mesh.send(1, 0).result(5)
    assert not mesh.send(1, 0).result(5)  # repeated
    assert not mesh.send(1, 0, 2).result(5)  # in part
    assert not mesh.send(1, 1).result(5)  # not expected
    assert not mesh.send(1, 4, 5).result(5)  # in part; and beyond the last sender
    assert mesh.send(1, 2, 4).result(5)
    check(mesh.gather(1)[0], 1, [0, 2, 4])
    assert not mesh.send(1, 2).result(5)  # late


def test_a_quorum_takes_the_first_and_counts_the_late(mesh: Mesh) -> None:
    for node in (4, 1, 3):
        assert mesh.send(1, node).result(5)
    gathered, missing = mesh.gather(1, quorum=3, minimum=3)
    check(gathered, 1, [1, 3, 4])
    assert gathered.late == 3 and not len(missing)
    assert not mesh.send(1, 0).result(5)
    assert all(mesh.send(2, node).result(5) for node in NODES)
    check(mesh.gather(2)[0], 2, NODES.tolist())


def test_rows_of_this_process_are_copied_in(mesh: Mesh) -> None:
    mesh.inbox.expect(lambda step: np.array([1, 2, 5]))
    own = torch.tensor([1000.0, 1001.0, 1002.0])[:, None].repeat(1, WIDTH)
    mesh.inbox.put(1, np.arange(3), own, np.arange(3)[:, None] / 10)
    own.zero_()
    mesh.send(1, 5)
    check(mesh.gather(1)[0], 1, [1, 2, 5])


def test_columns_alone_need_no_rows() -> None:
    with Mesh(Channel("report", 3, width=0, columns=("loss",))) as mesh:
        mesh.inbox.expect(lambda step: NODES)
        assert mesh.send(1, 0, 2, 5).result(5) and mesh.send(1, 1, 3, 4).result(5)
        gathered, _ = mesh.gather(1)
    assert gathered.rows.shape == (6, 0)
    np.testing.assert_array_equal(gathered.columns["loss"], NODES / 10)


# -- who is missing ------------------------------------------------------------------------


def test_the_dead_are_not_waited_for(mesh: Mesh) -> None:
    mesh.send(1, 0, 1, 2, 3)

    def die() -> None:
        mesh.alive[4:] = False
        mesh.inbox.wake()

    threading.Timer(0.1, die).start()
    check(mesh.gather(1, minimum=4)[0], 1, [0, 1, 2, 3])
    mesh.send(2, 0, 1).result(5)  # what a node sent before it died counts
    mesh.send(2, 2, 3).result(5)
    mesh.alive[0] = False
    check(mesh.gather(2, quorum=5, minimum=4)[0], 2, [0, 1, 2, 3])


@pytest.mark.parametrize("quorum", [None, 6, 5])
def test_too_few_alive_lose_the_quorum_at_once(mesh: Mesh, quorum: int | None) -> None:
    mesh.send(1, 0, 1).result(5)

    def die() -> None:
        mesh.alive[4:] = False
        mesh.inbox.wake()

    threading.Timer(0.1, die).start()
    with pytest.raises(QuorumLost, match="gradient, step 1: 4 of 6 senders are alive, 5 are needed"):
        mesh.gather(1, quorum, minimum=5)


def test_fewer_senders_than_the_minimum_lose_the_quorum(mesh: Mesh) -> None:
    """More silent nodes than were declared."""
    mesh.inbox.ask(1, NODES[:3])
    with pytest.raises(QuorumLost, match="3 of 3 senders are alive, 4 are needed"):
        mesh.gather(1, minimum=4)


def test_a_deadline_makes_do_with_what_came(mesh: Mesh) -> None:
    mesh.send(1, 1, 3).result(5)
    began = time.monotonic()
    gathered, missing = mesh.gather(1, deadline=0.1, minimum=2)
    assert 0.09 <= time.monotonic() - began < 3
    check(gathered, 1, [1, 3])
    assert missing.tolist() == [0, 2, 4, 5] and gathered.late == 4
    mesh.send(2, 1, 3).result(5)
    with pytest.raises(QuorumLost, match=r"2 rows after the deadline of 0.1 s, 3 are needed.*\[0, 2, 4, 5\]"):
        mesh.gather(2, deadline=0.1, minimum=3)


# -- who is early --------------------------------------------------------------------------


def test_a_peer_that_is_ahead_is_held_back(mesh: Mesh) -> None:
    assert mesh.send(2, *NODES).result(5)  # one step ahead is taken
    far_ahead = mesh.send(3, *NODES)
    assert waits(far_ahead)
    mesh.send(1, *NODES)
    check(mesh.gather(1)[0], 1, NODES.tolist())
    assert far_ahead.result(5)
    check(mesh.gather(2)[0], 2, NODES.tolist())
    check(mesh.gather(3)[0], 3, NODES.tolist())
    skipping = mesh.send(20, *NODES)  # a channel that is gathered now and then
    assert waits(skipping)
    check(mesh.gather(20)[0], 20, NODES.tolist())


def test_a_hub_takes_only_what_it_asked_for(mesh: Mesh) -> None:
    mesh.inbox.expect(None)
    honest, liar = mesh.send(1, 0, 1), mesh.send(2, 5)
    assert waits(honest) and waits(liar)
    mesh.inbox.ask(1, NODES[:2])
    with pytest.raises(ProtocolError, match="a row for step 2, asked for step 1"):
        liar.result(5)  # it must not have made a slot for the wrong senders
    assert honest.result(5)
    check(mesh.gather(1)[0], 1, [0, 1])
    with pytest.raises(ProtocolError, match="a row for step 7"):
        mesh.send(7, 1).result(5)
    mesh.inbox.ask(2, NODES[4:])
    assert mesh.send(2, 4, 5).result(5)
    check(mesh.gather(2)[0], 2, [4, 5])


def test_shutting_lets_go_of_waiting_threads(mesh: Mesh) -> None:
    waiting = mesh.send(9, 0)
    assert waits(waiting)
    mesh.inbox.shut()
    assert not waiting.result(5)


# -- memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [3, 4])
def test_a_row_that_is_arriving_when_its_step_closes_harms_nobody(mesh: Mesh, between: int) -> None:
    """Its memory is neither handed to the rule nor used again while it is being written to."""
    placed, hold = threading.Event(), threading.Event()
    slow = mesh.send(1, 5, before=lambda: placed.set() or hold.wait(5))
    mesh.send(1, 0, 1, 2, 3, 4).result(5)
    assert placed.wait(5)
    first, _ = mesh.gather(1, quorum=5)
    rounds = []
    for step in range(2, 2 + between):
        mesh.send(step, 0, 1, 2, 3, 4).result(5)
        rounds.append((step, mesh.gather(step, quorum=5)[0]))
    full = (2 + between, 3 + between)
    for step in full:
        mesh.send(step, *NODES).result(5)
    hold.set()
    assert slow.result(5)
    check(first, 1, [0, 1, 2, 3, 4])
    for step, gathered in rounds:
        check(gathered, step, [0, 1, 2, 3, 4])
    for step in full:
        check(mesh.gather(step)[0], step, NODES.tolist())


@pytest.mark.parametrize("varying", [False, True], ids=["same-senders", "varying-senders"])
def test_memory_is_used_again_but_never_under_the_rule(mesh: Mesh, varying: bool) -> None:
    """Senders run ahead as far as they can; rows stay as they are until the next gather returns."""
    steps = 150

    def senders(step: int) -> np.ndarray:
        return NODES[: 2 + step // 10 % 5] if varying else NODES

    mesh.inbox.expect(senders)

    def stream(*block: int) -> None:
        for step in range(1, steps + 1):
            if set(block) <= set(senders(step)):
                assert mesh.send(step, *block).result(20)

    async def collect() -> set[int]:
        places = set()
        for step in range(1, steps + 1):
            gathered, _ = await mesh.inbox.gather(step, None, None, 1)
            check(gathered, step, senders(step).tolist())
            if step % 3 == 0:
                await asyncio.sleep(0.002)  # others write to the steps ahead meanwhile
                check(gathered, step, senders(step).tolist())
            places.add(gathered.rows.data_ptr())
        return places

    streams = [threading.Thread(target=stream, args=block) for block in ((0, 1), (2,), (3,), (4,), (5,))]
    for thread in streams:
        thread.start()
    places = asyncio.run(asyncio.wait_for(collect(), 30))
    for thread in streams:
        thread.join(5)
    if not varying:
        assert len(places) <= 5  # two ahead, one in use, two spare
