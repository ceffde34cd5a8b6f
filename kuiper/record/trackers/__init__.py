"""Dashboards that hear what metrics.jsonl is told; each is a module here, imported only when asked for.

A tracker is a convenience: the run never waits for one but at its end, and then not for long, and
whatever goes wrong in one is a warning in the log and then silence.
"""

from __future__ import annotations

import importlib
import logging
import math
import queue
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from kuiper.record.plain import plain

_CLOSE_SECONDS, _FAILED_SECONDS = 60.0, 5.0
"""How long the end of a run, and of one that failed, waits for its trackers to hand over what is left."""
_MOST_WAITING = 100_000
"""Lines that a tracker may be behind."""
_TRAFFIC = ("bytes_in", "bytes_out", "rows", "late")


class Tracker(Protocol):
    """One dashboard of one run. A module has `start(folder, config) -> Tracker`.

    `folder` is that of rank 0's process, `config` the resolved configuration. `start` and the methods
    are called in one thread of the tracker's own; any exception ends the tracker and nothing else.
    """

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step or round, by name: 'train/loss', 'test/top_1', 'seconds/compute', ..."""

    def close(self, failed: bool) -> None:
        """The run is over; hand over what is left."""


class Trackers:
    """The trackers of a run, kept from doing harm.

    Args:
        names: modules of this package.
        log: where a tracker that fails is named, once.
    """

    def __init__(
        self, names: Iterable[str], folder: Path, config: Mapping[str, Any], log: logging.Logger
    ) -> None:
        self._told = [_Told(name, folder, config, log) for name in names]

    def step(self, step: int, values: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
        """A line of metrics: its values, and the seconds of each phase."""
        named = {f"traffic/{k}" if k in _TRAFFIC else f"train/{k}": value for k, value in values.items()}
        self._tell(step, named | {f"seconds/{phase}": spent for phase, spent in seconds.items()})

    def evaluation(self, step: int, values: Mapping[str, Any]) -> None:
        """Scores on the test set, and on the validation set."""
        self._tell(step, {f"test/{key}".replace("test/validation_", "validation/"): value
                          for key, value in values.items()})

    def close(self, failed: bool) -> None:
        """Close them all, and wait for none for long; closing twice is fine."""
        for one in self._told:
            one.close(failed)
        deadline = time.monotonic() + (_FAILED_SECONDS if failed else _CLOSE_SECONDS)
        for one in self._told:
            one.join(max(deadline - time.monotonic(), 0))
            if one.is_alive():
                one.off("it did not end in time, and is left behind")
        self._told = []

    def _tell(self, step: int, values: Mapping[str, Any]) -> None:
        if self._told:
            numbers = {key: value for key, value in plain(values).items()
                       if isinstance(value, int | float) and math.isfinite(value)}
            for one in self._told:
                one.tell(step, numbers)


class _Told(threading.Thread):
    """One tracker, and the lines that wait for it."""

    def __init__(self, name: str, folder: Path, config: Mapping[str, Any], log: logging.Logger) -> None:
        super().__init__(name=f"kuiper-{name}", daemon=True)
        self._called = name
        self._log = log
        self._arguments = (folder, config)
        self._is_off = False
        self._failed = False
        self._lines: queue.SimpleQueue[tuple[int, dict[str, float]] | None] = queue.SimpleQueue()
        try:
            self._module = _module(name)  # here: imports in two threads at once can see each other half done
        except ImportError as error:
            self.off(f"{error}; pip install 'kuiper[{name}]'")
        self.start()

    def tell(self, step: int, numbers: dict[str, float]) -> None:
        if self._lines.qsize() >= _MOST_WAITING:
            self.off(f"it is {_MOST_WAITING} lines behind")
        if not self._is_off:
            self._lines.put((step, numbers))

    def close(self, failed: bool) -> None:
        self._failed = failed
        self._lines.put(None)

    def off(self, reason: str) -> None:
        """Say so once, and nothing to it any more."""
        if not self._is_off:
            self._is_off = True
            self._log.warning("tracker %s is off from here on: %s", self._called, reason)

    def run(self) -> None:
        try:
            if not self._is_off:
                tracker = self._module.start(*self._arguments)
            while (line := self._lines.get()) is not None:
                if not self._is_off:
                    tracker.log(*line)
            if not self._is_off:
                tracker.close(self._failed)
        except Exception as error:  # another's code, and nothing of it may end a run
            self.off(f"{type(error).__name__}: {error}")


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
