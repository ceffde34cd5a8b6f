"""Learning-rate schedules: (step, steps) -> the factor that multiplies the optimiser's lr.

A factor is a pure function of the step, counted from 0, so a resumed job needs no schedule state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def constant(step: int, steps: int) -> float:
    """Always 1."""
    return 1.0


def step_decay(step: int, steps: int, *, every: int = 5, factor: float = 0.95, floor: float = 0.0) -> float:
    """factor^floor(step / every), never below floor (a fraction of lr)."""
    return max(floor, factor ** (step // every))


def multistep(step: int, steps: int, *, milestones: Sequence[int] = (), factor: float = 0.1) -> float:
    """factor to the power of the milestones that have been reached."""
    return factor ** sum(step >= milestone for milestone in milestones)


def cosine(step: int, steps: int, *, floor: float = 0.0) -> float:
    """Half a cosine from 1 at step 0 to floor (a fraction of lr) at `steps` and after.

    Loshchilov & Hutter 2017, equation 5, without restarts.
    """
    return floor + (1 - floor) * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2
