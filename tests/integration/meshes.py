"""Meshes of one run in one process, and peers that send what they like."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kuiper.errors import ProtocolError
from kuiper.link import credentials, wire
from kuiper.link.base import Channel
from kuiper.link.handshake import RECEIVES, SENDS, Door, Hello
from kuiper.link.mesh import Mesh
from kuiper.link.wire import Header

RUN = "20260131-142501-7f3a"
NAMES = ["ps", "worker_1", "worker_2", "worker_3"]
BLOCKS = [[6], [0, 1], [2, 3], [4, 5]]
WIDTH = 300_001
GRADIENT = Channel("gradient", 1, WIDTH, columns=("loss",))
MODEL = Channel("model", 2, WIDTH, dtype=torch.bfloat16, shared=True)
SMALL = Channel("small", 3, 8)
CHANNELS = [GRADIENT, MODEL, SMALL]


class Recorder:
    """An inbox that keeps everything, and can refuse frames."""

    def __init__(self) -> None:
        self.frames: list[tuple] = []
        self.lost: list[tuple[int, str]] = []
        self.came: list[tuple[int, int]] = []
        self.refused: list[int] = []
        self.late: Callable[[Header], bool] = lambda header: False
        self.placed: dict[int, torch.Tensor] = {}
        self.bytes_placed = 0
        self.changed = threading.Condition()

    def place(self, sender, header, nodes, columns):
        if header.step == 404:
            raise ProtocolError("step 404 was not asked for")
        if self.late(header):
            return None
        channel = next(channel for channel in CHANNELS if channel.number == header.channel)
        rows = self.placed[sender] = torch.empty(header.rows, channel.width, dtype=channel.dtype)
        self.bytes_placed += rows.nbytes
        return [wire.byte_view(row) for row in rows]

    def arrived(self, sender, header, nodes, columns):
        with self.changed:
            self.frames.append((sender, header, nodes.tolist(), columns, self.placed[sender]))
            self.changed.notify_all()

    def joined(self, rank, attempt):
        self.came.append((rank, attempt))

    def gone(self, rank, reason):
        with self.changed:
            self.lost.append((rank, reason))
            self.changed.notify_all()

    def barred(self, rank, reason):
        with self.changed:
            self.refused.append(rank)
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool], seconds: float = 20) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), (self.frames, self.lost)


def write(folder: Path, run: str, lifetime: float) -> Path:
    for name, files in credentials.issue(run, NAMES, lifetime).items():
        (folder / name).mkdir(parents=True)
        for file, content in files.items():
            (folder / name / file).write_bytes(content)
    return folder


def start(mesh: Callable[..., Mesh], ranks: range, folder: Path | None = None) -> list[Mesh]:
    """Rank 0 and others that have joined it."""
    meshes = [mesh(0, folder), *(mesh(rank, folder) for rank in ranks)]
    endpoint = meshes[0].listen()
    for one in meshes[1:]:
        one.join(*endpoint, timeout=20)
    await_alive(meshes[0], set(ranks))
    meshes[0].endpoint = endpoint
    return meshes


def await_alive(one: Mesh, ranks: set[int], seconds: float = 60) -> None:
    """A process that joins has its answer a moment before the other side has its peer."""
    deadline = time.monotonic() + seconds
    while one.alive != ranks:
        assert time.monotonic() < deadline, one.alive
        time.sleep(0.002)


class Raw:
    """A process of the run that holds its certificate and sends what it likes."""

    def __init__(self, server: Mesh, rank: int, folder: Path | None = None, attempt: int = 0) -> None:
        door = Door(RUN, NAMES, folder / NAMES[rank] if folder else None)
        self.sends, self.receives = (
            door.dial(0, *server.endpoint, Hello(rank, attempt, door.run, 0, direction), 20)
            for direction in (SENDS, RECEIVES)
        )

    def close(self) -> None:
        self.sends.close()
        self.receives.close()


def small_frame(ids: tuple[int, ...] = (2, 3), **change: int) -> bytes:
    """A frame of rank 2 on the channel `small`, with its header changed."""
    rows = torch.ones(len(ids), 8)
    prefix = wire.encode(SMALL, 1, np.array(ids, np.uint32), rows, None)
    header = wire.unpack(prefix[: wire.HEADER_BYTES])._replace(**change)
    return header.pack() + prefix[wire.HEADER_BYTES :] + rows.numpy().tobytes()


def send_small(sender: Mesh, receiver: Mesh, step: int) -> None:
    """A good frame gets through."""
    rows = torch.full((2, 8), float(step))
    sender.post(receiver.rank, SMALL, step, np.array(BLOCKS[sender.rank], np.uint32), rows)
    receiver.inbox.wait(lambda: any(f[0] == sender.rank and f[1].step == step for f in receiver.inbox.frames))
    assert torch.equal(receiver.inbox.frames[-1][4], rows)
