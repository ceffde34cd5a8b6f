"""The code that a job runs, and what it was submitted on."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import kuiper

PACKAGES = ("kuiper", "torch", "torchvision", "numpy", "scikit-learn", "hydra-core", "cryptography")


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


def environment() -> dict[str, Any]:
    """The submitter's interpreter, machine and versions of packages (None: not installed); imports none."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "hostname": platform.node(),
        "cores": len(os.sched_getaffinity(0)),
        "code": str(local_code().folder),
        "packages": {name: _version(name) for name in PACKAGES},
        "argv": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
