"""What submit --follow shows of a running job: fed from rank 0's metrics.jsonl, by byte offset."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from kuiper.cli.show import divergence_text, evaluation_text, loss_text, note, number
from kuiper.cli.troubles import Troubles, unreached
from kuiper.cluster.states import JobStatus, parse_events
from kuiper.cluster.store import Job, observe
from kuiper.errors import HostError

if TYPE_CHECKING:
    from rich.progress import Progress

READ_EVERY, LOOK_EVERY, LOOK_AT_END = 0.1, 1.0, 0.25
ENDING = 10.0
"""Seconds that the other processes get to end after rank 0, before follow returns anyway."""


class View(Protocol):
    """Shows events of metrics.jsonl."""

    def show(self, event: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Shows nothing."""

    def show(self, event: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """A line at the start and at each evaluation; for files and pipes."""

    def __init__(self) -> None:
        self.steps: int | None = None
        self.unit = "step"

    def show(self, event: dict[str, Any]) -> None:
        if event.get("event") == "start":
            self.steps, self.unit = event.get("steps"), event.get("unit", "step")
            what = [str(event[key]) for key in ("algorithm", "model", "dataset") if event.get(key)]
            note(f"running: {', '.join(what)}, {self.steps} {self.unit}s")
        elif event.get("event") == "evaluation":
            note(f"{self.unit} {event.get('step')}/{self.steps}  {evaluation_text(event, self.unit)}")
        elif event.get("event") == "diverged":
            note(f"{divergence_text(event.get('step'), self.unit)}: {event.get('reason')}")

    def close(self) -> None:
        pass


class Bar:
    """A live progress bar with step or round, test accuracy, training loss and rate; for terminals."""

    WINDOW = 3.0

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("starting", total=None, accuracy="", loss="", rate="")
        self.recent: deque[tuple[float, int]] = deque()
        self.total: int | None = None
        self.unit = "step"
        progress.start()

    def show(self, event: dict[str, Any]) -> None:
        kind, step = event.get("event"), event.get("step")
        if kind == "start":
            self.total, self.unit = event.get("steps"), event.get("unit", "step")
            self.progress.update(self.task, total=self.total, description=str(event.get("algorithm", "")))
        elif kind == "step" and step is not None:
            self.recent.append((event.get("time", 0.0), step))
            while self.recent[-1][0] - self.recent[0][0] > self.WINDOW:
                self.recent.popleft()
            (first, first_step), (last, last_step) = self.recent[0], self.recent[-1]
            rate = (last_step - first_step) / (last - first) if last > first else None
            loss = loss_text(event, "{:.3f}", "training loss")
            self.progress.update(self.task, completed=step, loss=loss, rate=number(rate, "{:.1f}", f" {self.unit}s/s"))
        elif kind == "evaluation":
            accuracy = number(event.get("top_1"), "test accuracy {:.2f}%")
            self.progress.update(self.task, completed=step, accuracy=accuracy)
        elif kind == "diverged":
            self.progress.update(self.task, description=divergence_text(step, self.unit))
        elif kind == "end":
            self.progress.update(self.task, completed=self.total)

    def close(self) -> None:
        self.progress.stop()


def view(quiet: bool) -> View:
    """What fits where standard error goes: nothing, lines, or a bar."""
    if quiet:
        return Silent()
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return Lines()
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = [TextColumn(f"{{task.fields[{name}]}}") for name in ("accuracy", "loss", "rate")]
    return Bar(Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *columns, TimeRemainingColumn(),
        console=console,
    ))  # fmt: skip


def follow(job: Job, shown: View) -> JobStatus:
    """Show a job until it has ended; returns what it ended as. KeyboardInterrupt passes through."""
    path, host = job.at(job.processes[0]).metrics, job.host(job.processes[0])
    offset, rest, looked, troubles = 0, b"", 0.0, Troubles()
    ended_at: float | None = None
    status: JobStatus | None = None
    try:
        while True:
            if time.monotonic() - looked >= (LOOK_AT_END if ended_at else LOOK_EVERY):
                status, looked = observe([job], detailed=True)[0], time.monotonic()
                troubles.tell(unreached([status]))
            try:
                data = host.get(path, offset)
            except HostError:  # not written yet, or out of reach
                data = b""
            offset += len(data)
            whole, newline, rest_of_it = (rest + data).rpartition(b"\n")
            rest = rest_of_it if newline else rest + data
            for event in parse_events(whole.decode(errors="replace")) if newline else ():
                shown.show(event)
                if event.get("event") == "end":
                    ended_at = ended_at or time.monotonic()
            if status is not None and status.state.final:
                ended_at = ended_at or time.monotonic()
                if not status.alive or time.monotonic() - ended_at > ENDING:
                    return status
            time.sleep(READ_EVERY)
    finally:
        shown.close()
