"""A shell of our own on a host, whatever the user's login shell is and says, and the pool that keeps it open.

sshd hands one command to the login shell: a single short line that bash, dash, zsh, ksh, csh, tcsh and fish read
alike, and that becomes /bin/sh. That sh reads scripts from its input, a line each, encoded, with the data that they
read behind them. Answers stand between marks of random letters, so that it does not matter what start-up files
print before, or what they started prints later. Start-up files run once per shell, not once per command.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import select
import threading
import time
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import paramiko

from kuiper.cluster.login import CONNECT_TIMEOUT, SILENCE, Login, Reopening
from kuiper.errors import Unreachable

STARTUP = 15.0
"""Seconds in which a login shell has to come through its start-up files; some load modules for ten."""
START_UP_FILES = "a start-up file there (~/.bashrc, ~/.cshrc, ~/.zshenv, ~/.config/fish/config.fish or one of the system's)"
# In single quotes: no ' for any shell, no ! for csh, no \ for fish, and no line break.
LOOP = ("PATH=${{PATH:+$PATH:}}/usr/local/bin:/usr/bin:/bin; export PATH; echo {0}; echo {0} >&2; "
        'while IFS= read -r line; do eval "$(printf %b "$line")"; done')
ASK = "printf %s {0}'<'; printf %s {0}'<' >&2; ( {1}\n) {2}; code=$?; printf %s {0}'>'$code';'; printf %s {0}'>0;' >&2"
GIVE_UP = "\n[ $code = 0 ] || exit 0"
"""After a script with data: what it has not read must not be taken for the next script."""
CHUNK, MARK_BYTES = 1 << 18, 64
_UNSAFE = re.compile(rb"[^A-Za-z0-9 /._=,:@+-]")


class Answer(NamedTuple):
    """The outcome of a script: its exit code, and what it wrote."""

    code: int
    out: bytes
    err: bytes


class ShellEnded(Exception):
    """The connection or the shell is gone."""


def encoded(script: str) -> bytes:
    """A script as one line for `printf %b`, of characters that no shell treats in a way of its own."""
    return _UNSAFE.sub(lambda found: b"\\0%03o" % found.group()[0], script.encode(errors="surrogateescape"))


class Shell:
    """One sh on a host.

    Args:
        name: of the host, for errors.
        connection: over which it is opened.
        alone: held while it is: Paramiko mixes up why sessions that are asked for at once are refused.

    Raises:
        Unreachable: its login shell does not get to our command.
        paramiko.ChannelException: the host refuses one more session.
    """

    def __init__(self, name: str, connection: Reopening, alone: threading.Lock) -> None:
        with alone, connection.answering(2 * CONNECT_TIMEOUT):
            self.channel = connection.create_session()
            self.transport = self.channel.get_transport()
            mark = secrets.token_hex(8)
            self.channel.exec_command(f"exec /bin/sh -c '{LOOP.format(mark)}'")
        self.channel.settimeout(SILENCE)
        self._out, self._err = bytearray(), bytearray()
        try:
            self._until(re.compile(f"{mark}\n".encode()), STARTUP)
        except TimeoutError:
            self.close()
            if mark.encode() in self._out + self._err:
                raise Unreachable(f"{name}: its login shell sends standard output or standard error elsewhere: "
                                  f"{START_UP_FILES} redirects it for good",
                                  "have it leave both alone where nobody sits before it: in bash `exec 2>&1` and the like "
                                  "belong behind `[ -t 0 ] || return`") from None
            raise Unreachable(f"{name}: its login shell did not come to our command within {STARTUP:g} s: "
                              f"{START_UP_FILES} waits, does not end, or starts another shell",
                              "have it return early where nobody sits before it, as `[ -t 0 ] || return` does in "
                              f"bash; `ssh {name} true` must end by itself") from None
        except ShellEnded:
            self.close()
            said = (self._err + self._out).decode(errors="replace").strip()[-300:] or "nothing"
            raise Unreachable(f"{name}: its login shell ended before our command ran, and said: {said}",
                              f"`ssh {name} echo there` must print `there`: {START_UP_FILES} may exit or start "
                              "another shell, or this user may not run commands") from None

    @property
    def usable(self) -> bool:
        """Whether it may be asked again, as far as is known here."""
        return self.transport.is_active() and not (self.channel.closed or self.channel.eof_received)

    def answers(self) -> bool:
        """Whether it still answers."""
        try:
            return self.usable and self.ask("true", CONNECT_TIMEOUT).code == 0
        except (TimeoutError, ShellEnded, OSError, paramiko.SSHException):
            return False

    def ask(self, script: str, seconds: float, data: bytes = b"") -> Answer:
        """Run a script in a subshell, and wait for its end.

        Args:
            script: in the language of sh. It has to read all of `data`, or to fail.
            seconds: without a byte from it, after which it is given up. The shell is of no use then.

        Raises:
            TimeoutError: it was silent for too long.
            ShellEnded: the connection or the shell ended before it did.
        """
        mark = secrets.token_hex(8)
        line = ASK.format(mark, script, "" if data else "< /dev/null") + (GIVE_UP if data else "")
        self._out.clear()
        self._err.clear()
        with contextlib.suppress(OSError):  # it may have failed before it read all: it says so, if it can
            self.channel.sendall(encoded(line) + b"\n")
            for start in range(0, len(data), CHUNK):
                self.channel.sendall(data[start : start + CHUNK])
        begin, end = f"{mark}<".encode(), re.compile(rf"{mark}>(\d+);".encode())
        out, err = self._until(end, seconds)
        answer = [bytes(memoryview(buffer)[buffer.index(begin) + len(begin) : found.start()])
                  for buffer, found in ((self._out, out), (self._err, err))]
        return Answer(int(out.group(1)), *answer)

    def close(self) -> None:
        """End it."""
        self.channel.close()

    def _until(self, mark: re.Pattern[bytes], seconds: float) -> list[re.Match[bytes]]:
        """Read until the mark is in both streams; where it is."""
        deadline, poll, searched = time.monotonic() + seconds, select.poll(), [0, 0]
        poll.register(self.channel.fileno(), select.POLLIN)
        while True:
            ended = self.channel.closed or self.channel.eof_received  # first: what came before is there then
            before = len(self._out) + len(self._err)
            while self.channel.recv_ready():
                self._out += self.channel.recv(CHUNK)
            while self.channel.recv_stderr_ready():
                self._err += self.channel.recv_stderr(CHUNK)
            found = [mark.search(buffer, start) for buffer, start in zip((self._out, self._err), searched, strict=True)]
            if all(found):
                return [one for one in found if one]
            searched = [start if one else max(0, len(buffer) - MARK_BYTES)
                        for buffer, start, one in zip((self._out, self._err), searched, found, strict=True)]
            if len(self._out) + len(self._err) > before:
                deadline = time.monotonic() + seconds
            elif ended:
                raise ShellEnded
            elif (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            else:
                poll.poll(1000 * min(left, 1.0))


class Shells:
    """The shells over one login that nobody uses at the moment. As many are open as are used at once.

    A host that allows only one session at a time (MaxSessions of its sshd) gets one: the others wait for it.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self._idle: list[Shell] = []
        self._open = 0
        self._limit: int | None = None
        self._changed = threading.Condition()
        self._opening = threading.Lock()

    @classmethod
    @cache
    def of(cls, login: Login) -> Shells:
        """One object for all who use a login."""
        return cls(login)

    @contextlib.contextmanager
    def use(self) -> Iterator[Shell]:
        """A shell that answers.

        Raises:
            HostError: the host cannot be reached, or its login shell does not get to our command.
        """
        with self._login.session() as connection:
            shell = self._taken(connection)
            try:
                yield shell
            except BaseException:
                self._closed(shell)
                raise
            if shell.usable:
                with self._changed:
                    self._idle.append(shell)
                    self._changed.notify()
            else:
                self._closed(shell)

    def _taken(self, connection: Reopening) -> Shell:
        while True:
            with self._changed:
                while not self._idle and self._limit is not None and self._open >= self._limit:
                    self._changed.wait()
                shell = self._idle.pop() if self._idle else None
                self._open += shell is None
            if shell is None:
                try:
                    return Shell(self._login.name, connection, self._opening)
                except paramiko.ChannelException:
                    with self._changed:
                        self._open -= 1
                        if not self._open:
                            raise
                        self._limit = self._open
                    continue
                except BaseException:
                    self._closed(None)
                    raise
            if shell.answers():
                return shell
            self._closed(shell)
            if connection.is_connected and connection.transport is shell.transport:
                connection.close()  # it is opened again by the next shell

    def _closed(self, shell: Shell | None) -> None:
        if shell is not None:
            shell.close()
        with self._changed:
            self._open -= 1
            self._changed.notify()
