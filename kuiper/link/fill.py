"""Receiving into memory that is given, with as few system calls and threads at work as will do."""

from __future__ import annotations

import os
import queue
import select
import socket
import ssl
from collections.abc import Callable

_MOST_AT_ONCE = 1 << 30
"""What one call receives at most: OpenSSL counts in a C int."""
_RECORDS_A_TURN = 64
_turns: queue.SimpleQueue[None] = queue.SimpleQueue()
for _ in range(os.cpu_count() or 1):
    _turns.put(None)


def filler(connection: socket.socket) -> Callable[[memoryview], int]:
    """What fills a view with bytes from the connection, and returns how many came before it ended.

    The thread that calls it is the only one that reads from the connection from here on.
    """
    if isinstance(connection, ssl.SSLSocket):
        return _Decrypting(connection)
    return lambda view: _received(connection, view)


def _received(connection: socket.socket, view: memoryview) -> int:
    """Plain sockets fill a whole row in one system call."""
    got, size = 0, len(view)
    while got < size:
        count = connection.recv_into(view[got:], min(size - got, _MOST_AT_ONCE), socket.MSG_WAITALL)
        if not count:
            break
        got += count
    return got


class _Decrypting:
    """TLS hands out 16 kB at a time, and each takes the interpreter's lock once.

    With a thread a peer those locks cost more than the decryption. So threads take turns, as many at a
    time as there are cores, and only while something is there to read: no peer can keep a turn.
    """

    def __init__(self, connection: ssl.SSLSocket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._receive = connection.recv_into
        self._problem = 0
        """What the kernel said of the connection: Python makes an end of file of it (SSL_read_ex returns 0)."""
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)

    def __call__(self, view: memoryview) -> int:
        got, size = 0, len(view)
        while got < size:
            _turns.get()
            try:
                for _ in range(_RECORDS_A_TURN):
                    count = self._receive(view[got:], min(size - got, _MOST_AT_ONCE))
                    if not count and self._problem:
                        raise OSError(self._problem, os.strerror(self._problem))
                    got += count
                    if not count or got == size:
                        return got
                continue
            except ssl.SSLWantReadError:
                pass
            finally:
                _turns.put(None)
            [(_, events)] = self._readable.poll()
            if events & select.POLLERR:  # what came before is read first
                self._problem = self._problem or self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return got
