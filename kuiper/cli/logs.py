"""kuiper logs: what the processes of a job said."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from kuiper.cli.options import AsJson, JobKey, Quiet, Verbose

if TYPE_CHECKING:
    from kuiper.cluster.logs import Line, Reader

REFRESH = 0.5


def logs(
    job: JobKey,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only this process; 0 is ps.")] = None,
    grep: Annotated[str | None, typer.Option(metavar="REGEX", help="Only lines that match.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Only errors, the earliest first.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show the logs of a job, merged by time, each line with its process (-q leaves that out)."""
    from kuiper.cli.show import note, print_json
    from kuiper.cluster.logs import merged, readers
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

    def named(source: Reader | Line) -> str:
        return source.process if len(found) == 1 else f"{source.job.job_name} {source.process}"

    width = max(map(len, map(named, sources)))
    told: set[str] = set()
    while True:
        # before reading, so that nothing said at the end is lost
        seen = observe(found, detailed=True) if follow else []
        alive = any(status.alive or not status.state.final for status in seen)
        for line in merged(sources, whole=not alive):
            if not pattern.search(line.text) or errors and not line.is_error:
                continue
            if as_json:
                content = line.record or {"msg": line.text}
                where = {"job_name": line.job.job_name, "process": line.process}
                print_json({"time": line.time, **content, **where}, None)
            else:
                print(line.shown if quiet else f"{named(line):{width}} | {line.shown}", flush=True)
        missed = dict.fromkeys(source.missed for source in sources if source.missed)
        if not alive and missed:
            raise PartlyDone("; ".join(missed), "ask again when that is mended")
        if not alive:
            return
        for why in missed.keys() - told:
            note(f"{why}; trying again")
        told = set(missed)
        try:
            time.sleep(REFRESH)
        except KeyboardInterrupt:
            return
