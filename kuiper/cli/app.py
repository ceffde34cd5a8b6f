"""The Typer app: its verbs, and what is shown of an error."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from io import TextIOWrapper
from typing import Annotated

import typer

import kuiper
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
from kuiper.cli.called import as_called, program
from kuiper.cli.show import print_json
from kuiper.errors import KuiperError, UsageError

CommandLineError = typer.BadParameter.__mro__[2]
"""Click's base of what is wrong with a command line; newer versions of Typer have a Click of their own."""
EPIPE = 1
"""The exit code that Typer ends with when the reader of standard output has gone; no other end of ours has it."""

app = typer.Typer(
    name="kuiper",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,  # `completion` prints it
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        print(f"kuiper {kuiper.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run one experiment description as a simulation or as a real distributed job."""


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files need not be text, nor a terminal's encoding UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name=completion.PROGRAM if completing else program(), standalone_mode=False)
    except KuiperError as error:
        code = _show_error(error)
    except CommandLineError as error:
        error.show()
        code = error.exit_code
        if "--json" in sys.argv:
            print_json({"error": error.format_message(), "remedy": "", "exit_code": code})
    except typer.Abort:  # no answer to a question
        code = _show_error(UsageError("nothing was done: there was no answer", "answer y, or use --yes"))
    except SystemExit as end:
        code = 0 if end.code == EPIPE else end.code
    except OSError as error:
        code = _show_error(KuiperError(f"{error.filename or 'this machine'}: {error.strerror or error}"))
    sys.exit(_flushed(code))


def _flushed(code: int | str | None) -> int | str | None:
    """`code`, or 0 where the reader of standard output has gone: `kuiper logs JOB | head`."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what Python flushes at its end
        if isinstance(error, BrokenPipeError):
            return 0
        return _show_error(KuiperError(f"cannot write to standard output: {error.strerror}"))
    return code


def _show_error(error: KuiperError) -> int:
    """Print it; its exit code."""
    if {"-v", "--verbose"} & set(sys.argv):
        traceback.print_exc()
    print(f"error: {as_called(str(error))}", file=sys.stderr)
    if "--json" in sys.argv:
        remedy = as_called(error.remedy)
        with suppress(OSError):  # standard output may be what failed
            print_json({"error": error.message, "remedy": remedy, "exit_code": error.exit_code})
    return error.exit_code
