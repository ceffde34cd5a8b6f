"""Warnings that others can provoke as often as they like: some are told, the rest are counted."""

from __future__ import annotations

import logging
import threading
import time

BURST, PAUSE = 20, 10.0
"""So many lines at once, and one more for so many seconds since."""


class Sparing:
    """A logger's warnings of one kind."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._left = float(BURST)
        self._at = time.monotonic()
        self._kept = 0
        self._lock = threading.Lock()

    def warning(self, message: str, *values: object) -> None:
        """Log it, or count it; the next line that is logged says how many were counted."""
        with self._lock:
            now = time.monotonic()
            self._left, self._at = min(BURST, self._left + (now - self._at) / PAUSE), now
            if self._left < 1:
                self._kept += 1
                return
            self._left -= 1
            kept, self._kept = self._kept, 0
        if kept:
            message, values = f"{message} (and %d like it before)", (*values, kept)
        self._log.warning(message, *values)

    def close(self) -> None:
        """Say how many were counted since the last line."""
        with self._lock:
            kept, self._kept = self._kept, 0
        if kept:
            self._log.warning("%d more like the last one", kept)
