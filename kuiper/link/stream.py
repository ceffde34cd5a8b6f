"""One-way streams of frames: a thread that sends, a thread that receives, and the peer they make."""

from __future__ import annotations

import errno
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kuiper.errors import ProtocolError
from kuiper.link import wire
from kuiper.link.base import Channel
from kuiper.link.fill import filler
from kuiper.link.handshake import SILENCE_SECONDS, shut
from kuiper.link.order import Order
from kuiper.link.wire import Header

GOODBYE, DIRECTORY, READY, FAILURE = 1, 2, 3, 4
"""Kinds of control frames, in their header's `flags`."""
LEFT = "left"
"""The reason that `gone` is given for an orderly goodbye."""
FAILED = "ended with an error"
"""The reason that `gone` is given when the process says that it failed."""
SILENT = f"was silent for {SILENCE_SECONDS} s: its host, or the link to it, is down"
"""The reason that `gone` is given for a link that is cut."""
_JOIN_BYTES = 16384
"""Rows up to this size are sent with their header in one piece (and one TLS record)."""
_SCRATCH_BYTES = 65536
FRAME_SECONDS, SLOWEST = 60.0, 100_000
"""A frame that has begun must be complete after so many seconds, and one more for so many of its bytes."""
_DEAD_LINK = errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH
_LAST_WORDS_SECONDS = 0.5
"""How long a failed sending thread waits for the receiving one to learn the real reason."""


class Inbox(Protocol):
    """What a link does with frames; called in the receiving thread of a peer, never at once for one peer."""

    def place(self, sender: int, header: Header, nodes: np.ndarray, columns: np.ndarray | None) -> (
        list[memoryview] | None
    ):
        """Where the rows go.

        Returns:
            Writable byte views whose sizes add up to rows x row_bytes, in order; they belong to the
            mesh until `arrived` or `gone` is called. None if the frame is not wanted (late): it is
            then read and thrown away.

        Raises:
            ProtocolError: the sender should not have sent it; ends the peer.
        """

    def arrived(self, sender: int, header: Header, nodes: np.ndarray, columns: np.ndarray | None) -> None:
        """The rows are complete, in the place that `place` gave."""

    def joined(self, rank: int, attempt: int) -> None:
        """The peer is there, in its agent's `attempt`; called before its frames, and after an older one's `gone`."""

    def gone(self, rank: int, reason: str) -> None:
        """The peer is gone, told once: 'left' after a goodbye, else what happened to it."""

    def barred(self, rank: int, reason: str) -> None:
        """A process may not join, now or later; one that was a peer will not come back."""


class Office(Protocol):
    """What the streams need from the mesh that they belong to."""

    channels: dict[int, Channel]
    blocks: list[np.ndarray]
    rank: int
    inbox: Inbox
    bytes_in: dict[int, int]
    bytes_out: dict[int, int]
    drained: dict[int, int]

    def control(self, peer: Peer, header: Header, read: Callable[[int], bytes]) -> None:
        """A control frame other than a goodbye has come; `read` takes its payload."""

    def ended(self, peer: Peer, reason: str) -> None:
        """The peer's streams have ended; called once, in its receiving thread."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame that waits to be sent: all before its rows, and the memory of the rows."""

    channel: int
    prefix: bytes
    rows: memoryview


def control_frame(kind: int, payload: bytes = b"") -> Frame:
    header = Header(wire.CONTROL, kind, 0, 0, 0, len(payload))
    return Frame(wire.CONTROL, header.pack(), memoryview(payload))


_FAREWELL = {LEFT: control_frame(GOODBYE), FAILED: control_frame(FAILURE)}


class Peer:
    """Another process of the run, with a stream to it and a stream from it.

    The receiving thread's end is the peer's end: it alone closes the sockets and tells the mesh.
    """

    def __init__(self, office: Office, rank: int, outgoing: socket.socket, incoming: socket.socket) -> None:
        self.office = office
        self.rank = rank
        self.leaving = False
        """Set once this side says goodbye: what still comes is thrown away."""
        self.cutting = threading.Event()
        self._outgoing = outgoing
        self._incoming = incoming
        self._reason = ""
        self._closed = False
        self._lock = threading.Lock()
        self._sender = Sender(self, outgoing)
        self._receiver = Receiver(self, incoming)

    def start(self) -> None:
        self._sender.start()
        self._receiver.start()

    def post(self, frame: Frame, keep: int | None = None) -> None:
        """Queue a frame. Never blocks, and does nothing once the peer is gone.

        Args:
            keep: of the frames of this channel that wait, this one included, only so many newest stay.
        """
        self._sender.post(frame, keep)

    def flush(self, deadline: float) -> bool:
        """Wait until everything queued is with the operating system, or the peer is gone."""
        return self._sender.flush(deadline)

    def leave(self, reason: str = LEFT) -> None:
        """Say goodbye after what is queued, or that this process has failed."""
        self.leaving = True
        self._sender.post(_FAREWELL[reason])

    def overdue(self, now: float) -> bool:
        """Whether the peer has begun a frame and does not complete it."""
        return now > self._receiver.due

    def cut(self, reason: str) -> None:
        """End both streams, from any thread. The first reason given is the one that is told."""
        with self._lock:
            self._reason = self._reason or reason
            self.cutting.set()
            if self._closed:
                return
            for connection in (self._outgoing, self._incoming):
                shut(connection)
        self._sender.stop()

    def join(self, deadline: float) -> bool:
        """Wait for the peer's end; True if it came before the deadline."""
        self._receiver.join(max(deadline - time.monotonic(), 0))
        return not self._receiver.is_alive()

    def finish(self, reason: str) -> None:
        """The end of the receiving thread."""
        self.cut(reason)
        self._sender.join()
        with self._lock:
            self._closed = True
            self._outgoing.close()
            self._incoming.close()
        self.office.ended(self, self._reason)


class Sender(threading.Thread):
    """Sends queued frames in order, the rows from their own memory."""

    def __init__(self, peer: Peer, connection: socket.socket) -> None:
        super().__init__(name=f"kuiper-send-{peer.rank}", daemon=True)
        self._peer = peer
        self._connection = connection
        self._queue: deque[Frame] = deque()
        self._busy = False
        self._changed = threading.Condition()

    def post(self, frame: Frame, keep: int | None = None) -> None:
        with self._changed:
            if self._peer.cutting.is_set():
                return
            self._queue.append(frame)
            if keep is not None:
                waiting = [queued for queued in self._queue if queued.channel == frame.channel]
                for old in waiting[:-keep]:
                    self._queue.remove(old)
            self._changed.notify_all()

    def flush(self, deadline: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._peer.cutting.is_set() or not (self._queue or self._busy),
                max(deadline - time.monotonic(), 0),
            )

    def stop(self) -> None:
        with self._changed:
            self._queue.clear()
            self._changed.notify_all()

    def run(self) -> None:
        peer = self._peer
        try:
            while (frame := self._next()) is not None:
                self._write(frame)
                if frame.channel != wire.CONTROL:
                    peer.office.bytes_out[peer.rank] += len(frame.prefix) + len(frame.rows)
                if frame in _FAREWELL.values():
                    socket.socket.shutdown(self._connection, socket.SHUT_WR)
                    return
                del frame  # its rows are not to be kept while the next one is waited for
        except OSError as error:
            peer.cutting.wait(_LAST_WORDS_SECONDS)
            peer.cut(f"could not be sent to: {error}")

    def _next(self) -> Frame | None:
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or self._peer.cutting.is_set())
            if self._peer.cutting.is_set():
                return None
            self._busy = True
            return self._queue.popleft()

    def _write(self, frame: Frame) -> None:
        if len(frame.rows) <= _JOIN_BYTES:
            self._connection.sendall(frame.prefix + frame.rows)
        else:
            self._connection.sendall(frame.prefix)
            self._connection.sendall(frame.rows)


class Receiver(threading.Thread):
    """Reads frames, checks each before memory is taken for it, and receives rows where they belong."""

    def __init__(self, peer: Peer, connection: socket.socket) -> None:
        super().__init__(name=f"kuiper-receive-{peer.rank}", daemon=True)
        self._peer = peer
        self._fill = filler(connection)
        self._header = bytearray(wire.HEADER_BYTES)
        self._order = Order()
        self.due = math.inf
        """When the frame that has begun to arrive must be complete, on the monotonic clock."""
        self._scratch: memoryview | None = None

    def run(self) -> None:
        reason = "this process failed while it received"
        try:
            reason = self.read()
        finally:
            self._peer.finish(reason)

    def read(self) -> str:
        """Read until the end; returns why it ended."""
        try:
            return self._frames()
        except ProtocolError as error:
            return f"broke the protocol: {error.message}"
        except OSError as error:
            if error.errno in _DEAD_LINK:
                return SILENT
            return f"lost the connection: {error}"

    def _frames(self) -> str:
        peer, office = self._peer, self._peer.office
        view = memoryview(self._header)
        while True:
            got = self._fill(view)
            if got < len(view):
                return "closed the connection without a goodbye" if not got else "was cut off inside a header"
            header = wire.unpack(view)
            self.due = _by_when(header.length)
            if header.channel == wire.CONTROL:
                for reason, kind in ((LEFT, GOODBYE), (FAILED, FAILURE)):
                    if header == Header(wire.CONTROL, kind, 0, 0, 0, 0):
                        return reason
                office.control(peer, header, self._take)
            elif self._rows(header):
                office.bytes_in[peer.rank] += wire.HEADER_BYTES + header.length
            else:
                return f"was cut off inside a frame of channel {office.channels[header.channel].name}"
            self.due = math.inf

    def _rows(self, header: Header) -> bool:
        """One frame of a channel; False if the connection ended inside it."""
        peer, office = self._peer, self._peer.office
        channel = office.channels.get(header.channel)
        if channel is None:
            raise ProtocolError(f"channel {header.channel} is not declared")
        if channel.shared and peer.rank:
            raise ProtocolError(f"channel {channel.name} is the hub's alone")
        allowed = office.blocks[office.rank if channel.shared else peer.rank]
        wire.check(header, channel, allowed)
        index = bytearray(wire.index_bytes(channel, header.nodes))
        if self._fill(memoryview(index)) < len(index):
            return False
        nodes, columns = wire.decode_index(index, channel, header.nodes)
        wire.check_nodes(nodes, channel, allowed)
        self._order.check(channel, header.step, nodes)
        size = header.rows * channel.row_bytes
        self.due = math.inf  # a place may have to be waited for, which is not the peer's fault
        views = None if peer.leaving else office.inbox.place(peer.rank, header, nodes, columns)
        self.due = _by_when(size)
        if views is None:
            office.drained[peer.rank] += 1
            return self._drain(size)
        if sum(len(part) for part in views) != size:
            raise ValueError(f"channel {channel.name}: the places given do not add up to {size} bytes")
        if any(self._fill(part) < len(part) for part in views):
            return False
        office.inbox.arrived(peer.rank, header, nodes, columns)
        return True

    def _take(self, size: int) -> bytes:
        data = bytearray(size)
        if self._fill(memoryview(data)) < size:
            raise ConnectionResetError("it was cut off inside a control frame")
        return bytes(data)

    def _drain(self, size: int) -> bool:
        if self._scratch is None:
            self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        while size:
            part = self._scratch[: min(size, _SCRATCH_BYTES)]
            if self._fill(part) < len(part):
                return False
            size -= len(part)
        return True


def _by_when(size: int) -> float:
    return time.monotonic() + FRAME_SECONDS + size / SLOWEST
