"""What a run ran on: enough to understand a number months later."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "kuiper", "torch", "torchvision", "numpy", "scikit-learn", "scipy", "hydra-core", "omegaconf",
    "PyYAML", "cryptography", "typer", "rich", "matplotlib", "wandb",
    "tensorboard",
)  # fmt: skip
VARIABLES = (
    "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_",
    "THP_MEM_ALLOC_ENABLE", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip


def environment(code: str | None = None, git: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Interpreter, machine, package versions (None: not installed), code, thread settings.

    Nothing that is described is imported, so this costs milliseconds.

    Args:
        code: the digest of the code that runs.
        git: the checkout that it was taken from.
    """
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "hostname": platform.node(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
        "code": code,
        "git": git,
        "variables": {name: os.environ.get(name) for name in VARIABLES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())
