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

_FAILURE = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt|Lost|Failed)\b|Traceback \(most recent call")
BUNYAN_ERROR = 50
_LEVELS = {10: "TRACE", 20: "DEBUG", 30: "INFO", 40: "WARN", 50: "ERROR", 60: "FATAL"}


@dataclass(frozen=True)
class Line:
    """One line of one process's log.

    Attributes:
        time: unix seconds; of the line before it where a line says none, 0 before the first that does.
        record: the line's JSON object when it is one (Bunyan's format), else None.
    """

    job: Job
    process: str
    time: float
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
        clock = datetime.fromtimestamp(self.time).strftime("%H:%M:%S")
        level = _LEVELS.get(self.record.get("level", 0), "")
        error = self.record.get("err")
        stack = f"\n{error.get('stack', '')}" if isinstance(error, dict) else ""
        return f"{clock} {level:5} {self.record['msg']}{stack}"


@dataclass
class Reader:
    """Reads one process's log from where it was left.

    Attributes:
        offset: bytes of the log already read; what a caller keeps to go on after a drop.
        missed: why the host could not be asked the last time, '' if it could.
    """

    job: Job
    source: Process
    offset: int = 0
    last_time: float = 0.0
    rest: bytes = field(default=b"", repr=False)
    missed: str = ""

    @property
    def process(self) -> str:
        return self.source.name

    def read(self, whole: bool = False) -> list[Line]:
        """The lines since the last call; none, and `missed` says why, when its host cannot be reached.

        Args:
            whole: also an unfinished last line; for a process that has ended.
        """
        host, path = self.job.host(self.source), self.job.at(self.source).log
        self.missed = ""
        try:
            data = host.get(path, self.offset)
            if not data and self.offset and not host.get(path, self.offset - 1):  # the agent rotated it
                self.offset, self.rest, data = 0, b"", host.get(path)
        except Unreachable as error:
            self.missed = error.message
            return []
        except HostError:
            return []  # nothing started there yet
        self.offset += len(data)
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if whole and self.rest:
            lines.append(self.rest)
            self.rest = b""
        return [self._line(line.decode(errors="replace")) for line in lines]

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


def merged(sources: list[Reader], whole: bool = False) -> Iterator[Line]:
    """What is new in all of them, in the order of time; lines of one process keep theirs."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        lines = [line for read in pool.map(lambda source: source.read(whole), sources) for line in read]
    yield from sorted(lines, key=lambda line: line.time)
