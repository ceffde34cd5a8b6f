"""Where the files of a dataset are, and how they get there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from kuiper.errors import SpecError

DEFAULT_ROOT = "~/.cache/kuiper/data"


def data_folder(root: str | None) -> Path:
    """The `root` of a dataset; null takes $KUIPER_DATA, and without it `~/.cache/kuiper/data`.

    Raises:
        SpecError: it is relative.
    """
    # An empty variable means unset, as it does for every XDG folder.
    return in_full("root", root if root is not None else os.environ.get("KUIPER_DATA") or DEFAULT_ROOT)


def in_full(parameter: str, path: str) -> Path:
    """A path that is absolute, or begins with `~`: processes run in folders of their own.

    Raises:
        SpecError: it is relative.
    """
    full = Path(path).expanduser()
    if not full.is_absolute():
        raise SpecError(
            f"dataset.{parameter}: {path!r} is relative, and processes run in folders of their own",
            f"write it in full: {full.absolute()}",
        )
    return full


def fetch(folder: Path, part: str, complete: Callable[[], bool], download: Callable[[str], object]) -> None:
    """Fetch beside the goal, then rename: processes that start together never read half a file.

    Args:
        folder: made where it is not there.
        part: what appears in it, a relative path such as `MNIST/raw`.
        complete: whether it has appeared meanwhile: another process may be first.
        download: makes `part` in the folder that it is given.

    Raises:
        SpecError: it cannot be fetched, or not be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as partial:
            download(partial)
            (folder / part).parent.mkdir(exist_ok=True)
            try:
                os.rename(Path(partial) / part, folder / part)
            except OSError:
                if not complete():
                    raise
    except (OSError, RuntimeError) as error:
        raise SpecError(
            f"dataset.download: {part} could not be fetched into {folder}: {error}",
            f"check the network and the permissions of that folder, or copy {part} there by hand",
        ) from error
