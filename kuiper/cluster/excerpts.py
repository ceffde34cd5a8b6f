"""What of a log tells about errors: each with its whole traceback, and some lines around it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence

from kuiper.cluster.logs import TRACEBACK, Line

AROUND = 3
"""Lines shown before and after an error."""
_BEGINS = re.compile(rf"[ |+]*(Exception Group )?{TRACEBACK}|Fatal Python error")
_CHAINS = "During handling of the above exception", "The above exception was the direct cause"


class Errors:
    """Picks the errors from one process's log, which may come in parts.

    A traceback goes on to the first line that is neither indented nor empty, the error itself, and over the
    exceptions that it is chained to.

    Attributes:
        found: how many excerpts there were so far.
    """

    def __init__(self) -> None:
        self.found = 0
        self._before: deque[Line] = deque(maxlen=AROUND)
        self._inside = False
        """A traceback has begun, and its error has not come yet."""
        self._after = 0
        """Lines that are still shown."""

    def pick(self, lines: Iterable[Line]) -> list[list[Line]]:
        """Excerpts of these lines, in order; lines that are next to each other are in one."""
        found: list[list[Line]] = []
        shown = False
        for line in lines:
            if self._belongs(line) or line.is_error:
                self._after = AROUND
            elif self._after:
                self._after -= 1
            else:
                self._before.append(line)
                shown = False
                continue
            if not shown:
                found.append([*self._before])
                self.found += 1
                self._before.clear()
            found[-1].append(line)
            shown = True
        return found

    def _belongs(self, line: Line) -> bool:
        """Whether the line is part of a traceback."""
        text = line.text
        if _BEGINS.match(text) or text.startswith(_CHAINS):
            self._inside = True
            return True
        inside = self._inside
        if inside and line.record is None and text[:1] not in ("", " ", "\t"):
            self._inside = False
        return inside


def merged_errors(parts: Sequence[list[list[Line]]]) -> list[list[Line]]:
    """The excerpts of several processes, the earliest error first; those of one process keep their order."""
    excerpts = [excerpt for part in parts for excerpt in part]
    return sorted(excerpts, key=lambda excerpt: next((one.time or 0.0 for one in excerpt if one.is_error),
                                                     excerpt[-1].time or 0.0))
