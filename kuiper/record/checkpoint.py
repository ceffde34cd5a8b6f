"""A checkpoint on disk: named tensors and plain values in one file, checked before anything in it is used.

    8 bytes    what it is, and the version of the format
    32 bytes   SHA-256 of all that follows
    8 bytes    length of the header, little endian
    header     JSON: {"values": ..., "tensors": [[name, dtype, shape], ...]}
    tensors    their bytes, one after the other, in the header's order

Nothing is ever unpickled, and no memory is taken on the word of a header.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kuiper.errors import RecordError
from kuiper.record.atomic import write_parts

_MAGIC = b"kuiper\x02\x01"
_LENGTH = struct.Struct("<Q")
_START = len(_MAGIC) + hashlib.sha256().digest_size
_DTYPES = {name: getattr(torch, name) for name in (
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")}
_REMEDY = "delete it: the checkpoint before it is used"


def save(path: Path, values: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a checkpoint atomically.

    Args:
        values: plain builtins; floats come back with the same bits.
        tensors: of any shape and device, of a dtype that torch has a fixed size for.

    Raises:
        RecordError: it cannot be written; an earlier file of that name is unchanged.
    """
    parts, listed = [], []
    for name, tensor in tensors.items():
        listed.append([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        parts.append(memoryview(flat.view(torch.uint8).numpy()))
    header = json.dumps({"values": values, "tensors": listed}).encode()
    parts[:0] = [_LENGTH.pack(len(header)), header]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    write_parts(path, [_MAGIC, digest.digest(), *parts])


def load(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The values and tensors (on the CPU) of a checkpoint.

    Raises:
        RecordError: it cannot be read, is damaged, or is none.
    """
    try:
        data = bytearray(path.read_bytes())
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror or error}", "is it there?") from error
    if data[: len(_MAGIC)] != _MAGIC or len(data) < _START + _LENGTH.size:
        raise RecordError(f"{path} is no checkpoint of this version", _REMEDY)
    if hashlib.sha256(memoryview(data)[_START:]).digest() != data[len(_MAGIC) : _START]:
        raise RecordError(f"{path} is damaged: its checksum does not fit", _REMEDY)
    (length,) = _LENGTH.unpack_from(data, _START)
    begin = _START + _LENGTH.size
    try:
        header = json.loads(data[begin : begin + length])
        return dict(header["values"]), _tensors(data, begin + length, header["tensors"])
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise RecordError(f"{path} is no checkpoint: {error}", _REMEDY) from error


def _tensors(data: bytearray, place: int, listed: list[list[Any]]) -> dict[str, torch.Tensor]:
    """Raises ValueError when what is listed is not exactly what follows from `place` on."""
    tensors = {}
    for name, kind, shape in listed:
        dtype = _DTYPES[kind]
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"{name} has the shape {shape}")
        count = math.prod(shape)
        end = place + count * dtype.itemsize
        if end > len(data):
            raise ValueError(f"{name} ends after byte {end} of {len(data)}")
        flat = torch.empty(count, dtype=dtype)  # aligned, as a place in the file may not be
        if count:
            flat.copy_(torch.frombuffer(data, dtype=dtype, count=count, offset=place))
        tensors[str(name)] = flat.reshape(shape)
        place = end
    if place != len(data):
        raise ValueError(f"{len(data) - place} bytes too many")
    return tensors
