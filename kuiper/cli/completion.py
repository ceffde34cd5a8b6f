"""kuiper completion: verbs, options and job names at the press of Tab."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from kuiper.cli.options import AsJson, Quiet, Verbose

PROGRAM = "kuiper"
VARIABLE = "_KUIPER_COMPLETE"
"""Typer looks for it: kuiper run with it completes a command line instead."""


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="bash|zsh|fish", help="The shell that will read it.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Print what makes a shell complete kuiper's verbs, options and job names.

    bash: source <(kuiper completion bash); zsh: the same, after compinit;
    fish: kuiper completion fish | source.
    """
    from typer.completion import get_completion_script

    script = get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value)
    print(json.dumps({"shell": shell.value, "script": script}) if as_json else script)
