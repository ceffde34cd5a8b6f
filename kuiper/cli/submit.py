"""kuiper submit: start a job, and follow it if asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from kuiper.cli.options import (
    AsJson,
    Follow,
    Override,
    Quiet,
    Simulate,
    SpecFile,
    Verbose,
)

if TYPE_CHECKING:
    from kuiper.cluster.states import JobStatus
    from kuiper.cluster.store import Job

DETACHED = 101


def submit(
    path: SpecFile,
    override: Override = [],  # noqa: B006 - Typer copies it
    simulate: Simulate = False,
    follow: Follow = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Start a job and return; it needs this terminal no more. Ctrl-C while following only detaches."""
    from kuiper.cli.show import note
    from kuiper.cluster.launch import submit as submit_job
    from kuiper.cluster.spec import load

    spec = load(path, override, simulate)
    job = submit_job(spec, simulate or spec.mode == "simulate", (lambda line: None) if quiet else note)
    show(job, follow, as_json, quiet)


def show(job: Job, follow: bool, as_json: bool, quiet: bool) -> None:
    """Say what was started; follow it if asked to, and then exit with its code."""
    from kuiper.cli.show import job_json, print_json
    from kuiper.cluster.store import observe

    if follow:
        status, detached = _follow(job, quiet)
    else:
        status, detached = observe([job], detailed=True)[0], False
    if as_json:
        print_json(job_json(job, status))
    elif not follow or detached:
        _say_submitted(job, quiet, detached)
    else:
        _say_ended(job, status, quiet)
    if follow:
        raise typer.Exit(DETACHED if detached else status.state.exit_code)


def _follow(job: Job, quiet: bool) -> tuple[JobStatus, bool]:
    """The last status seen, and whether the user left before the end."""
    from kuiper.cli import follow
    from kuiper.cluster.store import observe

    try:
        return follow.follow(job, follow.view(quiet)), False
    except KeyboardInterrupt:
        return observe([job], detailed=True)[0], True


def _say_submitted(job: Job, quiet: bool, detached: bool) -> None:
    from kuiper.cli.show import program, short

    if quiet:
        print(job.run_id)
        return
    if detached:
        print("\ndetached: the job goes on")
    print(f"{job.job_name}  {job.run_id}\n{short(job.run_dir)}")
    name = job.job_name
    verbs = {f"status {name} -w": "watch it", f"logs {name} -f": "read its log", f"stop {name}": "stop it"}
    for verb, does in verbs.items():
        print(f"  {program()} {verb:<{len(name) + 12}}{does}")


def _say_ended(job: Job, status: JobStatus, quiet: bool) -> None:
    from kuiper.cli.show import evaluation_text, program, short
    from kuiper.cluster.agent import read

    took = ""
    if status.processes and status.processes[0].ended:
        took = f" in {status.processes[0].ended - job.created:.1f} s"
    print(f"{job.job_name}  {job.run_id}  {status.state}{took}")
    if status.reason:
        print(f"  {status.reason}")
    remedy = (read(str(job.paths.process(job.processes[0].name).folder / "error.json")) or {}).get("remedy")
    if remedy and status.state.exit_code == 100:
        print(f"  -> {remedy}")
    if status.evaluation:
        print(f"  step {status.evaluation.get('step')}: {evaluation_text(status.evaluation)}")
    rank_0 = job.paths.process(job.processes[0].name)
    if rank_0.training_perf.exists():
        print(f"  training_perf: {short(rank_0.training_perf)}")
    if status.state.exit_code == 100 and not quiet:
        print(f"  {program()} logs {job.run_id} --errors")
