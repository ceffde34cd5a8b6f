"""Logs of jobs: merged by time, each line with its process, followed by byte offset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kuiper.cluster.host import AT_ONCE
from kuiper.cluster.store import Job, Process
from kuiper.errors import HostError, Unreachable

TRACEBACK = r"Traceback \(most recent call last\)"
_FAILURE = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt|Lost|Failed)(:|\s*$)|[ |+]*(Exception Group )?" + TRACEBACK
                      + r"|Fatal Python error|setup command failed|agent: cannot|terminate called|(ba)?sh: ")
BUNYAN_ERROR = 50
TAIL = 256
"""Bytes of a log that no other one has at the same place: its lines say when they were written."""
TRIES = 3
_CORE = frozenset({"name", "hostname", "pid", "level", "time", "msg", "v", "err", "non_finite"})
"""Bunyan's own fields; the others are what a record is about, such as the scores of an evaluation."""
_LEVELS = {10: "TRACE", 20: "DEBUG", 30: "INFO", 40: "WARN", 50: "ERROR", 60: "FATAL"}


@dataclass(frozen=True)
class Line:
    """One line of one process's log.

    Attributes:
        time: unix seconds; of the line before it where a line says none, None before the first that does.
        record: the line's JSON object when it is one (Bunyan's format), else None.
    """

    job: Job
    process: str
    time: float | None
    text: str
    record: dict[str, Any] | None = None

    @property
    def is_error(self) -> bool:
        if self.record is not None:
            return isinstance(level := self.record.get("level"), int) and level >= BUNYAN_ERROR
        return _FAILURE.match(self.text) is not None

    @property
    def shown(self) -> str:
        """For people: a Bunyan record as time, level and message; anything else as it is."""
        if self.record is None or "msg" not in self.record:
            return self.text
        clock = datetime.fromtimestamp(self.time or 0.0).strftime("%H:%M:%S")
        level = self.record.get("level")
        level = _LEVELS.get(level, "") if isinstance(level, int) else ""
        non_finite = self.record.get("non_finite")
        values = self.record | (non_finite if isinstance(non_finite, dict) else {})
        more = "".join(f"  {key} {_value(value)}" for key, value in values.items() if key not in _CORE)
        error = self.record.get("err")
        stack = error.get("stack") if isinstance(error, dict) else None
        return f"{clock} {level:5} {self.record['msg']}{more}" + (f"\n{stack}" if stack else "")


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass
class Reader:
    """Reads one process's log from where it was left, even if it was rotated or out of reach meanwhile.

    Attributes:
        offset: bytes already read of the log, or of the rotated one that was read last.
        tail: the last bytes before `offset`: they tell that log from one that has taken its place.
        trouble: why the log could not be read the last time, "" if it could.
        gaps: how often lines were rotated away before they could be read.
    """

    job: Job
    source: Process
    offset: int = 0
    tail: bytes = field(default=b"", repr=False)
    trouble: str = ""
    gaps: int = 0
    last_time: float | None = None
    rest: bytes = field(default=b"", repr=False)
    missed: str = ""

    @property
    def process(self) -> str:
        return self.source.name

    @property
    def host(self) -> str:
        return self.source.host

    def read(self, whole: bool = False) -> list[Line]:
        """The lines since the last call; none while the host cannot be reached.

        Args:
            whole: also an unfinished last line; for a process that has ended.
        """
        try:
            data = self._appended()
            if data is None:
                data = self._rotated()
            self.trouble = ""
        except Unreachable as error:
            self.trouble = error.message
            return []
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if whole and self.rest:
            lines.append(self.rest)
            self.rest = b""
        return [self._line(line.decode(errors="replace")) for line in lines]

    def _appended(self) -> bytes | None:
        """What was written since to the log that was read last; None if it is not in its place any more."""
        if not self.tail:
            return None
        found = self._get(0, self.offset - len(self.tail))
        if found is None or not found.startswith(self.tail):
            return None
        new = found[len(self.tail) :]
        self._left(self.offset + len(new), self.tail + new)
        return new

    def _rotated(self) -> bytes:
        """What was written since, in logs that were rotated and in the one that took their place."""
        for _ in range(TRIES):
            logs = [self._get(0) or b""]  # the newest first
            while not self._goes_on(logs[-1]) and (older := self._get(len(logs))) is not None:
                logs.append(older)
            if len(logs) > 1 and logs[0] and logs[1].startswith(logs[0]):
                continue  # rotated while it was read: its lines are in both
            begins = self.offset if self._goes_on(logs[-1]) else 0
            self.gaps += bool(self.tail) and not begins
            newest = next(filter(None, logs), None)
            if newest is not None:
                self._left(len(newest), newest)
            return b"".join([logs[-1][begins:], *reversed(logs[:-1])])
        return b""  # it is in the middle of it

    def _goes_on(self, log: bytes) -> bool:
        """Whether this is the log that was read last."""
        return bool(self.tail) and log[self.offset - len(self.tail) : self.offset] == self.tail

    def _left(self, offset: int, before: bytes) -> None:
        self.offset, self.tail = offset, before[-TAIL:]

    def _get(self, rotations: int, offset: int = 0) -> bytes | None:
        """The log from `offset` on, or the one that was rotated so many times ago; None if there is none."""
        host, log = self.job.host(self.source), self.job.at(self.source).log
        path = log.with_name(f"{log.name}.{rotations}") if rotations else log
        try:
            return host.get(path, offset)
        except Unreachable:
            raise
        except HostError:
            return None

    def _line(self, text: str) -> Line:
        try:
            record = json.loads(text) if text.startswith("{") else None
        except ValueError:
            record = None
        if isinstance(record, dict) and isinstance(record.get("time"), str):
            try:
                self.last_time = datetime.fromisoformat(record["time"]).timestamp()
            except ValueError:
                pass
        return Line(self.job, self.process, self.last_time, text, record if isinstance(record, dict) else None)


def readers(job: Job, rank: int | None = None) -> list[Reader]:
    """One per process, or the one of a rank (IndexError when there is none)."""
    chosen = job.processes if rank is None else [job.processes[rank]]
    return [Reader(job, process) for process in chosen]


def told(sources: list[Reader], whole: bool = False) -> list[list[Line]]:
    """What is new in each of them, read at once."""
    with ThreadPoolExecutor(min(AT_ONCE, len(sources))) as pool:
        return list(pool.map(lambda source: source.read(whole), sources))


def merged(sources: list[Reader], whole: bool = False) -> Iterator[Line]:
    """What is new in all of them, in the order of time; lines of one process keep theirs."""
    lines = [line for found in told(sources, whole) for line in found]
    yield from sorted(lines, key=lambda line: line.time or 0.0)
