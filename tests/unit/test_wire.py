"""The wire format: what is written can be read, and nothing else is let through."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from kuiper.errors import ProtocolError
from kuiper.link import wire
from kuiper.link.base import Channel
from kuiper.link.wire import Header

GRADIENT = Channel("gradient", 1, 6, columns=("loss", "samples"))
MODEL = Channel("model", 2, 6, dtype=torch.bfloat16, shared=True)
TICK = Channel("tick", 3, 0)
BLOCK = np.array([3, 4, 5, 9], np.uint32)


def good(channel: Channel, nodes: int = 2, step: int = 7) -> Header:
    rows = 1 if channel.shared else nodes
    length = wire.frame_bytes(channel, nodes, rows) - wire.HEADER_BYTES
    return Header(channel.number, wire.dtype_code(channel), step, nodes, rows, length)


@pytest.mark.parametrize("channel", [GRADIENT, MODEL, TICK], ids=lambda channel: channel.name)
def test_what_is_encoded_decodes(channel: Channel) -> None:
    nodes = np.array([3, 5, 9], np.uint32)
    rows = torch.randn(1 if channel.shared else 3, channel.width).to(channel.dtype)
    columns = np.array([[0.1, 1], [np.nan, 2], [-0.0, 3]]) if channel.columns else None
    prefix = wire.encode(channel, 2**40, nodes, rows, columns)
    header = wire.unpack(prefix[: wire.HEADER_BYTES])
    wire.check(header, channel, BLOCK)
    assert header == good(channel, nodes=3, step=2**40)
    assert len(prefix) + len(wire.byte_view(rows)) == wire.frame_bytes(channel, 3, len(rows))
    ids, values = wire.decode_index(bytearray(prefix[wire.HEADER_BYTES :]), channel, 3)
    wire.check_nodes(ids, channel, BLOCK)
    np.testing.assert_array_equal(ids, nodes)
    assert (values is None) if columns is None else (values.tobytes() == columns.tobytes())


def test_the_header_is_pinned_byte_by_byte() -> None:
    """Two versions of kuiper must not misread each other silently."""
    assert wire.HEADER_BYTES == 32
    assert Header(1, 2, 3, 4, 5, 6).pack().hex() == (
        "6b707231" "0100" "0200" "0300000000000000" "04000000" "05000000" "0600000000000000"
    )


def test_byte_view_shares_the_tensors_memory() -> None:
    rows = torch.zeros(2, 3, dtype=torch.bfloat16)
    wire.byte_view(rows[1])[:2] = torch.ones(1, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    assert rows.tolist() == [[0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"flags": 2}, "dtype code 2, declared 1"),
        ({"step": -1}, "step -1 is negative"),
        ({"nodes": 0}, "names 0 nodes, expected 1 to 4"),
        ({"nodes": 5}, "names 5 nodes, expected 1 to 4"),
        ({"rows": 1}, "1 rows for 2 nodes, expected 2"),
        ({"length": 2**63}, f"{2**63} bytes announced, expected 88 for 2 rows"),
        ({"length": 87}, "87 bytes announced"),
    ],
)
def test_a_header_that_is_not_as_declared_is_refused(change: dict[str, int], says: str) -> None:
    with pytest.raises(ProtocolError, match=says) as caught:
        wire.check(good(GRADIENT)._replace(**change), GRADIENT, BLOCK)
    assert "channel gradient" in caught.value.message


@pytest.mark.parametrize(
    ("ids", "says"),
    [([4, 3], "not strictly increasing"), ([3, 3], "not strictly increasing"), ([3, 6], "node 6 is not"),
     ([2, 3], "node 2 is not"), ([9, 2**32 - 1], "node 4294967295 is not")],
)
def test_nodes_of_others_are_refused(ids: list[int], says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        wire.check_nodes(np.array(ids, np.uint32), GRADIENT, BLOCK)


@pytest.mark.parametrize(
    "rows",
    [torch.zeros(2, 5), torch.zeros(3, 6), torch.zeros(2, 6, dtype=torch.float64), torch.zeros(6, 2).T],
    ids=["width", "count", "dtype", "strides"],
)
def test_wrong_rows_are_not_sent(rows: torch.Tensor) -> None:
    with pytest.raises(ProtocolError, match="declared"):
        wire.encode(GRADIENT, 0, np.array([3, 4], np.uint32), rows, np.zeros((2, 2)))


def test_missing_columns_are_not_sent() -> None:
    with pytest.raises(ProtocolError, match="columns"):
        wire.encode(GRADIENT, 0, np.array([3, 4], np.uint32), torch.zeros(2, 6), None)


def test_fuzzed_headers_pass_only_if_they_are_true() -> None:
    """20,000 mutated headers: whatever passes announces exactly a frame of the channel."""
    generator = random.Random(1)
    passed = 0
    for _ in range(20_000):
        channel = generator.choice([GRADIENT, MODEL, TICK])
        data = bytearray(good(channel, nodes=generator.randint(1, 4)).pack())
        for _ in range(generator.randint(0, 3)):
            if generator.random() < 0.5:
                data[generator.randrange(len(data))] = generator.choice([0, 1, 2, 127, 128, 255])
            else:
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        try:
            header = wire.unpack(data)
            wire.check(header, channel, BLOCK)
        except ProtocolError:
            continue
        passed += 1
        assert header.nodes <= len(BLOCK) and header.rows <= len(BLOCK) and header.step >= 0
        assert header.length + wire.HEADER_BYTES == wire.frame_bytes(channel, header.nodes, header.rows)
    assert 0 < passed < 20_000
