"""Which process a recorded one is: boot id, pid and start time; the submitter's typed view of the agent's."""

from __future__ import annotations

import os
from typing import TypedDict

from kuiper.cluster import agent


class Identity(TypedDict):
    """A process, and no other one that later gets its pid.

    boot_id: of the machine's boot; pid: its number; start_time: in clock ticks since that boot.
    """

    boot_id: str
    pid: int
    start_time: int


def myself() -> Identity:
    """Of the calling process."""
    who = agent.identity(os.getpid())
    assert who is not None
    return Identity(**who)


def is_alive(who: Identity | None) -> bool:
    """Whether exactly that process lives on this machine, and is not a zombie."""
    return agent.alive(who)


def marked(run_id: str) -> list[Identity]:
    """This machine's living processes, the calling one excepted, that carry exactly this run's marker."""
    return [Identity(**who) for who in agent.marked(**{agent.RUN_MARKER: run_id})]
