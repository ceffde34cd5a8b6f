"""The side that listens: every connection gets a thread for its handshake, pairs become peers."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable

from kuiper.errors import ConflictError, KuiperError
from kuiper.link import handshake
from kuiper.link.handshake import Door, Hello
from kuiper.link.holding import NOTHING
from kuiper.link.sparing import Sparing

Admitted = Callable[[Hello, str, socket.socket, socket.socket], None]
Barred = Callable[[int], None]
_MOST_GREETINGS = 64
"""Connections that may be in their handshake at once; beyond, the oldest gives way."""
IPV4_MAPPED = "::ffff:"
"""How a socket of both families shows an IPv4 address."""
log = logging.getLogger(__name__)


class Acceptor:
    """Lets processes of the run in, each with one connection per direction.

    Args:
        rank: of this process; only higher ranks dial it.
        attempt: of this process.
        retry: the highest attempt that another can truly be at; beyond, it only wants to join again.
        door: says who they are.
        admitted: called with (hello, host, outgoing, incoming) for each pair, in a thread of its own.
        barred: called with the rank of a process that was refused for its data.

    Attributes:
        refused: connections that were not let in.
        port: where it listens, 0 before it does.
        different: by rank what processes of the run hold that were refused for their data.
    """

    def __init__(self, rank: int, attempt: int, retry: int, door: Door, admitted: Admitted,
                 barred: Barred) -> None:
        self.refused = 0
        self.port = 0
        self.different: dict[int, bytes] = {}
        self._rank = rank
        self._attempt = attempt
        self._retry = retry
        self._door = door
        self._admitted = admitted
        self._barred = barred
        self._attempts: dict[int, int] = {}
        """The newest attempt of each rank that was let in or was given up on."""
        self._halves: dict[int, tuple[int, socket.socket]] = {}
        """Attempt and first connection of ranks whose second connection has yet to come."""
        self._greeting: dict[socket.socket, None] = {}
        """Connections in their handshake, oldest first."""
        self._strangers = Sparing(log)
        self._known = [Sparing(log) for _ in door.names]
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._changed = threading.Condition()

    def listen(self, host: str, ports: range | None) -> None:
        """Listen on the first of the ports that is free (None: on any).

        Raises:
            ConflictError: none is.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        problem: OSError | None = None
        for port in ports or [0]:
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, port))
                listener.listen(128)
            except OSError as error:
                listener.close()
                problem = error
                continue
            self.accept(listener)
            return
        wanted = f"ports {ports.start}-{ports.stop - 1}" if ports else "any port"
        raise ConflictError(f"cannot listen on {host}, {wanted}: {problem}", "give other ones with `ports`")

    def accept(self, listener: socket.socket) -> None:
        """Let processes in through a listening socket, which is the acceptor's from now on."""
        self._listener, self.port = listener, listener.getsockname()[1]
        self._thread = threading.Thread(
            target=self._serve, args=(listener,), name="kuiper-accept", daemon=True
        )
        self._thread.start()

    def give_up(self, ranks: Iterable[int]) -> list[int]:
        """From now on let these in with a newer attempt only; returns those that were not let in yet."""
        with self._changed:
            absent = sorted(set(ranks) - self._attempts.keys())
            self._attempts.update(dict.fromkeys(absent, 0))
        return absent

    def close(self) -> None:
        """Stop listening and let go of all that are not peers yet."""
        with self._changed:
            self._closing = True
            for connection in self._greeting:
                handshake.shut(connection)
            self._changed.notify_all()
        if self._listener is not None:
            handshake.shut(self._listener)
            self._thread.join()
        for told in (self._strangers, *self._known):
            told.close()

    def _serve(self, listener: socket.socket) -> None:
        while not self._closing:
            try:
                raw, (host, *_) = listener.accept()
                host = host.removeprefix(IPV4_MAPPED)  # as others reach it who may have no IPv6
                handshake.tune(raw, host)
                connection = self._door.wrap(raw)
            except OSError as error:
                if not self._closing:
                    self._strangers.warning("cannot accept a connection: %s", error)
                    time.sleep(0.01)  # out of file descriptors, most likely: others may close theirs
                continue
            with self._changed:
                self._greeting[connection] = None
                # Those that mean well are through in milliseconds: the oldest is the one that says nothing.
                surplus = len(self._greeting) - max(_MOST_GREETINGS, 2 * len(self._door.names))
                for oldest in list(self._greeting)[: max(surplus, 0)]:
                    del self._greeting[oldest]
                    handshake.shut(oldest)
            threading.Thread(
                target=self._greet, args=(connection, host), name="kuiper-greet", daemon=True
            ).start()
        listener.close()

    def _greet(self, connection: socket.socket, host: str) -> None:
        """One accepted connection, up to its place in a peer."""
        problem: Exception | None = None
        try:
            hello = self._door.answer(connection)
        except (OSError, KuiperError) as error:
            problem = error
        with self._changed:
            self._greeting.pop(connection, None)
            self.refused += problem is not None and not self._closing
        if problem is not None:
            self._strangers.warning("refused a connection from %s: %s", host, problem)
            connection.close()
        else:
            self._admit(connection, hello, host)

    def _admit(self, connection: socket.socket, hello: Hello, host: str) -> None:
        name = self._door.names[hello.rank]
        first: socket.socket | None = None
        with self._changed:
            status = self._judge(hello)
            if status == handshake.WELCOME and hello.direction == handshake.SENDS:
                _, stale = self._halves.pop(hello.rank, (0, None))
                if stale is not None:
                    stale.close()
                self._halves[hello.rank] = (hello.attempt, connection)
            elif status == handshake.WELCOME:
                _, first = self._halves.pop(hello.rank)
                self._attempts[hello.rank] = hello.attempt
                if hello.data != NOTHING:
                    self._door.holding.known[hello.rank] = hello.data
            else:
                self.refused += 1
            self._changed.notify_all()
        try:
            connection.settimeout(None)  # first: once it has the answer, its other half may come and make a peer
            answer = Hello(self._rank, self._attempt, self._door.run, status=status, data=self._door.holding.data)
            connection.sendall(answer.pack())
        except OSError as error:  # its threads, or the wait for its other half, will find it closed
            self._known[hello.rank].warning("%s was lost while it joined: %s", name, error)
        if status != handshake.WELCOME:
            why = handshake.REFUSALS[status]
            if status == handshake.OTHER_DATA:
                why = self._door.holding.refusal(hello.rank, "it", hello.data)
            self._known[hello.rank].warning("refused %s, attempt %d: %s", name, hello.attempt, why)
            connection.close()
            if status == handshake.OTHER_DATA:
                self.different[hello.rank] = hello.data
                self._barred(hello.rank)
        elif first is None:
            self._await_second(hello.rank, connection)
        else:
            self._admitted(hello, host, connection, first)

    def _judge(self, hello: Hello) -> int:
        """WELCOME, or why not."""
        if hello.run != self._door.run:
            return handshake.OTHER_RUN
        if hello.rank <= self._rank or hello.attempt > self._retry or self._closing:
            return handshake.NOT_YOU
        known = self._attempts.get(hello.rank)
        if known is not None and hello.attempt <= known:
            return handshake.NOT_NEWER
        first = self._halves.get(hello.rank)
        if hello.direction == handshake.RECEIVES and (first is None or first[0] != hello.attempt):
            return handshake.NO_FIRST
        if not self._door.holding.fits(hello.rank, hello.data):
            return handshake.OTHER_DATA
        return handshake.WELCOME

    def _await_second(self, rank: int, first: socket.socket) -> None:
        """Close a first connection whose second does not come."""

        def taken() -> bool:
            return self._halves.get(rank, (0, None))[1] is not first

        with self._changed:
            self._changed.wait_for(lambda: taken() or self._closing, handshake.HANDSHAKE_SECONDS)
            if taken():
                return
            attempt, _ = self._halves.pop(rank)
            self.refused += not self._closing
            first.close()
        why = "its second connection did not come"
        self._known[rank].warning("refused %s, attempt %d: %s", self._door.names[rank], attempt, why)
