"""kuiper plan: what submit would do, host by host."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from kuiper.cli.options import AsJson, Override, Quiet, Servers, Simulate, SpecFile, Verbose, Workers


def plan(
    path: SpecFile,
    override: Override = [],  # noqa: B006 - Typer copies it
    servers: Servers = None,
    workers: Workers = None,
    simulate: Simulate = False,
    ask: Annotated[bool, typer.Option("--ask", help="Ask the hosts what only they know.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show the exact actions of a submit on every host; change nothing, and contact nobody without --ask.

    Of secrets, names are shown and never values. -q leaves out files and environment.
    """
    from kuiper.cli.show import note, print_json
    from kuiper.cluster.preview import preview
    from kuiper.cluster.spec import load

    spec = load(path, override, simulate, servers, workers)
    for line in () if quiet else spec.notes:
        note(line)
    jobs = preview(spec, simulate or spec.mode == "simulate", ask)
    if as_json:
        print_json(jobs)
        return
    print("\n".join(_text(jobs[0], quiet)))
    for job in jobs[1:]:
        print(f"\nthen {job['job_name']}: the same in {job['run_dir']}, when those before it have ended")


def _text(job: Mapping[str, Any], quiet: bool) -> Iterator[str]:
    code, limits = job["code"], job["limits"]
    yield f"{job['job_name']} ({job['mode']})  {job['run_dir']}"
    yield f"  code       {code['digest']}, {code['files']} files"
    if job["secrets"]:
        yield f"  secrets    {', '.join(job['secrets'])}: values from this environment, deleted once read"
    if len(job["hosts"]) > 1 or len(job["hosts"][0]["processes"]) > 1:
        yield f"  port       of ps: {job['ports'] or 'any free one'}"
    if limits["duration"] is not None:
        yield f"  ends       after {limits['duration']:g} s, and {limits['grace']:g} s of grace"
    for host in job["hosts"]:
        yield ""
        yield from _host(host, quiet)
    names = [process["name"] for host in job["hosts"] for process in host["processes"]]
    others = f" and says where it listens, then {len(names) - 1} others" if len(names) > 1 else ""
    yield f"\nthen       {names[0]} starts{others}; each says that it is alive"
    for unknown in job["open"]:
        yield f"not known  {unknown}"


def _host(host: Mapping[str, Any], quiet: bool) -> Iterator[str]:
    user, port = f"{host['user']}@" * bool(host["user"]), f" port {host['port']}" * bool(host["port"])
    yield f"{user}{host['host']}{port}"
    if host["code"]:
        sent = {None: "sent there, unless it is", True: "sent there", False: "is there"}[host["code"]["sent"]]
        yield f"  python     {host['python']}"
        yield f"  code       {host['code']['folder']}: {sent}"
    if host["agent"]:
        yield f"  agent      {host['agent']}: sent there, unless it is"
    for folder in host["folders"]:
        yield f"  folder     {folder}/"
        for file in () if quiet else host["files"]:
            if file["path"].rpartition("/")[0] == folder:
                yield f"    {file['mode']} {file['path'].rpartition('/')[2]}  {file['bytes']} bytes"
    for command in host["starts"]:
        yield f"  starts     {shlex.join(command)}"
    for process in host["processes"]:
        nodes = process["nodes"]
        which = f", nodes {nodes[0]}-{nodes[-1]}" if nodes else ""
        yield f"  {process['name']:<10} on {process['device']}{which}"
        for command in process["setup_commands"]:
            yield f"    setup    {command}"
        yield f"    runs     {shlex.join(process['command'])}"
        yield f"    in       {process['cwd']}"
        if not quiet:
            env = " ".join(f"{name}={shlex.quote(text)}" for name, text in process["env"].items())
            yield f"    with     {env}"
    for unknown in host["open"]:
        yield f"  not known  {unknown}"
