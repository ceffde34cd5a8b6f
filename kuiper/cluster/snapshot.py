"""The code that a job runs."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path

import kuiper


@dataclass(frozen=True)
class Code:
    """Where a host finds the code.

    Attributes:
        folder: that processes start in.
        python_path: for PYTHONPATH; None where the interpreter finds the package by itself.
    """

    folder: Path
    python_path: Path | None


def local_code() -> Code:
    """For this machine: the checkout or the installed package that is running, where it lies."""
    folder = Path(kuiper.__file__).resolve().parent.parent
    if folder in (Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")):
        return Code(Path.cwd(), None)
    return Code(folder, folder)
