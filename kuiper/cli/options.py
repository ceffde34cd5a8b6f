"""Options and arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def job_names(incomplete: str) -> list[str]:
    from kuiper.cluster.store import jobs

    names = {name for job in jobs() for name in (job.job_name, job.series) if name}
    return sorted(name for name in names if name.startswith(incomplete))


def time_given(text: str) -> float:
    """A time on the command line: 30s, 2m, 1h; a number alone is in seconds."""
    from kuiper.config.schema import seconds

    found = seconds(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time: write 30s, 2m or 1h (a number alone: seconds)")
    return found


SpecFile = Annotated[Path, typer.Argument(metavar="CONF.YML", help="The job spec.")]
JobKey = Annotated[
    str, typer.Argument(metavar="JOB", help="A name (its newest run, or one per seed) or a run id.",
                        autocompletion=job_names)
]
JobKeys = Annotated[
    list[str], typer.Argument(metavar="JOB...", help="Job names or run ids.", autocompletion=job_names)
]
Override = Annotated[
    list[str], typer.Option("--override", "-o", metavar="KEY=VALUE", help="Lay it over the spec; repeatable.")
]
Servers = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Hosts, one a line, in the place of ps_ip.")
]
Workers = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Hosts, one a line, in the place of worker_ips.")
]
Simulate = Annotated[bool, typer.Option("--simulate", help="Run it in one process, on the virtual clock.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show its progress until it ends.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only what was asked for.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")]
