"""kuiper clean: remove what finished jobs have left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kuiper.cli.options import AsJson, Quiet, Verbose

if TYPE_CHECKING:
    from kuiper.cluster.clean import Rubbish


def clean(
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="Since a run ended, with its unit: 90s, 30m, 12h, 5d.")
    ] = "7d",
    log_path: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Only runs in this log_path.")
    ] = Path("logs"),
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="The runs of every log_path that this user has submitted to.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it without asking.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remove runs that ended some time ago, here and on their hosts, and code there that no run needs.

    Only runs whose log_path is `logs` in the current folder, unless --log-path or --everywhere says otherwise.

    Processes that a dead job on record has left are ended. Nothing of a job that runs is touched.
    """
    from kuiper.cli.show import fail, note, print_json
    from kuiper.cluster.clean import find_rubbish, remove
    from kuiper.cluster.paths import absolute
    from kuiper.config.schema import seconds
    from kuiper.errors import PartlyDone, UsageError

    age = seconds(older_than)
    if age is None:
        raise UsageError(f"--older-than {older_than!r} is no time", "write 90s, 30m, 12h or 5d")
    if not older_than.strip()[-1].isalpha():
        number = older_than.strip()
        raise UsageError(f"--older-than {older_than!r} has no unit",
                         f"write {number}d (days), {number}h (hours), {number}m (minutes) or {number}s (seconds)")
    found = find_rubbish(age, None if everywhere else absolute(log_path))
    if found.elsewhere and not quiet:
        note(f"left alone, not being in {absolute(log_path)}: runs in {', '.join(found.elsewhere)} (--everywhere: all)")
    anything = bool(found.runs or found.code or found.leftovers)
    if not as_json and not quiet:
        print("\n".join(_text(found)) or f"nothing is older than {older_than}")
    asks = anything and not dry_run and not yes and sys.stdin.isatty()
    removed = not dry_run and (yes or asks and typer.confirm("remove all this?"))
    failures = found.failures + (remove(found) if removed else [])
    if as_json:
        print_json({**_data(found), "removed": removed, "failures": failures})
    if failures:
        remedy = "clean again when that is mended: it is safe to repeat"
        fail(PartlyDone("; ".join(failures), remedy), as_json)
    if anything and not removed and not dry_run:
        fail(UsageError("nothing was removed", "look at it with --dry-run, then use --yes"), as_json)


def _text(found: Rubbish) -> Iterator[str]:
    from kuiper.cli.show import span

    for leftover in found.leftovers:
        pids = ", ".join(map(str, leftover.pids))
        yield f"left over  {leftover.job.job_name} {leftover.job.run_id} on {leftover.host}: pid {pids}"
    for old in found.runs:
        hosts = ", ".join(site.address.host for site in old.job.sites)
        yield (f"run        {old.job.job_name} {old.job.run_id}  {old.state}, ended {span(old.age)} ago on "
               f"{hosts}, {old.bytes / 1e6:.1f} MB")
    for code in found.code:
        yield f"code       {code.folder} on {code.address.host}, {code.bytes / 1e6:.1f} MB"
    for host, runs in found.strangers.items():
        yield f"(runs on {host} that are not on record here are left alone: {', '.join(runs)})"


def _data(found: Rubbish) -> dict[str, Any]:
    return {
        "runs": [{"job_name": old.job.job_name, "run_id": old.job.run_id, "run_dir": str(old.job.run_dir),
                  "state": old.state, "age": old.age, "bytes": old.bytes,
                  "hosts": [site.address.host for site in old.job.sites]} for old in found.runs],
        "code": [{"host": one.address.host, "folder": one.folder, "bytes": one.bytes} for one in found.code],
        "leftovers": [{"job_name": left.job.job_name, "run_id": left.job.run_id, "host": left.host,
                       "pids": left.pids} for left in found.leftovers],
        "strangers": found.strangers, "elsewhere": found.elsewhere,
    }  # fmt: skip
