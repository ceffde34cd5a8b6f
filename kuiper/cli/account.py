"""kuiper show: what a run was, or what differs between two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from kuiper.cli.options import AsJson, JobKey, Quiet, Verbose, job_names

FILES_SHOWN = 20


def show(
    job: JobKey,
    other: Annotated[
        str | None,
        typer.Argument(metavar="[B]", help="Another job, to compare with.", autocompletion=job_names),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a run's configuration, code, environment and result; of two runs, what differs.

    --json: {"runs": [one or two], "differences": null, or what differs}.

    What ran on other hosts is read from what `collect` brought. -q leaves out the configuration of a single
    run. Of several seeds the first is shown: give a job's own name or a run id for another.
    """
    from kuiper.cli.show import note, print_json
    from kuiper.cluster.account import account, differences
    from kuiper.cluster.hostnames import LOCAL
    from kuiper.cluster.store import find, observe

    found = [find(key)[0] for key in (job, other) if key is not None]
    statuses = observe(found, detailed=True)
    accounts = [account(one, status) for one, status in zip(found, statuses, strict=True)]
    for each, one in zip(found, accounts, strict=True):
        if one["environment"] is None:
            away = each.site(each.processes[0]).address.host != LOCAL
            note(f"{each.job_name} {each.run_id}: its environment is not " + (
                f"here: `kuiper collect {each.run_id}` brings it" if away
                else "on record: its first process writes it when training begins"))
    if as_json:
        between = differences(*accounts) if other is not None else None
        print_json({"runs": accounts, "differences": between})
    elif other is None:
        print("\n".join(_one(accounts[0], quiet)))
    else:
        print("\n".join(_two(accounts, differences(*accounts))))


def _one(run: Mapping[str, Any], quiet: bool) -> Iterator[str]:
    yield f"{run['job_name']}  {run['run_id']}" + "  (smoke test)" * run["smoke"] + f"  (retry of {run['retry_of']})" * bool(run["retry_of"])
    yield run["run_dir"]
    for part in ("result",) if quiet else ("result", "config", "environment"):
        yield f"\n{part}"
        values = {**(run[part] or {})}
        values |= values.pop("non_finite", {})
        known = {key: value for key, value in values.items() if value is not None and value != ""}
        width = max(map(len, known), default=0)
        yield from (f"  {key:<{width}}  {_text(value)}" for key, value in known.items())
    yield f"\ncode: {run['code']['digest'] if run['code'] else 'not on record'}"


def _two(runs: list[dict[str, Any]], found: Mapping[str, Any]) -> Iterator[str]:
    for run, letter in zip(runs, "AB", strict=True):
        yield f"{letter}  {run['job_name']}  {run['run_id']}"
    for part in ("config", "environment", "result"):
        yield f"\n{part}" + ("" if found[part] else ": the same")
        for key, (first, second) in found[part].items():
            yield f"  {key:<28} {_text(first)}  ->  {_text(second)}"
    code = found["code"]
    says = {None: "not known: a run has no record of it", True: f"the same, {code['digests'][0]}",
            False: "  ->  ".join(map(str, code["digests"]))}
    yield f"\ncode: {says[code['same']]}"
    files = list(code["files"].items())
    yield from (f"  {change:<8} {name}" for name, change in files[:FILES_SHOWN])
    if len(files) > FILES_SHOWN:
        yield f"  and {len(files) - FILES_SHOWN} more (--json has all)"


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
