"""Orders in which the lowest index is first among equals, also where rounding makes equals differ.

Scores are equal by definition more often than by chance: two rows that are each other's only neighbour have
one Krum score, mixtures of the same rows one distance, rows clipped to one norm that norm. What rounding
makes of those depends on the processor; who comes first must not.
"""

from __future__ import annotations

import numpy as np

_BITS = 40


def ascending(values: np.ndarray) -> np.ndarray:
    """Indices along the last axis, smallest value first; values equal in their first 40 bits by index.

    Args:
        values: float64, no NaN.
    """
    mantissas, exponents = np.frexp(values)
    rounded = np.ldexp(np.round(np.ldexp(mantissas, _BITS)), exponents - _BITS)
    return np.argsort(rounded, axis=-1, kind="stable")
