"""The Typer app: its verbs, and what is shown of an error."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from kuiper.cli import (
    account,
    clean,
    collect,
    completion,
    doctor,
    init,
    logs,
    plan,
    plot,
    resume,
    retry,
    rules,
    status,
    stop,
    submit,
    trust,
    wait,
)
from kuiper.cli import list as list_verb
from kuiper.cli.options import AsJson, Override, Quiet, Servers, Simulate, SpecFile, Verbose, Workers
from kuiper.cli.show import print_json
from kuiper.errors import KuiperError

app = typer.Typer(
    name="kuiper",
    help="Run one experiment description as a simulation or as a real distributed job.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,  # `completion` prints it
    rich_markup_mode=None,
)


def check(
    path: SpecFile,
    override: Override = [],  # noqa: B006 - Typer copies it
    servers: Servers = None,
    workers: Workers = None,
    simulate: Simulate = False,
    build: Annotated[bool, typer.Option(
        "--build", help="Also build it once here, with torch: data, model, one gradient, the rule.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List every problem in a job spec; start nothing."""
    from kuiper.cli.check import check as check_spec

    raise typer.Exit(check_spec(path, override, simulate, as_json, servers, workers, build))


VERBS = {
    "init": init.init, "check": check, "plan": plan.plan, "doctor": doctor.doctor, "trust": trust.trust,
    "submit": submit.submit, "list": list_verb.list_jobs, "status": status.status, "logs": logs.logs,
    "wait": wait.wait, "stop": stop.stop, "collect": collect.collect, "resume": resume.resume,
    "retry": retry.retry, "show": account.show, "plot": plot.plot, "clean": clean.clean,
    "completion": completion.completion, "rules": rules.rules, "attacks": rules.attacks,
}  # fmt: skip
for name, verb in VERBS.items():
    app.command(name)(verb)


def run() -> None:
    """Run the app; an error of ours becomes a message, a remedy and an exit code."""
    completing = completion.VARIABLE in os.environ
    if completing:
        from typer.completion import completion_init

        completion_init()
    try:
        app(prog_name=completion.PROGRAM if completing else None)
    except KuiperError as error:
        _show_error(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `kuiper logs JOB | head`
        sys.stderr.close()
        sys.exit(0)


def _show_error(error: KuiperError) -> None:
    if {"-v", "--verbose"} & set(sys.argv):
        traceback.print_exc()
    print(f"error: {error}", file=sys.stderr)
    if "--json" in sys.argv:
        print_json({"error": error.message, "remedy": error.remedy, "exit_code": error.exit_code})
