"""kuiper logs: what the processes of a job said."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kuiper.cli.options import AsJson, JobKey, Quiet, Verbose

if TYPE_CHECKING:
    from kuiper.cluster.logs import Line, Reader

REFRESH = 0.5
PATIENCE = 30.0
"""Seconds that a host has to come back once the job has ended."""


def logs(
    job: JobKey,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only this process; 0 is ps.")] = None,
    grep: Annotated[str | None, typer.Option(metavar="REGEX", help="Only lines with it.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only errors, with the lines around them; the earliest first.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show the logs of a job, merged by time, each line with its process (-q leaves that out).

    --json: an object a line: time (unix seconds, null before the first that is known), job_name, process, error (true
    of a line that tells of one), and what the record holds, or msg. --grep with --errors: only errors around which it
    matches.
    With -f a host that cannot be reached is said; its lines come when it is back, none lost or doubled.
    """
    from kuiper.cli.show import fail, note
    from kuiper.cli.troubles import Troubles
    from kuiper.cluster.logs import merged, readers, told
    from kuiper.cluster.excerpts import Errors, merged_errors
    from kuiper.cluster.store import find, observe
    from kuiper.errors import PartlyDone, UsageError

    found = find(job)
    if rank is not None and rank >= len(found[0].processes):
        raise UsageError(f"--rank {rank}: no such process", f"give one of 0 to {len(found[0].processes) - 1}")
    try:
        pattern = re.compile(grep or "")
    except re.error as error:
        raise UsageError(f"--grep {grep!r} is no regular expression: {error}", "escape it with \\") from error
    sources = [source for one in found for source in readers(one, rank)]
    shown = _lines(len(found) > 1, sources, quiet, as_json)
    excerpts, separate = [Errors() for _ in sources], _separator(as_json)
    troubles = Troubles()
    waits_until = None
    try:
        while True:
            # before reading, so that nothing said at the end is lost
            going = follow and not all(status.over for status in observe(found, detailed=True))
            if errors:
                parts = [one.pick(lines) for one, lines in zip(excerpts, told(sources, not going), strict=True)]
                for excerpt in merged_errors(parts):
                    if any(pattern.search(line.text) for line in excerpt):
                        separate()
                        for line in excerpt:
                            shown(line)
            for line in () if errors else merged(sources, whole=not going):
                if pattern.search(line.text):
                    shown(line)
            _say_gaps(sources)
            now = {source.host: source.trouble for source in sources if source.trouble}
            if follow:
                troubles.tell(now)
            if not going:
                waits_until = waits_until or time.monotonic() + PATIENCE
                if not (follow and now) or time.monotonic() > waits_until:
                    break
            time.sleep(REFRESH)
    except KeyboardInterrupt:
        return
    for source in sources:
        if not source.tail and not source.trouble:
            note(f"{source.job.job_name} {source.process} has said nothing: its log is empty or not there")
    if errors and not any(excerpt.found for excerpt in excerpts):
        note("no errors in the logs")
    if now:
        remedy = "ask again when that is mended: its lines are missing"
        fail(PartlyDone("; ".join(now.values()), remedy), as_json)


def _lines(several: bool, sources: Sequence[Reader], quiet: bool, as_json: bool) -> Callable[[Line], None]:
    """Prints a line, with its process as far as that is asked for."""
    from kuiper.cli.show import print_json

    def named(source: Reader | Line) -> str:
        return f"{source.job.job_name} {source.process}" if several else source.process

    width = max(map(len, map(named, sources)))

    def show(line: Line) -> None:
        if as_json:
            content = line.record or {"msg": line.text}
            where = {"job_name": line.job.job_name, "process": line.process}
            print_json({**content, **where, "time": line.time, "error": line.is_error}, None)
            return
        for each in line.shown.split("\n"):  # a traceback's lines too
            print(each if quiet else f"{named(line):{width}} | {each}", flush=True)

    return show


def _separator(as_json: bool) -> Callable[[], None]:
    """Prints an empty line between two excerpts."""
    begun = False

    def separate() -> None:
        nonlocal begun
        if begun and not as_json:
            print()
        begun = True

    return separate


def _say_gaps(sources: Sequence[Reader]) -> None:
    """Note lines that were lost."""
    from kuiper.cli.show import note

    for source in sources:
        if source.gaps:
            note(f"{source.host}: lines of {source.process} were rotated away before they could be read")
            source.gaps = 0
