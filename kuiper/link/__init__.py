"""What moves rows between nodes: transports and clocks behind one interface.

The names below are imported when they are first used: the control plane issues certificates with
`kuiper.link.credentials`, and must not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kuiper.link.base import Channel, Gathered, Link, Neighbours, Request, Traffic

__all__ = ["Channel", "Gathered", "Link", "Neighbours", "Request", "Traffic"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kuiper.link import base

    return getattr(base, name)
