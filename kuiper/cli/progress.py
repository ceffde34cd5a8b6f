"""What submit and resume show while they are at work: a line per host, updated in place on a terminal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kuiper.cli.show import note
from kuiper.cluster.progress import Say, silent

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

KEPT_FREE = 3
"""Lines of a terminal that the hosts leave for others."""


@contextlib.contextmanager
def progress(hidden: bool) -> Iterator[Say]:
    """Who is told of the progress: nobody, a terminal, or, line by line, whatever standard error is."""
    if hidden:
        yield silent
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    from rich.live import Live

    hosts = Hosts()
    with Live(hosts, console=console, refresh_per_second=8) as live:
        hosts.live = live
        yield hosts


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start


class Lines(Clock):
    """A line for everything that is said; for files and pipes."""

    def __call__(self, line: str, host: str = "") -> None:
        note(f"{self.elapsed:6.1f} s  {host}{': ' if host else ''}{line}")


class Hosts(Clock):
    """A line per host with what it has come to and when; what is said of none stands above them.

    Where they do not fit on the terminal, those that spoke last are shown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: Live | None = None
        self._steps: dict[str, tuple[float, str]] = {}

    def __call__(self, line: str, host: str = "") -> None:
        if host:
            self._steps[host] = self.elapsed, line
        elif self.live is not None:
            self.live.console.print(f"{self.elapsed:6.1f} s  {line}", highlight=False, markup=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        steps, room = dict(self._steps), console.height - KEPT_FREE
        latest = set(sorted(steps, key=lambda host: steps[host])[-room:])
        width = max(map(len, steps), default=0)
        for host, (when, line) in steps.items():
            if host in latest:
                yield Text(f"{when:6.1f} s  {host:<{width}}  {line}", no_wrap=True, overflow="ellipsis")
        if len(latest) < len(steps):
            yield Text(f"{len(steps)} hosts, of which {len(latest)} are shown")
