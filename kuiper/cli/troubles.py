"""What a verb that goes on says of hosts that it cannot ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kuiper.cli.show import note

if TYPE_CHECKING:
    from kuiper.cluster.states import JobStatus


def unreached(statuses: Sequence[JobStatus]) -> dict[str, str]:
    """Why a host could not be asked, by its name."""
    processes = (process for status in statuses for process in status.processes if not process.reached)
    return {process.host: process.reason for process in processes}


class Troubles:
    """Tells of each host once that it cannot be asked, and once that it is back.

    Attributes:
        now: what was told last, by host.
    """

    def __init__(self) -> None:
        self.now: dict[str, str] = {}

    def tell(self, now: dict[str, str]) -> None:
        """Note what has changed, on standard error."""
        for host in now.keys() - self.now.keys():
            note(f"{now[host]}: trying again")
        for host in self.now.keys() - now.keys():
            note(f"{host} is back")
        self.now = now
