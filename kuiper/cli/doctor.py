"""kuiper doctor: what would stand in the way, host by host."""

from __future__ import annotations

from dataclasses import asdict

import typer

from kuiper.cli.called import as_called
from kuiper.cli.options import AsJson, Override, Quiet, Servers, SpecFile, Verbose, Workers

COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}


def doctor(
    path: SpecFile,
    override: Override = [],  # noqa: B006 - Typer copies it
    servers: Servers = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Look at every host of a spec: key, login, python, torch, GPUs, disk, clock, data set, ports, leftovers."""
    from kuiper.cli.show import console, note, print_json
    from kuiper.cluster.doctor import examine
    from kuiper.cluster.spec import load
    from kuiper.errors import HostError

    findings = examine(load(path, override, servers=servers, workers=workers))
    wrong = [finding for finding in findings if finding.verdict == "wrong"]
    if as_json:
        print_json([asdict(finding) for finding in findings])
        raise typer.Exit(HostError.exit_code if wrong else 0)
    from rich.table import Table
    from rich.text import Text

    table = Table("host", "what", "", "found", box=None, pad_edge=False)
    for finding in findings:
        if quiet and finding.verdict == "ok":
            continue
        found = finding.detail + (f"\n-> {finding.remedy}" if finding.remedy else "")
        table.add_row(finding.host, finding.subject, Text(finding.verdict, COLOURS[finding.verdict]), as_called(found))
    console().print(table)
    if not quiet:
        note("mend what is wrong before you submit" if wrong else f"nothing is in the way: `kuiper submit {path}`")
    raise typer.Exit(HostError.exit_code if wrong else 0)
