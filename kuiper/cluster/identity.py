"""Which process a recorded one is: boot id, pid and start time; the submitter's typed view of the agent's."""

from __future__ import annotations

import os
import time
from typing import NotRequired, TypedDict

from kuiper.cluster import agent


class Identity(TypedDict):
    """A process, and no other one that later gets its pid.

    boot_id: of the machine's boot; pid: its number; start_time: in clock ticks since that boot. A process that
    writes itself down also has node and machine_id (see `agent.machine`) and time: unix seconds of that moment.
    """

    boot_id: str
    pid: int
    start_time: int
    node: NotRequired[str]
    machine_id: NotRequired[str]
    time: NotRequired[float]


UNSEEN = 3600.0
"""Seconds that a submitter on another machine is taken to be at work: nobody can look."""


def myself() -> Identity:
    """Of the calling process."""
    who = agent.identity(os.getpid())
    assert who is not None
    return Identity(**who, **agent.machine(), time=time.time())


def is_alive(who: Identity | None) -> bool:
    """Whether exactly that process lives, and is not a zombie; one on another machine does for an hour."""
    if who and agent.elsewhere(who):
        return time.time() - who.get("time", 0.0) < UNSEEN
    return agent.alive(who)


def marked(run_id: str) -> list[Identity]:
    """This machine's living processes, the calling one excepted, that carry exactly this run's marker."""
    return [Identity(**who) for who in agent.marked(**{agent.RUN_MARKER: run_id})]
