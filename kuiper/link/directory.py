"""Who listens where, as rank 0 hands it out: fixed-size entries of rank, port, IP version, address."""

from __future__ import annotations

import ipaddress
import struct

from kuiper.errors import ProtocolError

_ENTRY = struct.Struct("<IHH16s")


def longest(processes: int) -> int:
    """Bytes that a directory of so many processes takes at most."""
    return _ENTRY.size * processes


def write(endpoints: dict[int, tuple[str, int]]) -> bytes:
    """Address and port by rank; those without a port do not listen and are left out."""
    data = b""
    for rank, (host, port) in endpoints.items():
        if port:
            address = ipaddress.ip_address(host)
            data += _ENTRY.pack(rank, port, address.version, address.packed.ljust(16, b"\0"))
    return data


def read(data: bytes, processes: int) -> dict[int, tuple[str, int]]:
    """Address and port by rank.

    Raises:
        ProtocolError: it is not a directory of ranks 1..processes-1.
    """
    if len(data) % _ENTRY.size:
        raise ProtocolError(f"a directory of {len(data)} bytes, not a multiple of {_ENTRY.size}")
    endpoints = {}
    for rank, port, version, packed in _ENTRY.iter_unpack(data):
        if not 0 < rank < processes or version not in (4, 6):
            raise ProtocolError(f"a directory names rank {rank} of {processes}, IP version {version}")
        endpoints[rank] = (str(ipaddress.ip_address(packed[:4] if version == 4 else packed)), port)
    return endpoints
