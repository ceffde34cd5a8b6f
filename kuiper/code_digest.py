"""The digest of code: the submitter computes it of what it packs, processes of what they run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

MANIFEST = "files.json"
"""Beside a snapshot's files: their names. What modules or Python write there later is not among them."""


def digest_of(contents: Mapping[str, bytes]) -> str:
    """Of names and contents, sorted by name; the same code has the same digest wherever it lies."""
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(f"{name}\0{len(contents[name])}\0".encode(errors="surrogateescape") + contents[name])
    return digest.hexdigest()[:20]


def contents_of(folder: Path) -> dict[str, bytes]:
    """The files of a snapshot by their names, as far as they are in its folder."""
    try:
        names = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return {}
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def running() -> str | None:
    """The digest of the snapshot that this process runs; None where it runs something else, such as a checkout."""
    contents = contents_of(Path(__file__).resolve().parent.parent)
    return digest_of(contents) if contents else None
