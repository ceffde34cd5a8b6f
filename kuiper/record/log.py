"""Log lines in Bunyan's format: one JSON object per record, which the `bunyan` viewer reads."""

from __future__ import annotations

import json
import logging
import socket
from datetime import UTC, datetime
from typing import Any, TextIO

from kuiper.record.plain import finite, plain

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class BunyanFormatter(logging.Formatter):
    """Bunyan's core fields (v 0), then what the call passed as `extra`, then `err` for an exception."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._hostname = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "name": self._name,
            "hostname": self._hostname,
            "pid": record.process,
            "level": bunyan_level(record.levelno),
            "time": _iso_time(record.created),
            "msg": record.getMessage(),
            "v": 0,
        }
        for key, value in vars(record).items():
            if key not in _STANDARD:
                line.setdefault(key, value)
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["err"] = {
                "name": type(error).__name__,
                "message": str(error),
                "stack": self.formatException(record.exc_info),
            }
        return json.dumps(finite(plain(line)), default=str, allow_nan=False)


def bunyan_logger(name: str, stream: TextIO) -> logging.Logger:
    """A logger of its own (not in logging's registry) that writes JSON lines from INFO up to `stream`."""
    logger = logging.Logger(name, logging.INFO)
    logger.addHandler(bunyan_handler(name, stream))
    return logger


def bunyan_handler(name: str, stream: TextIO) -> logging.Handler:
    """A handler that writes JSON lines to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(BunyanFormatter(name))
    return handler


def bunyan_level(level: int) -> int:
    """logging's 10 (debug) .. 50 (critical) as Bunyan's 20 .. 60; below debug is Bunyan's trace, 10."""
    return max(10, min(60, level // 10 * 10 + 10))


def _iso_time(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
