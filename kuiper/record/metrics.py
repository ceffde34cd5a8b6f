"""metrics.jsonl: one JSON object per line, written as things happen."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

from kuiper.errors import RecordError
from kuiper.record.atomic import REMEDY
from kuiper.record.plain import finite, plain


class MetricsLog:
    """Appends lines to `path`; a line is there whole or not at all.

    A line that a crash cut short is dropped when the file is opened again, and so is one that a
    full disk cut short.

    Raises:
        RecordError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._file = open(self.path, "ab+", buffering=0)
            self._drop_torn_line()
        except OSError as error:
            raise RecordError(f"cannot open {self.path}: {error.strerror or error}", REMEDY) from error

    def event(self, event: str, **values: Any) -> None:
        """Append one line: the event's name, the time in unix seconds, then `values`.

        NaN and infinities are written as null; `non_finite` says which they were (see `plain.finite`).

        Raises:
            RecordError: the line cannot be written.
        """
        content = finite(plain({"event": event, "time": time.time(), **values}))
        line = json.dumps(content, allow_nan=False).encode() + b"\n"
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                os.ftruncate(self._file.fileno(), before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # which the next write would say
        except OSError as error:
            raise RecordError(f"cannot write {self.path}: {error.strerror or error}", REMEDY) from error

    def cut(self, step: int) -> None:
        """Drop all that was recorded after `step`; at step 0 everything, for a run that begins again.

        Raises:
            RecordError: a line before is not one of ours, or the file cannot be changed.
        """
        events = read_metrics(self.path) if step else []
        kept = next((place for place, event in enumerate(events) if event.get("step", 0) > step), len(events))
        lines = self.path.read_bytes().split(b"\n")[:kept]
        try:
            os.ftruncate(self._file.fileno(), sum(len(line) + 1 for line in lines))
        except OSError as error:
            raise RecordError(f"cannot shorten {self.path}: {error.strerror or error}", REMEDY) from error

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    def _drop_torn_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        if content and not content.endswith(b"\n"):
            os.ftruncate(self._file.fileno(), content.rfind(b"\n") + 1)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every line of a metrics.jsonl, also of one that is being written: a torn last line is left out.

    Raises:
        RecordError: the file cannot be read, or a line before the last is not a JSON object.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(f"cannot read {path}: {reason}", "give a run's metrics.jsonl") from error
    lines.pop()  # what follows the last newline: nothing, or a line still being written
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise RecordError(f"{path}:{number} is not JSON: {error}", "delete or repair that line") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path}:{number} is not a JSON object", "delete or repair that line")
    return content
