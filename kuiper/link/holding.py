"""The data set that a process holds, as processes compare it when they join."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kuiper.errors import DifferentData

PARTS = {"train": "the training set", "test": "the test set"}
PART_BYTES = 16
HOLDING_BYTES = PART_BYTES * len(PARTS)
NOTHING = bytes(HOLDING_BYTES)
"""Held by a process that has loaded no data: it joins only to say that it has failed."""
SHOWN = 12
"""Digits of a digest in a message; the record has all of them."""
REMEDY = ("copy the files of one host to all, or write `allow_different_data: true` in job_conf where each process "
          "is meant to have data of its own")


@dataclass
class Holding:
    """The data of this process, and what it takes from others.

    Attributes:
        data: digests of the parts, one after the other.
        source: the data set and where it was read, for messages.
        same: whether others must hold the same.
        known: by rank, what others held when they first joined the run.
    """

    data: bytes = NOTHING
    source: str = ""
    same: bool = True
    known: dict[int, bytes] = field(default_factory=dict)

    def fits(self, rank: int, data: bytes) -> bool:
        """Whether a process may join with this data."""
        return data in (NOTHING, self.data if self.same else self.known.get(rank, data))

    def refusal(self, rank: int, name: str, data: bytes) -> str:
        """Why it may not: `name` holds `data`."""
        if self.same:
            return f"{name} holds other data: {difference(self.data, data, 'here', 'there')}"
        return f"{name} holds other data than when it first joined: {difference(self.known[rank], data, 'then', 'now')}"

    def refused(self, name: str, data: bytes) -> DifferentData:
        """The error of this process when `name`, which holds `data`, has refused it for its own."""
        compared = difference(self.data, data, "here", f"at {name}") if self.same else (
            "it is not what this process first joined with")
        return DifferentData(f"{name} did not let this process in for its data, {self.source}: {compared}", REMEDY)


def pack(digests: Mapping[str, str]) -> bytes:
    """Digests by part, in hexadecimal, as they travel."""
    return b"".join(bytes.fromhex(digests[part]) for part in PARTS)


def unpack(data: bytes) -> dict[str, str]:
    """Digests by part, in hexadecimal."""
    return {part: data[place : place + PART_BYTES].hex()
            for part, place in zip(PARTS, range(0, HOLDING_BYTES, PART_BYTES), strict=True)}


def difference(first: bytes, second: bytes, at_first: str, at_second: str) -> str:
    """The parts that differ, with the beginnings of both digests."""
    one, other = unpack(first), unpack(second)
    return ", ".join(f"{text} is {one[part][:SHOWN]} {at_first} and {other[part][:SHOWN]} {at_second}"
                     for part, text in PARTS.items() if one[part] != other[part])
