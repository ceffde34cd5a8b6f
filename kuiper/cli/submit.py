"""kuiper submit: start a job, and follow it if asked to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kuiper.cli.options import (
    AsJson,
    Follow,
    Override,
    Quiet,
    Servers,
    Simulate,
    SpecFile,
    Verbose,
    Workers,
)

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec
    from kuiper.cluster.states import JobStatus
    from kuiper.cluster.store import Job

DETACHED = 101


def submit(
    path: SpecFile,
    override: Override = [],  # noqa: B006 - Typer copies it
    servers: Servers = None,
    workers: Workers = None,
    simulate: Simulate = False,
    follow: Follow = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return once it runs: the default.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Only two steps or rounds.")] = False,
    needed: Annotated[bool, typer.Option("--needed", help="Unless the same has succeeded before.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Start a job, or one per seed, and return; it needs this terminal no more. Ctrl-C only detaches."""
    from kuiper.cli.progress import progress
    from kuiper.cli.show import note
    from kuiper.cluster.launch import submit as submit_jobs
    from kuiper.cluster.spec import load
    from kuiper.errors import UsageError

    if follow and detach:
        raise UsageError("--follow and --detach exclude each other", "give one; --detach is the default")
    spec = load(path, override, simulate, servers, workers)
    for line in () if quiet else spec.notes:
        note(line)
    if smoke:
        spec = spec.smoke()
    if needed:
        spec = _needed(spec, as_json, quiet)
    with progress(hidden=quiet or as_json) as say:
        jobs = submit_jobs(spec, spec.mode == "simulate", say)
    show(jobs, follow, as_json, quiet)


def _needed(spec: Spec, as_json: bool, quiet: bool) -> Spec:
    """What is left of a spec when what has succeeded before is taken out; exits with 0 if nothing is."""
    from kuiper.cli.show import divergence_text, job_json, note, print_json, short
    from kuiper.cluster.needed import differences, succeeded, without
    from kuiper.cluster.store import observe

    done = succeeded(spec)
    for job, status in zip(done.values(), observe(list(done.values())), strict=True):
        changed = differences(spec, job)
        other = f"; {changed} file{'s' * (changed != 1)} of the code changed since" if changed else ""
        other += f"; it {divergence_text(status.diverged)}" * (status.diverged is not None)
        if not quiet or other:
            note(f"{job.job_name} has succeeded as {job.run_id} in {short(job.run_dir)}{other}")
    left = without(spec, done)
    if left is not None:
        return left
    jobs = list(done.values())
    if as_json:
        print_json([job_json(job, status) for job, status in zip(jobs, observe(jobs), strict=True)])
    else:
        print("\n".join(job.run_id for job in jobs) if quiet else "nothing to do")
    raise typer.Exit(0)


def show(jobs: Sequence[Job], follow: bool, as_json: bool, quiet: bool) -> None:
    """Say what was started; follow it if asked to, one job after the other, and then exit with its code."""
    from kuiper.cli.show import job_json, print_json, worst
    from kuiper.cluster.store import observe

    detached = follow and not _follow(jobs, as_json, quiet)
    statuses = observe(jobs, detailed=True) if follow or as_json else []
    if as_json:
        print_json([job_json(job, status) for job, status in zip(jobs, statuses, strict=True)])
    elif not follow or detached:
        _say_submitted(jobs, quiet, detached)
    if follow:
        raise typer.Exit(DETACHED if detached else worst(statuses))


def _follow(jobs: Sequence[Job], as_json: bool, quiet: bool) -> bool:
    """Whether the user stayed to the end of the last."""
    from kuiper.cli.follow import follow, view
    from kuiper.cli.show import note

    try:
        for job in jobs:
            if len(jobs) > 1 and not quiet:
                note(f"{job.job_name}:")
            status = follow(job, view(quiet))
            if not as_json:
                _say_ended(job, status, quiet)
    except KeyboardInterrupt:
        return False
    return True


def _say_submitted(jobs: Sequence[Job], quiet: bool, detached: bool) -> None:
    from kuiper.cli.called import program
    from kuiper.cli.show import short

    if quiet:
        print("\n".join(job.run_id for job in jobs))
        return
    if detached:
        print("\ndetached: the job goes on" if len(jobs) == 1 else "\ndetached: the jobs go on")
    for job in jobs:
        print(f"{job.job_name}  {job.run_id}\n{short(job.run_dir)}")
    name = jobs[0].job_name if len(jobs) == 1 else jobs[0].series
    if jobs[0].smoke:  # a name means the newest run that is no smoke test
        name = jobs[0].run_id if len(jobs) == 1 else "RUN_ID"
    verbs = {f"status {name} -w": "watch it", f"logs {name} -f": "read its log", f"stop {name}": "stop it"}
    for verb, does in verbs.items():
        print(f"  {program()} {verb:<{len(name) + 12}}{does}")


def _say_ended(job: Job, status: JobStatus, quiet: bool) -> None:
    from kuiper.cli.called import as_called, program
    from kuiper.cli.show import divergence_text, evaluation_text, short
    from kuiper.cluster.agent import read
    from kuiper.cluster.resume import unit_of

    took, unit = "", unit_of(job)
    if status.processes and status.processes[0].ended and status.processes[0].started:
        took = f" in {status.processes[0].ended - status.processes[0].started:.1f} s"
    print(f"{job.job_name}  {job.run_id}  {status.state}{took}  {divergence_text(status.diverged, unit)}".rstrip())
    if status.reason:
        print(f"  {status.reason}")
    remedy = (read(str(job.paths.process(job.processes[0].name).folder / "error.json")) or {}).get("remedy")
    if remedy and status.state.exit_code == 100:
        print(f"  -> {as_called(remedy)}")
    if status.evaluation:
        print(f"  {unit} {status.evaluation.get('step')}: {evaluation_text(status.evaluation, unit)}")
    if status.diverged is not None and status.state.exit_code != 100 and not quiet:
        print(f"  why it diverged, and what to do: {program()} logs {job.run_id} --grep diverged")
    rank_0 = job.paths.process(job.processes[0].name)
    if rank_0.training_perf.exists():
        print(f"  training_perf: {short(rank_0.training_perf)}")
    if status.state.exit_code == 100 and not quiet:
        print(f"  {program()} logs {job.run_id} --errors")
