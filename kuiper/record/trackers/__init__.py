"""Dashboards that hear what metrics.jsonl is told; each is a module here, imported only when asked for.

A tracker is a convenience: whatever goes wrong in one is a warning in the log and then silence, for
the run and its own records come first.
"""

from __future__ import annotations

import importlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from kuiper.record.plain import plain

_CLOSE_SECONDS, _FAILED_SECONDS = 60.0, 5.0
"""How long the end of a run, and of one that failed, waits for a tracker to hand over what it still has."""
_TRAFFIC = ("bytes_in", "bytes_out", "rows", "late")


class Tracker(Protocol):
    """One dashboard of one run. A module has `start(folder, config) -> Tracker`.

    `folder` is that of rank 0's process, `config` the resolved configuration. Any exception ends the
    tracker and nothing else.
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

    def __init__(self, names: Iterable[str], folder: Path, config: Mapping[str, Any], log: logging.Logger) -> None:
        self._log = log
        self._open: dict[str, Tracker] = {}
        for name in names:
            tracker = self._guarded(name, lambda name=name: _module(name).start(folder, config))
            if tracker is not None:
                self._open[name] = tracker

    def step(self, step: int, values: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
        """A line of metrics: its values, and the seconds of each phase."""
        named = {f"traffic/{k}" if k in _TRAFFIC else f"train/{k}": value for k, value in values.items()}
        self._tell(step, named | {f"seconds/{phase}": spent for phase, spent in seconds.items()})

    def evaluation(self, step: int, values: Mapping[str, Any]) -> None:
        """Scores on the test set."""
        self._tell(step, {f"test/{key}": value for key, value in values.items()})

    def close(self, failed: bool) -> None:
        """Close them all, and wait for none for long; closing twice is fine."""
        seconds = _FAILED_SECONDS if failed else _CLOSE_SECONDS
        for name, tracker in self._open.items():
            closing = threading.Thread(
                target=self._guarded, args=(name, lambda tracker=tracker: tracker.close(failed)), daemon=True)
            closing.start()
            closing.join(seconds)
            if closing.is_alive():
                self._log.warning("tracker %s did not close within %g s and was left behind", name, seconds)
        self._open = {}

    def _tell(self, step: int, values: Mapping[str, Any]) -> None:
        if not self._open:
            return
        numbers = {key: value for key, value in plain(values).items()
                   if isinstance(value, int | float) and math.isfinite(value)}
        for name, tracker in list(self._open.items()):
            if self._guarded(name, lambda tracker=tracker: tracker.log(step, numbers) or tracker) is None:
                del self._open[name]

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        """What it returns; None, with a warning, if it fails."""
        try:
            return call()
        except Exception as error:  # another's code, and nothing of it may end a run
            missing = isinstance(error, ImportError)
            remedy = f"; pip install 'kuiper[{name}]'" if missing else ""
            self._log.warning("tracker %s is off from here on: %s: %s%s", name, type(error).__name__, error, remedy)
            return None


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
