"""Small files that several commands read and write at once: whole or not at all, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kuiper.errors import ConflictError, KuiperError

_REMEDY = "free space there, or choose a place that this user may write to"


def write_new(path: Path, data: bytes) -> None:
    """Create a file.

    Raises:
        ConflictError: there is one already.
        KuiperError: the place is full or read-only.
    """
    try:
        with open(path, "xb") as file:
            file.write(data)
    except FileExistsError:
        raise ConflictError(f"{path} is there already", "give another path, or remove it first") from None
    except OSError as error:
        raise KuiperError(f"cannot write {path}: {error.strerror or error}", _REMEDY) from error


def write_bytes(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Create or replace a file: written under another name, synced, renamed.

    Raises:
        KuiperError: the place is full, read-only or missing; an earlier file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise KuiperError(f"cannot write {path}: {error.strerror or error}", _REMEDY) from error


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None when it is missing, unreadable or something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def make_folder(path: Path) -> Path:
    """Make a folder and those above it.

    Raises:
        KuiperError: the place is read-only, or a file is in the way.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise KuiperError(f"cannot make the folder {path}: {error.strerror or error}", _REMEDY) from error
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; it ends with this process at the latest."""
    make_folder(path.parent)
    try:
        file = open(path, "a")
    except OSError as error:
        raise KuiperError(f"cannot lock {path}: {error.strerror or error}", _REMEDY) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise KuiperError(f"cannot lock {path}: {error.strerror or error}",
                              "its file system has no locks: let XDG_STATE_HOME be a folder of this machine") from error
        yield
