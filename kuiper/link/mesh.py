"""The mesh: every process of a run, its streams to the others, and how they find each other.

A process that dies, stalls or lies costs only itself: each peer has threads and connections of its
own, everything it sends is checked against its channel, and its end is told once through the inbox.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from kuiper.errors import HostError, KuiperError, ProtocolError
from kuiper.link import directory, handshake, wire
from kuiper.link.acceptor import Acceptor
from kuiper.link.base import Channel
from kuiper.link.handshake import Door, Hello
from kuiper.link.holding import Holding
from kuiper.link.stream import DIRECTORY, FAILED, LEFT, READY, Frame, Inbox, Peer, control_frame

__all__ = ["LEFT", "Inbox", "Mesh"]
_DIALS_AT_ONCE = 8
_CLOSE_SECONDS = 5.0
_WATCH_SECONDS = 1.0
_OTHERS_SECONDS = 5.0
"""How long the others are waited for once one has come with other data."""
_ENDED_SECONDS = 0.5
log = logging.getLogger(__name__)


class Mesh:
    """The streams between this process and the others of its run.

    Args:
        rank: of this process.
        names: of all processes, by rank.
        channels: what may be sent.
        blocks: the node ids that each rank hosts.
        inbox: what is done with frames that arrive.
        run_id: of the run.
        credentials: folder with ca.pem, cert.pem and key.pem, or None for `security: none`.
        attempt: how often the agent has restarted this process; a peer that is gone, or was given
            up on, may join again with a higher one only.
        retry: the highest attempt that can be true.
        holding: the data set of this process, and what others must hold; None: nobody says.

    Attributes:
        bytes_in, bytes_out: of the channels' frames, headers included, by rank of the peer.
        drained: frames that were received and thrown away, by rank of the peer.
    """

    def __init__(
        self,
        rank: int,
        names: Sequence[str],
        channels: Sequence[Channel],
        blocks: Sequence[Sequence[int]],
        inbox: Inbox,
        run_id: str,
        credentials: Path | None,
        attempt: int = 0,
        retry: int = 1000,
        holding: Holding | None = None,
    ) -> None:
        self.rank = rank
        self.names = list(names)
        self.channels = {channel.number: channel for channel in channels}
        self.blocks = [np.sort(np.asarray(block, np.uint32)) for block in blocks]
        self.inbox = inbox
        self.bytes_in = dict.fromkeys(range(len(names)), 0)
        self.bytes_out = dict.fromkeys(range(len(names)), 0)
        self.drained = dict.fromkeys(range(len(names)), 0)
        for channel in channels:
            wire.dtype_code(channel)
        if len(self.channels) != len(channels) or not all(0 < number < 65536 for number in self.channels):
            raise ProtocolError(f"channel numbers {sorted(self.channels)} must differ, within 1..65535")
        self._attempt = attempt
        self.holding = holding or Holding()
        self._door = Door(run_id, self.names, credentials, self.holding)
        self._acceptor = Acceptor(rank, attempt, retry, self._door, self._admitted, self._barred)
        self._peers: dict[int, Peer] = {}
        self._joined: set[int] = set()
        """Ranks that have been peers, gone or not."""
        self._endpoints: dict[int, tuple[str, int]] = {}
        """Where those that joined listen themselves."""
        self._directory: dict[int, tuple[str, int]] | None = None
        self._ready: set[int] = set()
        self._closing = False
        self._watch: threading.Thread | None = None
        self._changed = threading.Condition()

    def listen(self, host: str = "127.0.0.1", ports: range | None = None) -> tuple[str, int]:
        """Let others connect, from now until `close`; returns the host and the port.

        Args:
            host: address to bind.
            ports: the first free one is taken; None: any.

        Raises:
            ConflictError: none of the ports is free.
        """
        self._acceptor.listen(host, ports)
        return host, self._acceptor.port

    def accept(self, listener: socket.socket) -> None:
        """As `listen`, on a socket that is bound and listening already; it is the mesh's from now on."""
        self._acceptor.accept(listener)

    def join(self, host: str, port: int, timeout: float, queued: bool = False) -> None:
        """Connect to rank 0, trying again until the timeout (seconds) is over.

        Args:
            queued: its turn may not have come: once it is connected, its answer is waited for without limit.

        Raises:
            HostError: it is not there in time, is not who it should be, or refuses this process.
            DifferentData: it refuses this process because it holds another data set.
        """
        self._dial(0, host, port, time.monotonic() + timeout, queued)

    def wait_joined(self, timeout: float, ended: Callable[[int], str] = lambda rank: "") -> set[int]:
        """On rank 0: wait until all the others have joined, or the timeout is over.

        One that joined and is gone again is not waited for, and one that did not come in time can
        join with a newer attempt only. Returns the ranks that are there; the wait ends early once one was
        refused for its data, see `different`.

        Args:
            ended: why a rank will not come, '' while that is not known; such a one is not waited for.
        """
        others, deadline = set(range(len(self.names))) - {self.rank}, time.monotonic() + timeout
        with self._changed:
            while (absent := others - self._joined) and not self.different and time.monotonic() < deadline:
                if all(ended(rank) for rank in absent):
                    break
                self._changed.wait_for(lambda: others <= self._joined or self.different,
                                       min(_left(deadline), _ENDED_SECONDS))
            if self.different:  # those that are about to come may hold other data too: say all at once
                self._changed.wait_for(lambda: others <= self._joined | self.different.keys(),
                                       min(_left(deadline), _OTHERS_SECONDS))
            absent = others - self._joined
        self._acceptor.give_up(absent)
        return set(self.alive)

    def connect_all(self, timeout: float) -> set[int]:
        """Connect every pair, for jobs without a server. Every rank listens, then calls it after joining.

        Rank 0 hands out who listens where to those that have joined it, and returns when they say
        that they are ready. The others dial those of lower rank and wait for those of higher rank;
        for each that is not there in time `gone` is called. Returns the ranks that are there.

        Raises:
            HostError: rank 0 was lost before it handed out the directory.
        """
        deadline = time.monotonic() + timeout
        if self.rank == 0:
            self._hand_out(deadline)
        else:
            self._connect_others(deadline)
        return set(self.alive)

    @property
    def alive(self) -> frozenset[int]:
        """Ranks of the peers that are connected."""
        with self._changed:
            return frozenset(self._peers)

    @property
    def different(self) -> dict[int, bytes]:
        """What processes hold that were refused for their data, by rank."""
        return self._acceptor.different

    @property
    def refused(self) -> int:
        """Connections that were not let in."""
        return self._acceptor.refused

    def post(
        self,
        rank: int,
        channel: Channel,
        step: int,
        nodes: np.ndarray,
        rows: torch.Tensor,
        columns: np.ndarray | None = None,
        keep: int | None = None,
    ) -> None:
        """Queue a frame for a peer; never blocks. Nothing happens if the peer is gone.

        Args:
            rank: of the peer.
            channel: one of the mesh's.
            step: step or round.
            nodes: (m,) uint32, strictly increasing; the senders, or the receivers on a shared channel.
            rows: (m, d), or one row on a shared channel: contiguous, on the CPU. It is sent from this
                memory, so it must not change until `flush` has returned True.
            columns: (m, len(channel.columns)) float64.
            keep: of the frames of this channel that wait for that peer, this one included, drop all but
                so many, the oldest first.

        Raises:
            ProtocolError: rows or columns are not what the channel declares.
        """
        prefix = wire.encode(channel, step, nodes, rows, columns)
        with self._changed:
            peer = self._peers.get(rank)
        if peer is not None:
            peer.post(Frame(channel.number, prefix, wire.byte_view(rows)), keep)

    def flush(self, timeout: float) -> bool:
        """Wait until all that was posted is with the operating system; False if the timeout came first."""
        deadline = time.monotonic() + timeout
        with self._changed:
            peers = list(self._peers.values())
        return all([peer.flush(deadline) for peer in peers])

    def close(self, failed: bool = False) -> None:
        """Send what is queued, say goodbye and end everything; waits 5 s at most for slow peers.

        Frames that begin to arrive from here on are thrown away, and `gone` is not called. Idempotent.

        Args:
            failed: tell the others that this process has failed, instead of a goodbye.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
            peers = list(self._peers.values())
        self._acceptor.close()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for peer in peers:
            peer.leave(FAILED if failed else LEFT)
        for peer in peers:
            if not peer.join(deadline):
                peer.cut("was too slow to say goodbye")
                peer.join(time.monotonic() + 1)

    def control(self, peer: Peer, header: wire.Header, read: Callable[[int], bytes]) -> None:
        """See `Office.control`: the directory from rank 0, or a peer that is ready."""
        plain = header == wire.Header(wire.CONTROL, header.flags, 0, 0, 0, header.length)
        most = directory.longest(len(self.names))
        first = peer.rank not in self._ready and self._directory is None  # each is said once
        if plain and first and header.flags == DIRECTORY and peer.rank == 0 and header.length <= most:
            endpoints = directory.read(read(header.length), len(self.names))
            with self._changed:
                self._directory = endpoints
                self._changed.notify_all()
        elif plain and first and header.flags == READY and self.rank == 0 and header.length == 0:
            with self._changed:
                self._ready.add(peer.rank)
                self._changed.notify_all()
        else:
            raise ProtocolError(f"an unexpected control frame: kind {header.flags}, {header.length} bytes")

    def ended(self, peer: Peer, reason: str) -> None:
        """See `Office.ended`."""
        with self._changed:
            if self._peers.get(peer.rank) is peer:
                del self._peers[peer.rank]
            self._changed.notify_all()
            if self._closing:
                return
        log.log(logging.INFO if reason == LEFT else logging.WARNING, "%s %s", self.names[peer.rank], reason)
        self.inbox.gone(peer.rank, reason)

    def _dial(self, rank: int, host: str, port: int, deadline: float, queued: bool = False) -> None:
        halves: list[socket.socket] = []
        try:
            for direction in (handshake.SENDS, handshake.RECEIVES):
                hello = Hello(self.rank, self._attempt, self._door.run, self._acceptor.port, direction,
                              data=self.holding.data)
                halves.append(self._door.dial(rank, host, port, hello, _left(deadline), queued))
                deadline = max(deadline, time.monotonic() + handshake.HANDSHAKE_SECONDS)  # if it queued
        except KuiperError:
            for half in halves:
                half.close()
            raise
        handshake.expect_no_silence(halves[1])
        self._add(Peer(self, rank, outgoing=halves[0], incoming=halves[1]), attempt=0)

    def _admitted(self, hello: Hello, host: str, outgoing: socket.socket, incoming: socket.socket) -> None:
        """The acceptor let a process in; a restarted one takes the place of the one it was."""
        with self._changed:
            old = self._peers.get(hello.rank)
            self._endpoints[hello.rank] = (host, hello.port)
        if old is not None:
            old.cut(f"was replaced by its attempt {hello.attempt}")
            old.join(time.monotonic() + _CLOSE_SECONDS)
        handshake.expect_no_silence(incoming)
        self._add(Peer(self, hello.rank, outgoing, incoming), hello.attempt)

    def _barred(self, rank: int) -> None:
        """The acceptor refused a process for its data."""
        with self._changed:
            self._changed.notify_all()
        self.inbox.barred(rank, "holds other data")

    def _add(self, peer: Peer, attempt: int) -> None:
        with self._changed:
            self._peers[peer.rank] = peer
            self._joined.add(peer.rank)
            self.inbox.joined(peer.rank, attempt)
            peer.start()
            if self._watch is None:
                self._watch = threading.Thread(target=self._watch_frames, name="kuiper-watch", daemon=True)
                self._watch.start()
            self._changed.notify_all()
            if self._closing:
                peer.cut("joined while this process closed")

    def _watch_frames(self) -> None:
        """Cut those that stop inside a frame for good: it holds on to the memory of a whole step."""
        while not self._closing:
            now = time.monotonic()
            with self._changed:
                overdue = [peer for peer in self._peers.values() if peer.overdue(now)]
            for peer in overdue:
                peer.cut("did not complete a frame in time")
            with self._changed:
                self._changed.wait_for(lambda: self._closing, _WATCH_SECONDS)

    def _hand_out(self, deadline: float) -> None:
        with self._changed:
            peers = [self._peers[rank] for rank in sorted(self._peers)]
            endpoints = {peer.rank: self._endpoints[peer.rank] for peer in peers}
        for peer in peers:
            peer.post(control_frame(DIRECTORY, directory.write(endpoints)))
        with self._changed:
            self._changed.wait_for(
                lambda: all(peer.rank in self._ready or peer.cutting.is_set() for peer in peers),
                _left(deadline),
            )

    def _connect_others(self, deadline: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._directory is not None or 0 not in self._peers, _left(deadline)
            )
            endpoints, hub = self._directory, self._peers.get(0)
        if endpoints is None:
            raise HostError(f"{self.names[0]} did not say who takes part", f"see the log of {self.names[0]}")
        problems: dict[int, str] = {}

        def reach(rank: int) -> None:
            try:
                self._dial(rank, *endpoints[rank], deadline)
            except KuiperError as error:
                problems[rank] = error.message

        with ThreadPoolExecutor(_DIALS_AT_ONCE) as pool:
            list(pool.map(reach, [rank for rank in endpoints if rank < self.rank]))
        others = set(range(1, len(self.names))) - {self.rank}
        with self._changed:
            self._changed.wait_for(
                lambda: endpoints.keys() & others <= self._joined | problems.keys(), _left(deadline)
            )
            absent = others - self._joined
        for rank in self._acceptor.give_up(absent):
            self.inbox.gone(rank, problems.get(rank, "did not join"))
        if hub is not None:
            hub.post(control_frame(READY))


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0)
