"""Learning-rate schedules: (step, steps) -> the factor that multiplies the optimiser's lr.

A factor is a pure function of the step, counted from 0, so a resumed job needs no schedule state.
Every schedule can warm up (Goyal et al. 2017): over the first `warmup` steps its factor is multiplied
by 1/warmup, 2/warmup, ..., 1. The schedule itself runs on beneath, so milestones keep their places.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def constant(step: int, steps: int, *, warmup: int = 0) -> float:
    """Always 1, once warm."""
    return _ramp(step, warmup)


def step_decay(
    step: int, steps: int, *, every: int = 5, factor: float = 0.95, floor: float = 0.0, warmup: int = 0
) -> float:
    """factor^floor(step / every), never below floor (a fraction of lr)."""
    return _ramp(step, warmup) * max(floor, factor ** (step // every))


def multistep(
    step: int, steps: int, *, milestones: Sequence[int] = (), factor: float = 0.1, warmup: int = 0
) -> float:
    """factor to the power of the milestones that have been reached."""
    return _ramp(step, warmup) * factor ** sum(step >= milestone for milestone in milestones)


def exponential(
    step: int, steps: int, *, factor: float = 0.99, floor: float = 0.0, warmup: int = 0
) -> float:
    """factor^step, never below floor (a fraction of lr)."""
    return _ramp(step, warmup) * max(floor, factor**step)


def polynomial(step: int, steps: int, *, power: float = 1.0, floor: float = 0.0, warmup: int = 0) -> float:
    """(1 - step / steps)^power, scaled to fall from 1 to floor (a fraction of lr) at `steps` and after."""
    return _ramp(step, warmup) * (floor + (1 - floor) * (1 - min(step / steps, 1.0)) ** power)


def cosine(step: int, steps: int, *, floor: float = 0.0, warmup: int = 0) -> float:
    """Half a cosine from 1 at step 0 to floor (a fraction of lr) at `steps` and after.

    Loshchilov & Hutter 2017, equation 5, without restarts.
    """
    return _ramp(step, warmup) * (floor + (1 - floor) * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2)


def _ramp(step: int, warmup: int) -> float:
    return 1.0 if step >= warmup else (step + 1) / warmup
