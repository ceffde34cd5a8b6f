"""How the files of a dataset get to where they are read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from kuiper.errors import SpecError


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
