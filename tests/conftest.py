"""Fixtures for every test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """As jobs run by default; two spinning OpenMP threads starve a busy machine."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that holds MNIST/raw: $KUIPER_DATA, or shared/data beside the repository."""
    root = Path(os.environ.get("KUIPER_DATA") or REPOSITORY.parent / "shared" / "data").absolute()
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST/raw in {root}; set KUIPER_DATA to the folder that holds it")
    return root
