"""The command as the user called it, for messages that name one."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

_COMMAND = re.compile(r"`kuiper (?=[a-z-])")
"""How messages name a command, wherever they come from: `kuiper stop JOB`, in backquotes."""


def program() -> str:
    """The words that run us: "kuiper", ".venv/bin/python manager.py", "python -m kuiper.cli"."""
    script = sys.argv[0]
    name = Path(script).name
    if name == "kuiper":
        return name if (found := shutil.which(name)) and Path(found).samefile(script) else shlex.quote(script)
    typed = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    if name == "manager.py" and len(typed) > 1 or typed[-2:] == ["-m", "kuiper.cli"]:
        return shlex.join(typed)
    return "kuiper"


def as_called(text: str) -> str:
    """`text` with its `kuiper VERB` in the words of the user."""
    return _COMMAND.sub(lambda _: f"`{program()} ", text)
