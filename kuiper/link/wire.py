"""The wire format: a fixed header, node ids, columns, raw rows. Little endian throughout.

    header   32 bytes   magic "kpr1", channel u16, flags u16, step i64, nodes u32, rows u32, length u64
    nodes               u32 x nodes, strictly increasing
    columns             f64 x nodes x len(channel.columns), a node's values side by side
    rows                rows x width elements of the channel's dtype, as they lie in memory

`length` counts the bytes after the header. `flags` is the code of the rows' dtype. Whatever arrives
is checked against what its channel declares before any memory is taken for it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import torch

from kuiper.errors import ProtocolError
from kuiper.link.base import Channel

MAGIC = b"kpr1"
HEADER = struct.Struct("<4sHHqIIQ")
HEADER_BYTES = HEADER.size
CONTROL = 0
"""The channel number of the mesh's own frames; their `flags` say which."""

DTYPE_CODES: dict[torch.dtype, int] = {
    torch.float32: 1,
    torch.float64: 2,
    torch.float16: 3,
    torch.bfloat16: 4,
    torch.int8: 5,
    torch.uint8: 6,
    torch.int32: 7,
    torch.int64: 8,
}


class Header(NamedTuple):
    """What stands before every frame.

    Attributes:
        channel: number of the channel, 0 for the mesh's own frames.
        flags: dtype code of the rows, or the kind of a control frame.
        step: step or round that the frame belongs to.
        nodes: how many node ids follow.
        rows: how many rows follow: one for a shared channel, else one per node.
        length: bytes that follow the header.
    """

    channel: int
    flags: int
    step: int
    nodes: int
    rows: int
    length: int

    def pack(self) -> bytes:
        return HEADER.pack(MAGIC, *self)


def unpack(data: bytes | bytearray | memoryview) -> Header:
    """Read the 32 bytes of a header.

    Raises:
        ProtocolError: they do not begin with the magic.
    """
    magic, *fields = HEADER.unpack(data)
    if magic != MAGIC:
        raise ProtocolError(f"a frame begins with {magic.hex()} instead of {MAGIC.hex()}")
    return Header(*fields)


def index_bytes(channel: Channel, nodes: int) -> int:
    """Bytes of the node ids and columns of a frame that names `nodes` nodes."""
    return nodes * (4 + 8 * len(channel.columns))


def frame_bytes(channel: Channel, nodes: int, rows: int) -> int:
    """Bytes of a whole frame, header included: what a link charges for it."""
    return HEADER_BYTES + index_bytes(channel, nodes) + rows * channel.row_bytes


def dtype_code(channel: Channel) -> int:
    """The code of the channel's dtype.

    Raises:
        ProtocolError: rows of that dtype cannot travel.
    """
    if channel.dtype not in DTYPE_CODES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPE_CODES)
        raise ProtocolError(f"channel {channel.name}: {channel.dtype} cannot travel", f"use one of {known}")
    return DTYPE_CODES[channel.dtype]


def check(header: Header, channel: Channel, allowed: np.ndarray) -> None:
    """Hold a header against its channel, before memory is taken for what it announces.

    Args:
        header: as it arrived.
        channel: the one that `header.channel` names.
        allowed: sorted ids of the nodes that the frame may name.

    Raises:
        ProtocolError: names the first thing that is not as declared.
    """
    where = f"channel {channel.name}"
    if header.flags != dtype_code(channel):
        raise ProtocolError(f"{where}: dtype code {header.flags}, declared {dtype_code(channel)}")
    if header.step < 0:
        raise ProtocolError(f"{where}: step {header.step} is negative")
    least = 0 if channel.shared else 1  # a model may come with nothing to do
    if not least <= header.nodes <= len(allowed):
        raise ProtocolError(f"{where}: names {header.nodes} nodes, expected {least} to {len(allowed)}")
    rows = 1 if channel.shared else header.nodes
    if header.rows != rows:
        raise ProtocolError(f"{where}: {header.rows} rows for {header.nodes} nodes, expected {rows}")
    length = frame_bytes(channel, header.nodes, header.rows) - HEADER_BYTES
    if header.length != length:
        raise ProtocolError(f"{where}: {header.length} bytes announced, expected {length} for {rows} rows")


def check_nodes(nodes: np.ndarray, channel: Channel, allowed: np.ndarray) -> None:
    """Node ids must be strictly increasing and all in `allowed` (sorted).

    Raises:
        ProtocolError: names the first id that is not.
    """
    if not np.all(nodes[1:] > nodes[:-1]):
        raise ProtocolError(f"channel {channel.name}: node ids are not strictly increasing")
    known = allowed[np.minimum(np.searchsorted(allowed, nodes), len(allowed) - 1)] == nodes
    if not np.all(known):
        raise ProtocolError(f"channel {channel.name}: node {nodes[~known][0]} is not the sender's to name")


def encode(
    channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor, columns: np.ndarray | None
) -> bytes:
    """Everything of a frame that stands before its rows: header, node ids, columns.

    Args:
        nodes: (m,) strictly increasing ids.
        rows: (m, d), or (1, d) or (d,) on a shared channel; only shape and dtype are read.
        columns: (m, len(channel.columns)) float64, or None where the channel has none.

    Raises:
        ProtocolError: the rows or columns are not what the channel declares.
    """
    count = 1 if channel.shared else len(nodes)
    in_memory = rows.is_contiguous() and rows.device.type == "cpu"
    if not in_memory or rows.dtype != channel.dtype or rows.numel() != count * channel.width:
        raise ProtocolError(
            f"channel {channel.name}: rows {tuple(rows.shape)} {rows.dtype} to send,"
            f" declared {(count, channel.width)} {channel.dtype}, contiguous and on the CPU"
        )
    values = np.empty((len(nodes), 0)) if columns is None else np.asarray(columns, "<f8")
    if values.size != len(nodes) * len(channel.columns):
        raise ProtocolError(
            f"channel {channel.name}: columns {values.shape} to send,"
            f" declared {(len(nodes), len(channel.columns))}"
        )
    length = index_bytes(channel, len(nodes)) + count * channel.row_bytes
    header = Header(channel.number, dtype_code(channel), step, len(nodes), count, length)
    return header.pack() + np.asarray(nodes, "<u4").tobytes() + values.tobytes()


def decode_index(data: bytearray, channel: Channel, nodes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Node ids (m,) uint32 and columns (m, c) float64 of a received index (None without columns)."""
    ids = np.frombuffer(data, "<u4", nodes)
    if not channel.columns:
        return ids, None
    values = np.frombuffer(data, "<f8", nodes * len(channel.columns), offset=4 * nodes)
    return ids, values.reshape(nodes, len(channel.columns)).copy()  # a copy, because they may lie unaligned


def byte_view(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor as bytes: what is sent from and received into."""
    return memoryview(tensor.detach().view(-1).view(torch.uint8).numpy())
