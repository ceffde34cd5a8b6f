"""Frames made wrong at random: each is a true one or ends its sender, and no honest row changes."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from kuiper.attacks.adversary import Adversary
from kuiper.link import wire
from kuiper.link.base import Channel
from kuiper.link.mesh import Mesh
from kuiper.link.remote import RemoteLink
from kuiper.link.stream import Peer, Receiver
from tests.integration.meshes import Raw, send_small, small_frame, start

WIDTH = 64
MODEL = Channel("model", 1, WIDTH, shared=True)
GRADIENT = Channel("gradient", 2, WIDTH, columns=("loss",))
NAMES = ["ps", "worker_1", "worker_2"]
BLOCKS = [np.array([8]), np.arange(0, 4), np.arange(4, 8)]
HONEST, LIAR = 1, 2
ENDS = ("broke the protocol", "was cut off inside", "closed the connection without a goodbye", "left")


def test_mutated_streams_over_real_connections(mesh) -> None:
    server, first = start(mesh, range(1, 2))
    generator = random.Random(2)
    kept = 0
    for attempt in range(300):
        data = bytearray(small_frame() + small_frame((3,), step=2))
        for _ in range(generator.randint(1, 4)):
            if generator.random() < 0.8:
                data[generator.randrange(48)] = generator.randrange(256)
            else:
                del data[generator.randrange(len(data)) :][:40]
        raw = Raw(server, 2, attempt=attempt)
        raw.sends.sendall(data)
        raw.close()
        server.inbox.wait(lambda ended=attempt: len(server.inbox.lost) > ended)
        if attempt % 20 == 0:
            send_small(first, server, attempt + 1)
    assert server.alive == {1} and all(rank == 2 for rank, _ in server.inbox.lost)
    for sender, header, nodes, _, rows in server.inbox.frames:
        kept += sender == 2
        assert sender == 1 or (set(nodes) <= {2, 3} and rows.shape == (len(nodes), 8) and header.step >= 0)
    print(f"{kept} frames of 300 mutated streams were true")


class Liar:
    """Makes frames for a step: true ones, mutated ones, and noise."""

    FIELDS = {"channel": 2, "flags": 2, "step": 8, "nodes": 4, "rows": 4, "length": 8}

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def frame(self, step: int) -> bytes:
        kind = self.random.random()
        if kind < 0.15:
            return self.random.randbytes(self.random.randint(1, 200))
        nodes = np.sort(self.random.sample(range(4, 8), self.random.randint(1, 4)))
        prefix = wire.encode(GRADIENT, step, nodes, torch.empty(len(nodes), WIDTH), np.zeros((len(nodes), 1)))
        data = bytearray(prefix + self.random.randbytes(4 * WIDTH * len(nodes)))
        if kind < 0.45:  # one field of the header, often at an edge
            name = self.random.choice(list(self.FIELDS))
            most = 2 ** (8 * self.FIELDS[name] - (name == "step")) - 1
            edges = (0, 1, 2, 3, step - 1, step + 1, most // 2 + 1, most, self.random.randint(0, most))
            value = self.random.choice(edges)
            header = wire.unpack(data[: wire.HEADER_BYTES])._replace(**{name: value})
            data[: wire.HEADER_BYTES] = header.pack()
        elif kind < 0.75:  # a few bytes, mostly in front of the rows
            for _ in range(self.random.randint(1, 4)):
                place = self.random.randrange(self.random.choice((32, 48, len(data))))
                data[place] ^= 1 << self.random.randrange(8)
        elif kind < 0.9:  # a part is missing, or there twice
            place, size = self.random.randrange(len(data)), self.random.randint(1, 64)
            data[place : place + size] = data[place : place + size] * self.random.choice((0, 2))
        return bytes(data)


def judged(mesh: Mesh, sender: Peer, data: bytes) -> str:
    """What the real receiver makes of a stream of frames: why it ended. No thread, so that many can be."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        reason = Receiver(sender, theirs).read()
    mesh.ended(sender, reason)
    return reason


async def fuzz(frames: int, watch: Callable[[], None] = lambda: None) -> Counter:
    """Rounds in which one process lies and one is honest: how often the liar's streams ended in which way.

    Args:
        watch: called after each round.
    """
    link = RemoteLink(0, BLOCKS, [MODEL, GRADIENT], Adversary(BLOCKS[0][:0], "none"), lambda *a, **k: None,
                      torch.device("cpu"))
    mesh = link.mesh = Mesh(0, NAMES, [MODEL, GRADIENT], BLOCKS, link, "run", None)
    (true, received), dishonest = socket.socketpair(), Peer(mesh, LIAR, *socket.socketpair())
    honest = Peer(mesh, HONEST, outgoing=received, incoming=received)
    honest.start()
    liar, ends = Liar(frames), Counter()
    truth = torch.arange(4.0 * WIDTH).view(4, WIDTH)
    step = sent = 0
    while sent < frames:
        step += 1
        rows, losses = truth + step, np.full((4, 1), step)
        await link.publish(MODEL, step, truth[0], np.arange(8), reply=GRADIENT)
        for turn in range(100):
            if turn == 50:
                prefix = wire.encode(GRADIENT, step, np.arange(4), rows, losses)
                true.sendall(prefix + rows.numpy().tobytes())
            count = liar.random.choice((1, 1, 1, 2))
            reason = judged(mesh, dishonest, b"".join(liar.frame(step) for _ in range(count)))
            ends[next((end for end in ENDS if reason.startswith(end)), reason)] += 1
            sent += count
        got = await link.gather(GRADIENT, step, minimum=4)
        mine = torch.from_numpy(got.nodes < 4)
        assert torch.equal(got.rows[mine], rows) and np.array_equal(got.columns["loss"][mine], losses[:, 0])
        ends["rows of the liar"] += len(got.nodes) - 4
        watch()
    true.close()
    assert honest.join(time.monotonic() + 20)
    return ends + Counter({"late": mesh.drained[LIAR]})


def judge(frames: int, watch: Callable[[], None] = lambda: None) -> None:
    """Every stream ends in a way that is foreseen, and each of them occurs."""
    ends = asyncio.run(fuzz(frames, watch))
    print(f"{frames} frames: {dict(ends)}")
    assert set(ends) <= {*ENDS, "rows of the liar", "late"}
    assert min(ends.values()) > frames / 1000


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("frames", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_no_frame_changes_an_honest_bit(frames: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    judge(frames)


def test_no_frame_takes_more_memory_than_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    seen = []

    def watch() -> None:
        seen.append(tracemalloc.get_traced_memory())
        tracemalloc.reset_peak()

    tracemalloc.start()
    try:
        judge(4_000, watch)
    finally:
        tracemalloc.stop()
    more, growth = max(peak - now for now, peak in seen[1:]), seen[-1][0] - seen[1][0]
    print(f"at most {more} bytes at once, and {growth} kept after {len(seen)} rounds")
    assert more < 1 << 17  # 64 kB of them is where a late frame is thrown away
    assert growth < 1 << 18  # of 3 MB sent
