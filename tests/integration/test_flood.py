"""Peers and strangers that send, connect or stall as much as they can: bounded, and told in few lines."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kuiper.errors import HostError
from kuiper.link import handshake, sparing, stream
from kuiper.link.handshake import SENDS, Door, Hello
from kuiper.link.wire import Header
from tests.integration.meshes import (
    BLOCKS,
    MODEL,
    NAMES,
    RUN,
    SMALL,
    Raw,
    await_alive,
    send_small,
    small_frame,
    start,
)

READY = Header(0, stream.READY, 0, 0, 0, 0).pack()
FLOODS = {
    "replayed": (small_frame(), "node 2 again in step 1"),
    "one node at a time": (small_frame((2,)) + small_frame((3,)), "node 2 again in step 1"),
    "going back": (small_frame(step=9) + small_frame(step=8), "a frame of step 8 after one of step 9"),
    "ready": (READY, "an unexpected control frame"),
}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines that the mesh has logged so far."""
    caplog.set_level(logging.INFO, logger="kuiper.link")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_ends_with_its_first(flood: str, mesh, told) -> None:
    server, first = start(mesh, range(1, 2))
    server.inbox.late = lambda header: header.step < 100  # all of the liar's, each of them well made
    data, reason = FLOODS[flood]
    raw = Raw(server, 2)
    try:
        while True:
            raw.sends.sendall(data * 1000)
    except OSError:
        pass  # it was cut off
    server.inbox.wait(lambda: bool(server.inbox.lost))
    assert reason in server.inbox.lost[0][1] and server.drained[2] <= 2
    assert [line for line in told() if "worker_2" in line] == [f"worker_2 {server.inbox.lost[0][1]}"]
    send_small(first, server, 100)
    raw.close()


def test_who_was_cut_cannot_come_back_for_ever(mesh, tls: Path, told) -> None:
    server = mesh(0, tls, retry=2)
    server.endpoint = server.listen()
    first = mesh(1, tls)
    first.join(*server.endpoint, timeout=20)
    for attempt in range(3):
        raw = Raw(server, 2, tls, attempt)
        raw.sends.sendall(b"x" * 64)
        server.inbox.wait(lambda ended=attempt: len(server.inbox.lost) > ended)
        raw.close()
    for attempt in range(40):
        with pytest.raises(HostError, match="joined there already|at its attempt"):
            Raw(server, 2, tls, attempt)
    refusals = [line for line in told() if line.startswith("refused worker_2")]
    assert server.refused == 40 and sparing.BURST <= len(refusals) < 30
    send_small(first, server, 1)
    server.close()
    assert f"{40 - len(refusals)} more like the last one" in told()


def knock(endpoint: tuple[str, int], how: Callable[[socket.socket], None], over: threading.Event) -> None:
    """Open connections as fast as possible, and keep the last hundred."""
    kept: list[socket.socket] = []
    while not over.is_set():
        try:
            kept.append(socket.create_connection(endpoint, timeout=1))
            how(kept[-1])
        except OSError:
            continue
        if len(kept) > 100:
            kept.pop(0).close()
    for connection in kept:
        connection.close()


KNOCKS: dict[str, Callable[[socket.socket], None]] = {
    "silent": lambda connection: None,
    "garbage": lambda connection: connection.sendall(b"x" * 300),
    "half a handshake": lambda connection: connection.sendall(bytes.fromhex("16030100050100")),
}


@pytest.mark.parametrize("kind", KNOCKS)
def test_a_flood_of_connections_keeps_nobody_out(kind: str, mesh, tls: Path, told) -> None:
    server = mesh(0, tls)
    server.endpoint = server.listen()
    over = threading.Event()
    knockers = [threading.Thread(target=knock, args=(server.endpoint, KNOCKS[kind], over)) for _ in range(2)]
    for knocker in knockers:
        knocker.start()
    try:
        while server.refused < 200:
            time.sleep(0.01)
        members = [mesh(rank, tls) for rank in (1, 2)]
        for one in members:
            one.join(*server.endpoint, timeout=60)
        await_alive(server, {1, 2})
        greeting = sum(thread.name == "kuiper-greet" for thread in threading.enumerate())
        send_small(members[0], server, 1)
    finally:
        over.set()
        for knocker in knockers:
            knocker.join()
    assert greeting < 100
    refusals = [line for line in told() if line.startswith("refused a connection")]
    assert sparing.BURST <= len(refusals) < sparing.BURST + 10 and server.inbox.lost == []


def test_a_handshake_has_its_time(mesh, tls: Path, told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent, half open and dribbling connections end after HANDSHAKE_SECONDS, and hold up nobody."""
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 1.0)
    server = mesh(0, tls)
    endpoint = server.listen()
    door = Door(RUN, NAMES, tls / "worker_2")
    half_open = door.dial(0, *endpoint, Hello(2, 0, door.run, 0, SENDS), 20)  # its second half never comes
    others = [socket.create_connection(endpoint) for _ in range(20)]
    first = mesh(1, tls)
    first.join(*endpoint, timeout=20)
    send_small(first, server, 1)
    ended: set[socket.socket] = set()
    while len(ended) < len(others):
        for place, connection in enumerate(others):
            try:
                if place % 2:  # a byte at a time
                    connection.send(b"\x16")
                connection.settimeout(0.01)
                if connection not in ended and connection.recv(100) == b"":
                    ended.add(connection)
            except TimeoutError:
                pass
            except OSError:
                ended.add(connection)
    half_open.settimeout(20)
    assert half_open.recv(1) == b""
    while server.refused < len(others) + 1:
        time.sleep(0.01)
    assert server.alive == {1}
    assert "refused worker_2, attempt 0: its second connection did not come" in told()
    for connection in (*others, half_open):
        connection.close()


def test_a_frame_has_its_time(mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that stalls or dribbles inside a frame is cut; between frames it may be silent for ever."""
    monkeypatch.setattr(stream, "FRAME_SECONDS", 0.5)
    monkeypatch.setattr("kuiper.link.mesh._WATCH_SECONDS", 0.05)
    server, first = start(mesh, range(1, 2))
    for attempt, dribbles in enumerate((False, True)):
        raw = Raw(server, 2, attempt=attempt)
        data = small_frame()
        raw.sends.sendall(data[:40])
        for place in range(40, len(data) - 1):
            if dribbles and len(server.inbox.lost) == attempt:
                raw.sends.send(data[place : place + 1])
                time.sleep(0.02)
        server.inbox.wait(lambda ended=attempt: len(server.inbox.lost) > ended)
        assert server.inbox.lost[attempt] == (2, "did not complete a frame in time")
        raw.close()
    send_small(first, server, 1)
    assert server.alive == {1}


@pytest.mark.parametrize("keep", [1, 3])
def test_who_does_not_read_costs_no_memory(keep: int, mesh) -> None:
    """200 models of 600 kB for one who reads nothing: one is under way, `keep` wait, the others are gone."""
    server, first = start(mesh, range(1, 2))
    raw = Raw(server, 2)
    await_alive(server, {1, 2})
    posted = []
    for step in range(200):
        model = np.zeros(MODEL.width, np.int16)
        posted.append(weakref.ref(model))
        row = torch.from_numpy(model).view(torch.bfloat16)
        server.post(2, MODEL, step, np.array(BLOCKS[2], np.uint32), row, keep=keep)
        server.post(1, SMALL, step, np.array([6], np.uint32), torch.zeros(1, 8))
        del model, row
    first.inbox.wait(lambda: len(first.inbox.frames) == 200)
    gc.collect()
    kept = [step for step, model in enumerate(posted) if model() is not None]
    assert len(kept) <= keep + 1 and kept[-keep:] == list(range(200 - keep, 200))
    raw.close()
    server.inbox.wait(lambda: bool(server.inbox.lost))
    send_small(first, server, 1)
