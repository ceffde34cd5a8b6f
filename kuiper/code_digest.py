"""The digest of code: the submitter computes it of what it packs, processes of what they run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

_DIGEST = re.compile(r"[0-9a-f]{20}\Z")
BYTECODE = "__pycache__"


def digest_of(contents: Mapping[str, bytes]) -> str:
    """Of names and contents, sorted by name; the same code has the same digest wherever it lies."""
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(f"{name}\0{len(contents[name])}\0".encode(errors="surrogateescape") + contents[name])
    return digest.hexdigest()[:20]


def contents_of(folder: Path) -> dict[str, bytes]:
    """Every file below a snapshot's folder by its name there; bytecode, which processes add, is not among them."""
    files = (path for path in folder.rglob("*") if BYTECODE not in path.parts and path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def running() -> str | None:
    """The digest of the snapshot that this process runs; None where it runs something else, such as a checkout."""
    folder = Path(__file__).resolve().parent.parent
    return digest_of(contents_of(folder)) if _DIGEST.match(folder.name) else None
