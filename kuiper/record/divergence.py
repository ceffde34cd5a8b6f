"""Divergence of a run: the first step at which its loss or its model means nothing any more.

`on_nan` is about rows: a node's row or loss that is not finite is left out, or ends the job, and the run may be
none the worse for it. `on_divergence` is about the run: what is left after that has failed to train.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FACTOR = 1000.0
"""A loss above so many times the larger of 1 and the first loss counts as diverged."""
REMEDY = ("lower optimizer.lr, or warm it up with a schedule; with Byzantine nodes use a robust aggregator; with "
          "row_dtype: float16 use bfloat16, which does not overflow at 65504")


class Divergence:
    """Looks at every loss and model of a run, and keeps the first step at which one diverged.

    It stays diverged even if a later loss is small again.

    Attributes:
        step: the first step or round; None while there is none.
        reason: what was seen there, for people.
    """

    def __init__(self) -> None:
        self.step: int | None = None
        self.reason = ""
        self._first: float | None = None

    def look(self, step: int, loss: float | None = None, name: str = "training loss", fault: str = "") -> bool:
        """Take note of what a step recorded.

        Args:
            loss: a mean over honest nodes or test samples; None where there is none. The first one that is
                given is what later ones are compared with.
            name: of the loss.
            fault: what is wrong with the model; "" for nothing.
        Returns:
            Whether the run diverged at this step, and had not before.
        """
        if self.step is not None:
            return False
        if self._first is None:
            self._first = loss
        self.reason = fault or self._fault(loss, name)
        if self.reason:
            self.step = step
        return bool(self.reason)

    def _fault(self, loss: float | None, name: str) -> str:
        if loss is None:
            return ""
        if not math.isfinite(loss):
            return f"the {name} is {loss}"
        if loss > FACTOR * max(1.0, self._first):
            most = f"{FACTOR:g} times the larger of 1 and the first, {self._first:.3g}"
            return f"the {name} is {loss:.3g}, more than {most}"
        return ""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"step": self.step, "reason": self.reason, "first": self._first}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` said."""
        self.step, self.reason, self._first = state["step"], state["reason"], state["first"]
