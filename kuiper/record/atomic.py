"""Files that are either the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kuiper.errors import RecordError

REMEDY = "free space on that disk, or choose a log_path that this user may write to"


def write_bytes(path: Path, data: bytes, mode: int = 0o644) -> None:
    """As `write_parts`, of one part."""
    write_parts(path, [data], mode)


def write_parts(path: Path, parts: Sequence[bytes | memoryview], mode: int = 0o644) -> None:
    """Write a temporary file in the same folder, sync it, rename it over `path`.

    Args:
        path: the file to create or replace; its folder must exist.
        parts: the whole new content, in order.
        mode: permissions of the new file, less the umask.

    Raises:
        RecordError: the disk is full, the folder is read-only or missing; an earlier file is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            _write_and_sync(temporary, parts, mode)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}", REMEDY) from error


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """`write_bytes` of indented JSON, for people who open the file.

    Raises:
        RecordError: as `write_bytes`.
    """
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(), mode)


def write_reserved_json(path: Path, value: Any) -> None:
    """`write_json` for a disk that is full: into the room that the process's agent has reserved for `path`.

    Raises:
        RecordError: none is reserved, or it is too little.
    """
    reserved = path.with_name(f"{path.name}.reserved")
    try:
        with open(reserved, "r+b", buffering=0) as file:
            room = os.fstat(file.fileno()).st_size
            data = json.dumps(value).encode()
            if len(data) > room:
                raise OSError(f"{len(data)} bytes, room for {room}")
            file.write(data.ljust(room))
            os.fsync(file.fileno())
        os.replace(reserved, path)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}", REMEDY) from error


def _write_and_sync(path: Path, parts: Sequence[bytes | memoryview], mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        for part in parts:
            view = memoryview(part)
            while view:  # an unbuffered write may take only part
                view = view[file.write(view) :]
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
