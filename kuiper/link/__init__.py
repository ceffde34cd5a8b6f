"""What moves rows between nodes: transports and clocks behind one interface."""

from kuiper.link.base import Channel, Gathered, Link, Neighbours, Request, Traffic

__all__ = ["Channel", "Gathered", "Link", "Neighbours", "Request", "Traffic"]
