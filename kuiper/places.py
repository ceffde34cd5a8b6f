"""Where the files of datasets are: the submitter looks whether they are there, processes read them."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

from kuiper.errors import SpecError

DEFAULT_ROOT = "~/.cache/kuiper/data"
_VARIABLE = re.compile(r"\$(?:(HOME|USER)\b|\{(HOME|USER)\})")


def expanded(path: str) -> str:
    """A path with `~`, $HOME and $USER as on this machine."""
    values = {"HOME": os.path.expanduser("~"), "USER": os.environ.get("USER") or user_name()}
    return os.path.expanduser(_VARIABLE.sub(lambda found: values[found[1] or found[2]], path))


def user_name() -> str:
    """Of the user who runs this, or the number: a container may have a user whom /etc/passwd does not know."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def data_folder(root: str | None) -> Path:
    """The `root` of a dataset; null takes $KUIPER_DATA, and without it `~/.cache/kuiper/data`.

    Raises:
        SpecError: it is relative.
    """
    # An empty variable means unset, as it does for every XDG folder.
    return in_full("root", root if root is not None else os.environ.get("KUIPER_DATA") or DEFAULT_ROOT)


def in_full(parameter: str, path: str) -> Path:
    """A path that is absolute, or begins with `~` or $HOME: processes run in folders of their own.

    Raises:
        SpecError: it is relative.
    """
    full = Path(expanded(path))
    if not full.is_absolute():
        raise SpecError(
            f"dataset.{parameter}: {path!r} is relative, and processes run in folders of their own",
            f"write it in full: {full.absolute()}",
        )
    return full
