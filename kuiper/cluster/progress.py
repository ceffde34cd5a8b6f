"""What a submit tells of its progress while it is at work."""

from __future__ import annotations

from typing import Protocol


class Say(Protocol):
    """Takes a line for the user; with a host, it is what that host has come to."""

    def __call__(self, line: str, host: str = "") -> None: ...


def silent(line: str, host: str = "") -> None:
    """Says nothing."""
