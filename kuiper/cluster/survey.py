"""What a host has, asked in one command."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from kuiper.cluster import probe
from kuiper.cluster.host import Host
from kuiper.errors import HostError

Facts = dict[str, Any]
"""What probe.py prints, and `skew`: seconds that the host's clock is ahead, give or take `asked` seconds."""

TIMEOUT = 20.0
PICK = r"""
replaced() {  # in $1, the variable $2 by $3
  case $1 in
    *"\${$2}"*) replaced "${1%%"\${$2}"*}$3${1#*"\${$2}"}" "$2" "$3" ;;
    *"\$$2"*) replaced "${1%%"\$$2"*}$3${1#*"\$$2"}" "$2" "$3" ;;
    *) printf %s "$1" ;;
  esac
}
source=$1 folder=$2 depth=$3 file=$4; shift 4
for python; do
  case $python in "~/"*) python=$HOME/${python#"~/"} ;; esac
  case $python in *'$'*)
    python=$(replaced "$python" HOME "$HOME"); python=$(replaced "$python" USER "${USER:-$(id -un)}") ;;
  esac
  found=$(command -v -- "$python") && exec "$found" -c "$source" "$found" "$folder" "$depth" "$file"
done
exit 9
"""
NONE_FOUND = 9


def survey(host: Host, folder: str, file: str = "", thorough: bool = False) -> Facts:
    """Ask a host with the spec's interpreter, else the submitter's own where it exists there, else python3.

    Args:
        folder: kuiper's, as in the spec.
        file: to look for below it.
        thorough: import torch, too, which takes seconds.

    Raises:
        HostError: it cannot be reached, or has no such interpreter.
    """
    wanted = [host.python] if host.python != sys.executable else [host.python, "python3"]
    source, depth = Path(probe.__file__).read_text(), "thorough" if thorough else "quick"
    words = ["sh", "-c", PICK, "sh", source, folder, depth, file, *wanted]
    before = time.time()
    done = host.run(words, TIMEOUT + (probe.SECONDS if thorough else 0))
    asked = time.time() - before
    if done.code == NONE_FOUND:
        raise HostError(f"{host.name}: there is no interpreter {wanted[-1]}",
                        "say which: {host: ..., python: /path/to/python}")
    try:
        facts: Facts = done.answer()
    except ValueError:
        said = (done.err or done.out).strip()[-500:]
        raise HostError(f"{host.name}: {wanted[0]} cannot be asked what is there: {said}",
                        "log in by hand and try it") from None
    return {**facts, "skew": facts["time"] - before - asked / 2, "asked": asked / 2}
