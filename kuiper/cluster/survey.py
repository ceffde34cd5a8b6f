"""What a host has, asked in one command."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster import agent, probe
from kuiper.cluster.agent import PROCESS_MARKER, RUN_MARKER, with_setup
from kuiper.cluster.host import Host
from kuiper.errors import HostError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

Facts = dict[str, Any]
"""What probe.py prints, and `skew`: seconds that the host's clock is ahead, give or take `asked` seconds."""

TIMEOUT, SETUP_TIMEOUT, ENDING = 20.0, 60.0, 8.0
PICK = r"""
replaced() {  # in $1, the variable $2 by $3
  case $1 in
    *"\${$2}"*) replaced "${1%%"\${$2}"*}$3${1#*"\${$2}"}" "$2" "$3" ;;
    *"\$$2"*) replaced "${1%%"\$$2"*}$3${1#*"\$$2"}" "$2" "$3" ;;
    *) printf %s "$1" ;;
  esac
}
source=$1 folder=$2 depth=$3 file=$4 agent=$5 seconds=$6 count=$7 found=; shift 7
while [ $count -gt 0 ]; do
  python=$1 count=$((count - 1)); shift
  case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
  case $python in *'$'*)
    python=$(replaced "$python" HOME "$HOME"); python=$(replaced "$python" USER "${USER:-$(id -un)}") ;;
  esac
  [ -n "$found" ] || found=$(command -v -- "$python")
done
[ -n "$found" ] || exit 9
[ $# -eq 0 ] || set -- "$found" -I -c "$agent" trial "$seconds" "$@"
exec "$@" "$found" -c "$source" "$found" "$folder" "$depth" "$file"
"""
"""The setup commands follow; then what they have made of the environment is what the interpreter runs in. What they
leave running is ended by the agent that runs them."""
NONE_FOUND = 9


def survey(spec: Spec, host: Host, folder: str, file: str = "", thorough: bool = False, code: str = "") -> Facts:
    """Ask a host as its processes would run: after the setup commands, with the interpreter that is theirs.

    That is the spec's for this host; without one, that which the setup commands put first on PATH; if they do not,
    the submitter's own where it exists there, else python3.

    Args:
        folder: kuiper's, as in the spec.
        file: to look for below it.
        thorough: import torch and kuiper, too, which takes seconds.
        code: the folder to import kuiper from.

    Raises:
        HostError: it cannot be reached, has no such interpreter, or a setup command fails.
    """
    given = spec.python_of(host.name)
    wanted = [given] if given else [sys.executable, "python3"]
    source, depth = Path(probe.__file__).read_text(), "thorough" if thorough else "quick"
    env = {name: os.environ[name] for name in spec.secrets if name in os.environ}
    env |= {RUN_MARKER: f"survey-{secrets.token_hex(4)}", PROCESS_MARKER: "survey"}
    env |= {"PYTHONPATH": code, "PYTHONSAFEPATH": "1"} if code else {}
    patience = TIMEOUT + (probe.SECONDS if thorough else 0) + (SETUP_TIMEOUT if spec.setup_commands else 0)
    words = ["sh", "-c", PICK, "sh", source, folder, depth, file, Path(agent.__file__).read_text(), f"{patience:g}",
             str(len(wanted)), *wanted, *with_setup(spec.setup_commands, [], choose=not given)]
    before = time.time()
    late = HostError(f"{host.name}: it did not answer within {patience:g} s after setup_commands",
                     "do they come to an end, and ask for no input?")
    try:
        done = host.run(words, patience + ENDING, env)
    except HostError as error:
        if not spec.setup_commands or "took longer" not in error.message:
            raise
        raise late from error
    if done.code == agent.OVERDUE:
        raise late
    asked = time.time() - before
    if done.code == NONE_FOUND:
        raise HostError(f"{host.name}: there is no interpreter {wanted[-1]}",
                        "say which: {host: ..., python: /path/to/python}")
    try:
        facts: Facts = done.answer()
    except ValueError:
        said = (done.err or done.out).strip()[-500:]
        if "setup command failed: " in done.err:
            raise HostError(f"{host.name}: {said}", "correct setup_commands: they run in bash there, by themselves "
                                                    "and before every process") from None
        raise HostError(f"{host.name}: {wanted[0]} cannot be asked what is there: {said}",
                        "log in by hand and try it") from None
    return {**facts, "skew": facts["time"] - before - asked / 2, "asked": asked / 2}


def contained(python: str, setup: Sequence[str], argv: Sequence[str], choose: bool, seconds: float) -> list[str]:
    """A command after the setup commands, for `seconds` at most; nothing that they start outlives it.

    Args:
        python: the interpreter that watches over them.
        choose: whether they may choose the interpreter of argv, see `agent.with_setup`.
    """
    if not setup:
        return list(argv)
    return [python, "-I", "-c", Path(agent.__file__).read_text(), "trial", f"{seconds:g}",
            *with_setup(setup, argv, choose)]
