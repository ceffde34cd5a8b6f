"""The checkpoints of one process: when they are due, what its roles put into them, which stay.

Every process keeps its last `KEPT`. That is enough without anybody saying who has what, because with
a full quorum no process finishes a checkpoint before all others have finished the one before it: a
server gathers step t + 1 only from workers that have kept step t, and peers meet at each checkpoint.
So all have the newest or the one before it, and still have the one before that, should it be damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from kuiper.errors import RecordError
from kuiper.record.atomic import REMEDY
from kuiper.record.checkpoint import load, save

KEPT = 3
SUFFIX = ".checkpoint"

Part = tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]


class Keeper:
    """Writes <folder>/<step>.checkpoint once each of this process's roles has given its part.

    Args:
        folder: of the checkpoints; made when the first is written.
        interval: steps between them; None: none is ever written.
        say: for the log; called with a text.
        unit: what one iteration is called.

    Attributes:
        step: the step that this process goes on from; 0 at the start of a run.
        roles: those of this process that have state; without any, nothing is written.
    """

    def __init__(self, folder: Path | None = None, interval: int | None = None,
                 say: Callable[[str], None] = lambda text: None, unit: str = "step") -> None:
        self.step = 0
        self.roles: frozenset[str] = frozenset()
        self._folder = folder
        self._interval = interval
        self._say = say
        self._unit = unit
        self._damaged: set[int] = set()
        self._given: dict[str, int] = {}
        self._parts: dict[str, Part] = {}
        self._saved: dict[str, Part] = {}
        self._then: Callable[[], None] | None = None
        self._wanted: int | None = None

    def ask(self, then: Callable[[], None]) -> None:
        """Write a checkpoint of the next step that ends, then call `then`; for one process with all roles."""
        self._then = then

    def due(self, role: str, step: int) -> int | None:
        """The checkpoint that the state after `step` belongs to: None when there is none to give.

        A worker that was not asked at the checkpoint's own step gives it later: its state has not changed.
        """
        if self._interval is None or role not in self.roles:
            return None
        if self._then is not None and role == "serve":
            self._wanted = step
        newest = step if step == self._wanted else step - step % self._interval
        return newest if newest > self._given.get(role, self.step) else None

    def give(self, role: str, step: int, values: Mapping[str, Any],
             tensors: Mapping[str, torch.Tensor]) -> None:
        """A role's part of the checkpoint of `step`; with the last part it is written.

        Args:
            tensors: not to be changed in place until every role has given its part.

        Raises:
            RecordError: it cannot be written.
        """
        self._given[role] = step
        self._parts[role] = (values, tensors)
        if {role for role, given in self._given.items() if given == step} < self.roles:
            return
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RecordError(f"cannot make {self._folder}: {error.strerror or error}", REMEDY) from error
        save(self._path(step), {role: said for role, (said, _) in self._parts.items()},
             {f"{role}.{name}": each
              for role, (_, state) in self._parts.items() for name, each in state.items()})
        self._parts = {}
        for old in self._steps()[KEPT:]:
            self._path(old).unlink()
        if step == self._wanted:
            self._then()

    def undamaged(self) -> list[int]:
        """Steps of the checkpoints that are whole, the newest first; the others are named in the log."""
        return [step for step in self._steps() if self.load(step) is not None]

    def load(self, step: int) -> Part | None:
        """Values by role and tensors of one checkpoint; None for a damaged one, which the log names once."""
        try:
            return load(self._path(step))
        except RecordError as error:
            if step not in self._damaged:
                self._say(f"checkpoint of {self._unit} {step}: {error.message}")
            self._damaged.add(step)
            return None

    def resume(self, step: int) -> Mapping[str, Any]:
        """Go on from `step`, with the newest checkpoint up to it; returns its values by role.

        Without one the roles start as newcomers do.
        """
        self.step = step
        for later in self._steps():
            if later > step:
                self._path(later).unlink()  # of a course that is not taken again
        for unfinished in self._folder.glob(".*.tmp"):
            unfinished.unlink()  # a kill cut it short
        whole = self.undamaged()[:1]
        if not whole:
            return {}
        if whole[0] < step:
            self._say(f"for {self._unit} {step}, the newest state that this process has is of {self._unit} {whole[0]}")
        values, tensors = self.load(whole[0])
        for role in values:
            named = {name.removeprefix(f"{role}."): tensor for name, tensor in tensors.items()
                     if name.startswith(f"{role}.")}
            self._saved[role] = values[role], named
        return values

    def saved(self, role: str) -> Part | None:
        """What the role had given, once, so that its memory is the role's own; None for a newcomer."""
        return self._saved.pop(role, None)

    def _path(self, step: int) -> Path:
        return self._folder / f"{step}{SUFFIX}"

    def _steps(self) -> list[int]:
        """Of all files, the newest first."""
        if self._folder is None:
            return []
        stems = (path.stem for path in self._folder.glob(f"*{SUFFIX}"))
        return sorted((int(stem) for stem in stems if stem.isdecimal()), reverse=True)
