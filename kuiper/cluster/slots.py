"""How much is open at once: a bound that whoever opens something keeps without knowing of the others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol


class Closable(Protocol):
    def close(self) -> None: ...


class Slots:
    """At most `limit` things are open at once; one that nobody uses is closed for one that is wanted.

    What is closed here must be opened again by its next user. Of several, the one unused for longest goes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._users: dict[Closable, int] = {}  # of what may be open, the last used last
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def use(self, wanted: Closable) -> Iterator[None]:
        """A slot for one thing, which is not closed meanwhile; waits while all are in use."""
        with self._changed:
            while wanted not in self._users and len(self._users) >= self.limit:
                unused = next((one for one, users in self._users.items() if not users), None)
                if unused is None:
                    self._changed.wait()
                else:
                    del self._users[unused]
                    unused.close()
            self._users[wanted] = self._users.pop(wanted, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._users[wanted] -= 1
                self._changed.notify_all()
