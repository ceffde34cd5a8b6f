"""The mesh over real sockets: what arrives is what was sent, and a bad peer costs only itself."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from kuiper.errors import ConflictError, HostError
from kuiper.link import credentials, handshake, wire
from kuiper.link.handshake import Door, Hello
from kuiper.link.mesh import Mesh
from kuiper.link.wire import Header
from tests.integration.meshes import (
    BLOCKS,
    GRADIENT,
    MODEL,
    NAMES,
    RUN,
    SMALL,
    WIDTH,
    Raw,
    await_alive,
    send_small,
    small_frame,
    start,
    write,
)


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "none"])
def test_what_arrives_is_what_was_sent(mesh, tls: Path, secure: bool) -> None:
    server, first, second = start(mesh, range(1, 3), tls if secure else None)
    assert server.wait_joined(0) == {1, 2}
    gradients = torch.randint(-(2**31), 2**31, (2, WIDTH), dtype=torch.int32).view(torch.float32)  # NaNs too
    columns = np.array([[np.pi], [np.nan]])
    model = torch.randn(WIDTH).to(torch.bfloat16)
    first.post(0, GRADIENT, 5, np.array([0, 1], np.uint32), gradients, columns)
    second.post(0, SMALL, 6, np.array([3], np.uint32), torch.arange(8.0)[None])
    server.post(1, MODEL, 5, np.array([0, 1], np.uint32), model)
    assert server.flush(20) and first.flush(20)
    server.inbox.wait(lambda: len(server.inbox.frames) == 2)
    first.inbox.wait(lambda: len(first.inbox.frames) == 1)
    by_sender = {frame[0]: frame for frame in server.inbox.frames}
    assert by_sender[1][2] == [0, 1] and by_sender[1][3].tobytes() == columns.tobytes()
    assert torch.equal(by_sender[1][4].view(torch.int32), gradients.view(torch.int32))
    assert by_sender[2][2] == [3] and by_sender[2][4].tolist() == [list(range(8))]
    assert torch.equal(first.inbox.frames[0][4][0], model)
    assert first.inbox.frames[0][1].step == 5 and first.inbox.frames[0][2] == [0, 1]
    for one in (server, first, second):
        one.close()
    assert server.bytes_in[1] == first.bytes_out[0] == wire.frame_bytes(GRADIENT, 2, 2)


def test_a_process_that_fails_says_so(mesh, tls: Path) -> None:
    server, worker, other = start(mesh, range(1, 3), tls)
    worker.close(failed=True)
    server.inbox.wait(lambda: server.inbox.lost == [(1, "ended with an error")])


def test_nobody_is_waited_for_who_has_ended(mesh, tls: Path) -> None:
    server, worker = mesh(0, tls), mesh(1, tls)
    endpoint = server.listen()
    ends: list[int] = []

    def ended(rank: int) -> str:
        if not ends:
            threading.Thread(target=worker.join, args=(*endpoint, 10)).start()
        ends.append(rank)
        return "signal 9" if rank != 1 else ""

    assert server.wait_joined(3600, ended) == {1} and 1 in ends


def test_close_delivers_what_is_queued_and_says_left(mesh, tls: Path) -> None:
    server, first, second = start(mesh, range(1, 3), tls)
    rows = torch.ones(2, WIDTH)
    for step in range(5):
        first.post(0, GRADIENT, step, np.array([0, 1], np.uint32), rows, np.zeros((2, 1)))
    first.close()
    first.close()
    server.inbox.wait(lambda: server.inbox.lost == [(1, "left")])
    assert [frame[1].step for frame in server.inbox.frames] == list(range(5))
    assert server.alive == {2} and first.alive == set() and first.inbox.lost == []
    server.post(1, SMALL, 9, np.array([0], np.uint32), torch.zeros(1, 8))  # nobody is there, nothing happens
    send_small(second, server, 10)


def test_late_frames_are_drained_and_counted(mesh) -> None:
    server, first = start(mesh, range(1, 2))
    server.inbox.late = lambda header: header.step < 3
    for step in (1, 2, 3):
        first.post(0, GRADIENT, step, np.array([0, 1], np.uint32), torch.ones(2, WIDTH), np.zeros((2, 1)))
    server.inbox.wait(lambda: len(server.inbox.frames) == 1)
    assert server.inbox.frames[0][1].step == 3 and server.drained[1] == 2


def test_only_certificates_of_the_run_connect(mesh, tls: Path, tmp_path: Path) -> None:
    server = mesh(0, tls)
    endpoint = server.listen()
    stranger = write(tmp_path / "stranger", RUN, 3600)  # same names, same run id, another authority
    expired = write(tmp_path / "expired", RUN, -1)
    for folder in (stranger, expired, None):
        with pytest.raises(HostError):
            mesh(2, folder).join(*endpoint, timeout=1)
    door = Door(RUN, NAMES, tls / "worker_1")
    with pytest.raises(HostError):  # a true certificate, but it is worker_1's
        door.dial(0, *endpoint, Hello(2, 0, door.run), 1)
    with pytest.raises(HostError, match="another run"):
        door.dial(0, *endpoint, Hello(1, 0, bytes(32)), 1)
    with pytest.raises(HostError, match="may not join"):  # nobody may join as rank 0
        Door(RUN, NAMES, tls / "ps").dial(0, *endpoint, Hello(0, 0, door.run), 1)
    first = mesh(1, tls)
    first.join(*endpoint, timeout=20)
    assert server.wait_joined(0.3) == {1} and server.refused >= 6
    send_small(first, server, 1)
    assert server.inbox.lost == []


def test_one_in_a_queue_is_waited_for_as_long_as_its_port_is_kept(
        mesh, tls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as kept:  # as its agent does
        host, port = kept.getsockname()
        with pytest.raises(HostError, match="cannot be reached"):
            mesh(1, tls).join(host, port, 0.3)
        with ThreadPoolExecutor(1) as pool:
            joining = pool.submit(mesh(2, tls).join, host, port, 0.3, queued=True)
            time.sleep(1)  # longer than the handshake and the timeout
            assert not joining.done()
            monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 5.0)
            server = mesh(0, tls)
            server.accept(kept.dup())
            joining.result(20)
        assert server.wait_joined(0.3) == {2}


def test_an_expired_certificate_is_named(mesh, tls: Path, tmp_path: Path) -> None:
    server = mesh(0, tls)
    expired = write(tmp_path / "expired", RUN, -1)
    with pytest.raises(HostError, match="certificate"):
        mesh(1, expired).join(*server.listen(), timeout=5)


def test_credentials_that_do_not_fit_are_an_error(tls: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot be used"):
        credentials.server_context(tmp_path)
    for file in ("ca.pem", "cert.pem"):
        (tmp_path / file).write_bytes((tls / "ps" / file).read_bytes())
    (tmp_path / "key.pem").write_bytes((tls / "worker_1" / "key.pem").read_bytes())
    with pytest.raises(HostError, match="cannot be used"):
        credentials.client_context(tmp_path)


HOSTILE = {
    "another node's id": (small_frame((1, 3)), "broke the protocol: channel small: node 1 is not"),
    "a node nobody hosts": (small_frame((3, 77)), "broke the protocol: channel small: node 77 is not"),
    "garbage": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "broke the protocol: a frame begins with"),
    "2^63 bytes": (small_frame(length=2**63), f"broke the protocol: channel small: {2**63} bytes announced"),
    "too short": (small_frame(length=71), "broke the protocol: channel small: 71 bytes announced"),
    "too many rows": (small_frame(rows=3), "broke the protocol: channel small: 3 rows for 2 nodes"),
    "too many nodes": (small_frame(nodes=2**32 - 1), "broke the protocol: channel small: names 4294967295"),
    "wrong dtype": (small_frame(flags=2), "broke the protocol: channel small: dtype code 2"),
    "wrong step": (small_frame(step=-5), "broke the protocol: channel small: step -5"),
    "a step nobody asked for": (small_frame(step=404), "broke the protocol: step 404 was not asked for"),
    "undeclared channel": (small_frame(channel=99), "broke the protocol: channel 99 is not declared"),
    "a directory": (Header(0, 2, 0, 0, 0, 0).pack(), "broke the protocol: an unexpected control frame"),
    "a huge goodbye": (Header(0, 1, 0, 0, 0, 2**40).pack(), "broke the protocol: an unexpected control"),
    "half a header": (small_frame()[:9], "was cut off inside a header"),
    "half a row": (small_frame()[:-9], "was cut off inside a frame of channel small"),
    "nothing": (b"", "closed the connection without a goodbye"),
}


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "none"])
def test_a_lying_peer_costs_only_itself(mesh, tls: Path, secure: bool) -> None:
    folder = tls if secure else None
    server, first = start(mesh, range(1, 2), folder)
    send_small(first, server, 1)
    tracemalloc.start()
    try:
        for attempt, (what, (data, reason)) in enumerate(HOSTILE.items()):
            server.inbox.bytes_placed = 0
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            raw = Raw(server, 2, folder, attempt)
            raw.sends.sendall(data)
            if "cut off" in reason or not data:
                raw.sends.close()
            server.inbox.wait(lambda: len(server.inbox.lost) > attempt)
            rank, told = server.inbox.lost[attempt]
            assert rank == 2 and told.startswith(reason), (what, told)
            assert server.inbox.bytes_placed == (64 if what == "half a row" else 0), what
            assert tracemalloc.get_traced_memory()[1] - before < 1_000_000, what
            assert server.alive == {1}
            send_small(first, server, attempt + 2)
            raw.close()
    finally:
        tracemalloc.stop()
    assert len(server.inbox.lost) == len(HOSTILE)


def test_a_slow_peer_is_sent_the_newest_model(mesh) -> None:
    server, fast = start(mesh, range(1, 2))
    slow = Raw(server, 2)
    await_alive(server, {1, 2})
    wide = torch.zeros(WIDTH).to(torch.bfloat16)
    for step in range(200):  # 600 kB each; a few fit into the kernel's buffers
        for rank in (1, 2):
            server.post(rank, MODEL, step, np.array(BLOCKS[rank], np.uint32), wide, keep=1)
        if step % 20 == 0:
            time.sleep(0.02)
    fast.inbox.wait(lambda: fast.inbox.frames and fast.inbox.frames[-1][1].step == 199)
    assert not server.flush(0.05)
    steps = []
    while not steps or steps[-1] < 199:
        header = wire.unpack(exactly(slow.receives, wire.HEADER_BYTES))
        exactly(slow.receives, header.length)
        steps.append(header.step)
    assert steps == sorted(steps) and len(steps) < 50
    assert server.flush(20)
    slow.close()


def exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more
        data += more
    return data


def test_a_stopped_reader_does_not_hold_up_close(mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kuiper.link.mesh._CLOSE_SECONDS", 0.3)
    server, _ = start(mesh, range(1, 2))
    slow = Raw(server, 2)
    await_alive(server, {1, 2})
    for step in range(40):
        server.post(2, MODEL, step, np.array([2], np.uint32), torch.zeros(WIDTH, dtype=torch.bfloat16))
    begun = time.monotonic()
    server.close()
    assert time.monotonic() - begun < 3
    slow.close()


CHILD = """
import sys, time
sys.path[:0] = sys.argv[4].split(":")
from pathlib import Path
from meshes import BLOCKS, CHANNELS, NAMES, RUN, Recorder
from kuiper.link.mesh import Mesh
mesh = Mesh(1, NAMES, CHANNELS, BLOCKS, Recorder(), RUN, Path(sys.argv[3]) / "worker_1")
mesh.join(sys.argv[1], int(sys.argv[2]), 30)
time.sleep(60)
"""


def test_a_killed_peer_is_noticed_at_once(mesh, tls: Path) -> None:
    server = mesh(0, tls)
    host, port = server.listen()
    second = mesh(2, tls)
    second.join(host, port, timeout=20)
    path = ":".join(str(folder) for folder in (Path(__file__).parent, Path(__file__).parents[2]))
    child = subprocess.Popen([sys.executable, "-c", CHILD, host, str(port), str(tls), path])
    try:
        await_alive(server, {1, 2})
        begun = time.monotonic()
        child.send_signal(signal.SIGKILL)
        server.inbox.wait(lambda: bool(server.inbox.lost))
        took = time.monotonic() - begun
    finally:
        child.kill()
        child.wait()
    print(f"a killed peer was noticed after {1000 * took:.1f} ms: {server.inbox.lost[0][1]}")
    assert took < 1 and server.inbox.lost[0][0] == 1 and server.inbox.lost[0][1] != "left"
    send_small(second, server, 1)


def test_a_restarted_peer_joins_again_and_its_older_self_does_not(mesh, tls: Path) -> None:
    server, first = start(mesh, range(1, 2), tls)
    with pytest.raises(HostError, match="joined there already"):
        mesh(1, tls).join(*server.endpoint, timeout=5)
    newer = mesh(1, tls, attempt=1)
    newer.join(*server.endpoint, timeout=20)
    server.inbox.wait(lambda: server.inbox.lost == [(1, "was replaced by its attempt 1")])
    first.inbox.wait(lambda: bool(first.inbox.lost))
    send_small(newer, server, 1)


def connect_all(meshes: list[Mesh], timeout: float) -> list[set[int]]:
    results: list[set[int]] = [set()] * len(meshes)

    def connect(place: int) -> None:
        results[place] = meshes[place].connect_all(timeout)

    threads = [threading.Thread(target=connect, args=(place,)) for place in range(len(meshes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout + 10)
    return results


def test_every_pair_of_peers_connects(mesh, tls: Path) -> None:
    meshes = [mesh(rank, tls) for rank in range(4)]
    endpoints = [one.listen() for one in meshes]
    for one in meshes[1:]:
        one.join(*endpoints[0], timeout=20)
    assert meshes[0].wait_joined(20) == {1, 2, 3}
    assert connect_all(meshes, 20) == [{0, 1, 2, 3} - {rank} for rank in range(4)]
    for sender in meshes[1:]:
        for receiver in meshes:
            if sender is not receiver:
                send_small(sender, receiver, 1)
    assert not any(one.inbox.lost for one in meshes)
    meshes[2].close()
    for one in (meshes[0], meshes[1], meshes[3]):
        one.inbox.wait(lambda one=one: one.inbox.lost == [(2, "left")])


def test_peers_that_do_not_come_are_told_and_the_others_go_on(mesh) -> None:
    meshes = [mesh(rank) for rank in (0, 1, 3)]
    for one in meshes:
        one.endpoint = one.listen()
    for one in meshes[1:]:
        one.join(*meshes[0].endpoint, timeout=20)
    assert meshes[0].wait_joined(0.2) == {1, 3}
    assert connect_all(meshes, 5) == [{1, 3}, {0, 3}, {0, 1}]
    assert meshes[1].inbox.lost == [(2, "did not join")] and meshes[2].inbox.lost == [(2, "did not join")]
    with pytest.raises(HostError, match="too late"):
        mesh(2).join(*meshes[0].endpoint, timeout=5)


def test_listen_takes_the_first_free_port(mesh) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    with pytest.raises(ConflictError, match=f"ports {port}-{port}"):
        mesh(0).listen(ports=range(port, port + 1))
    taken.close()
    assert mesh(0).listen(ports=range(port, port + 1)) == ("127.0.0.1", port)


def test_nobody_there_is_an_error_with_a_remedy(mesh) -> None:
    with pytest.raises(HostError, match="ps at 127.0.0.1:1 cannot be reached: .*refused") as caught:
        mesh(1).join("127.0.0.1", 1, timeout=0.2)
    assert "firewall" in caught.value.remedy
