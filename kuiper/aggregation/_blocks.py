"""Columns in blocks that stay in cache, so that a rule's temporaries stay small.

Dimension letters: d parameters.
"""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 16384


def blocks(d: int) -> Iterator[slice]:
    """Slices of at most WIDTH columns that cover 0..d-1 in order."""
    return (slice(start, min(start + WIDTH, d)) for start in range(0, d, WIDTH))
