"""Checkpoint files: damage anywhere is seen, nothing is believed, and which of them stay."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch

from kuiper.errors import RecordError
from kuiper.record import atomic
from kuiper.record.checkpoint import load, save
from kuiper.record.keeper import KEPT, Keeper

VALUES = {"serve": {"nodes": [4], "times": [0.1 + 0.2], "record": {"loss": float("inf")}}}
TENSORS = {
    "theta": torch.tensor([[1.5, -0.0], [float("nan"), 3e-45]]), "step": torch.tensor(7),
    "mask": torch.tensor([True, False, True]), "half": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.empty(0, 9),
}


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def crafted(path: Path, header: bytes, tensors: bytes = b"", length: int | None = None) -> Path:
    """A file whose checksum is right, whatever it holds."""
    body = struct.pack("<Q", len(header) if length is None else length) + header + tensors
    path.write_bytes(b"kuiper\x02\x01" + hashlib.sha256(body).digest() + body)
    return path


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "5.checkpoint"
    save(path, VALUES, TENSORS)
    values, tensors = load(path)
    assert values == VALUES and list(tensors) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert bits(tensors[name]) == bits(tensor)


def test_damage_at_any_byte_and_a_cut_anywhere_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "5.checkpoint"
    save(path, VALUES, TENSORS)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(RecordError):
            load(path)
        path.write_bytes(whole[:place])
        with pytest.raises(RecordError):
            load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(RecordError):
        load(path)


@pytest.mark.parametrize("listed", [
    [["x", "float32", [2**61]]], [["x", "float32", [-1]]], [["x", "float32", [2**40, 2**40]]],
    [["x", "float32", [1.0]]], [["x", "float32", [True]]], [["x", "float32", 1]], [["x", "object", [1]]],
    [["x", ["float32"], [1]]], [["x", "float32", []]], [["x", "float32", [3]]],
    [["x", "float32", [0, 2**70]]],
    [["x"]], [7], 7, None, {},
])  # fmt: skip
def test_a_header_is_not_believed(listed: object, tmp_path: Path) -> None:
    header = json.dumps({"values": {}, "tensors": listed}).encode()
    with pytest.raises(RecordError, match="is no checkpoint"):
        load(crafted(tmp_path / "x", header, bytes(8)))


@pytest.mark.parametrize("header", [
    b"", b"[]", b"{}", b"7", b"\xff", b"[" * 100_000, b'{"values": 7, "tensors": []}',
])  # fmt: skip
@pytest.mark.parametrize("length", [None, 0, 2**63, 2**64 - 1])
def test_nor_is_its_length(header: bytes, length: int | None, tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        load(crafted(tmp_path / "x", header, b"", length))


def test_a_write_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "5.checkpoint"
    save(path, VALUES, TENSORS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(RecordError, match="No space left"):
        save(path, {}, {})
    assert load(path)[0] == VALUES and [each.name for each in tmp_path.iterdir()] == [path.name]
    with pytest.raises(RecordError):
        load(tmp_path / "missing")


def keeper(folder: Path, said: list[str] | None = None) -> Keeper:
    made = Keeper(folder / "checkpoint", 2, (said if said is not None else []).append)
    made.roles = frozenset({"serve", "work"})
    return made


def give(kept: Keeper, role: str, step: int) -> None:
    due = kept.due(role, step)
    if due is not None:
        kept.give(role, due, {"of": role}, {"x": torch.full((2,), float(step))})


def test_a_checkpoint_waits_for_every_role_and_the_last_ones_stay(tmp_path: Path) -> None:
    kept = keeper(tmp_path)
    give(kept, "serve", 2)
    assert kept.undamaged() == []
    for step in range(1, 12):
        give(kept, "serve", step)
        give(kept, "work", step)
    assert kept.undamaged() == [10, 8, 6] and len(kept.undamaged()) == KEPT
    assert kept.due("work", 13) == 12 and kept.due("work", 11) is None and kept.due("other", 12) is None


def test_one_may_be_asked_for_between_two(tmp_path: Path) -> None:
    kept, done = keeper(tmp_path), []
    give(kept, "serve", 1)
    kept.ask(lambda: done.append(kept.undamaged()))
    give(kept, "work", 1)  # the server's part of that step was not taken
    assert not done
    give(kept, "serve", 3)
    give(kept, "work", 3)
    assert done == [[3]]


def test_resume_takes_the_newest_undamaged_one_and_forgets_later_ones(tmp_path: Path) -> None:
    said: list[str] = []
    kept = keeper(tmp_path)
    for step in (2, 4, 6):
        give(kept, "serve", step)
        give(kept, "work", step)
    path = tmp_path / "checkpoint" / "6.checkpoint"
    path.write_bytes(path.read_bytes()[:-3])
    (tmp_path / "checkpoint" / "notes.checkpoint").write_text("not ours")
    again = keeper(tmp_path, said)
    assert again.undamaged() == [4, 2] and len(said) == 1 and "6" in said[0] and "checksum" in said[0]
    again.resume(4)
    assert again.step == 4 and not path.exists()
    values, tensors = again.saved("work")
    assert values == {"of": "work"} and tensors["x"].tolist() == [4.0, 4.0]
    assert again.due("serve", 4) is None and again.due("serve", 6) == 6

    behind = keeper(tmp_path, said)
    behind.resume(7)  # a process that was gone when the others kept step 7
    assert behind.step == 7 and behind.saved("work")[1]["x"].tolist() == [4.0, 4.0] and "step 4" in said[-1]
    fresh = keeper(tmp_path)
    fresh.resume(0)
    assert fresh.saved("serve") is None and fresh.undamaged() == []
