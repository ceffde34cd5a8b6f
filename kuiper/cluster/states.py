"""The state of a process and of a job: pure functions of what `agent.py look` reports of its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Of a process or a job. Unreachable is not among them: that is something observed."""

    PLANNED = "PLANNED"
    STAGED = "STAGED"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    LOST = "LOST"

    @property
    def final(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED, State.STOPPED, State.LOST)

    @property
    def exit_code(self) -> int:
        """What `wait` and `submit --follow` exit with: 0, 100 failed, 101 unfinished, 103 stopped."""
        return {State.SUCCEEDED: 0, State.FAILED: 100, State.LOST: 100, State.STOPPED: 103}.get(self, 101)


SERVER_GONE = "the server is gone"
"""What a process says that ends because rank 0 did (kuiper/link)."""


@dataclass(frozen=True)
class ProcessStatus:
    """One process as it was seen.

    Attributes:
        reason: why it is in that state, '' when there is nothing to add.
        alive: whether the process or its agent lives.
        heartbeat_age: seconds since the last heartbeat, None before the first and after the end.
        step, rate, loss: of the last step on record; rate in steps a second over the last ones on record.
        non_finite: {"loss": "nan"} or the like, where that loss is not finite; `loss` is None then.
        diverged: the step at which the run diverged, which rank 0 alone records; None while it has not.
        started, ended: of the process, in unix seconds of its host's clock; None before the end.
        ended_ago: seconds since then; hosts whose clocks differ can be compared by it.
        reached: whether its host could be asked; if not, `state` is the last that was seen.
    """

    name: str
    host: str
    state: State
    reason: str = ""
    alive: bool = False
    pid: int | None = None
    heartbeat_age: float | None = None
    step: int | None = None
    rate: float | None = None
    loss: float | None = None
    non_finite: dict[str, str] = field(default_factory=dict)
    diverged: int | None = None
    evaluation: dict[str, Any] | None = None
    started: float | None = None
    ended: float | None = None
    ended_ago: float | None = None
    reached: bool = True


@dataclass(frozen=True)
class JobStatus:
    """A job as it was seen.

    Attributes:
        processes: by rank; none when they were not looked at.
        evaluation: the last on rank 0's record, as in metrics.jsonl.
        diverged: the step at which it diverged, None where it did not: its scores from there on mean nothing.
    """

    state: State
    reason: str
    processes: tuple[ProcessStatus, ...] = ()
    evaluation: dict[str, Any] | None = None
    diverged: int | None = None

    @property
    def alive(self) -> bool:
        """Whether any of its processes or agents lives."""
        return any(process.alive for process in self.processes)

    @property
    def over(self) -> bool:
        """Whether it has ended, as far as its hosts can be asked."""
        return self.state.final and not self.alive

    @property
    def reached(self) -> bool:
        """Whether every host could be asked."""
        return all(process.reached for process in self.processes)


def process_status(name: str, host: str, facts: Mapping[str, Any], boot_id: str, now: float) -> ProcessStatus:
    """One process from its facts.

    Args:
        facts: one folder's part of the report of `agent.py look`.
        boot_id: of the host, now.
        now: unix seconds on the host's clock.
    """
    proc, ended = facts["proc.json"], facts["exit.json"]
    elsewhere = facts.get("elsewhere")
    alive = facts["alive"] or facts["agent_alive"] or bool(elsewhere)
    state, reason = _state(facts, alive, boot_id)
    if elsewhere:
        reason = f"as its files say: it was started on {elsewhere}, and only there can it be asked"
    beat = (facts["heartbeat"] or {}).get("time")
    return ProcessStatus(
        name=name,
        host=host,
        state=state,
        reason=reason,
        alive=alive,
        pid=proc["pid"] if proc and facts["alive"] else None,
        heartbeat_age=max(0.0, now - beat) if alive and beat is not None else None,
        started=ended["started"] if ended else None,
        ended=ended["ended"] if ended else None,
        ended_ago=now - ended["ended"] if ended else None,
        reached=not elsewhere,
        **_progress(facts["metrics"]),
    )


def _state(facts: Mapping[str, Any], alive: bool, boot_id: str) -> tuple[State, str]:
    proc, ended, agent = facts["proc.json"], facts["exit.json"], facts["agent"]
    if ended:
        return _ended(ended)
    if alive:
        if facts["stop"]:
            return State.STOPPING, ""
        if proc is None and facts["after"]:
            return State.QUEUED, "after " + " ".join(facts["after"].split("/")[-2:])
        if proc is None:
            return State.STARTING, ""
        return State.RUNNING, "" if facts["agent_alive"] else "its agent is gone: nothing supervises it"
    if proc or agent:
        rebooted = (proc or agent)["boot_id"] != boot_id
        return State.LOST, "the host was rebooted" if rebooted else "it is dead and left no exit.json"
    return (State.STAGED if facts["staged"] else State.PLANNED), ""


def _ended(ended: Mapping[str, Any]) -> tuple[State, str]:
    if ended["reason"] == "stopped":
        return State.STOPPED, ""
    if ended["code"] == 0:
        return State.SUCCEEDED, ""
    how = f"signal {ended['signal']}" if ended["signal"] else f"exit code {ended['code']}"
    how = ended["reason"] if ended["reason"] in ("duration", "not started") else how
    return State.FAILED, f"{how}: {ended['first_error']}" if ended["first_error"] else how


def _progress(metrics: str) -> dict[str, Any]:
    """step, rate, loss, evaluation and divergence from the end of a metrics.jsonl; its first line may be cut.

    All lines of steps and evaluations from the one that diverged on say so.
    """
    steps, evaluation, diverged = [], None, None
    for event in parse_events(metrics):
        diverged = event.get("step") if event.get("event") == "diverged" else event.get("diverged", diverged)
        if event.get("event") == "step" and "step" in event:
            steps.append(event)
        elif event.get("event") == "evaluation":
            evaluation = event
    found: dict[str, Any] = {"evaluation": evaluation, "diverged": diverged}
    if steps:
        first, last = steps[0], steps[-1]
        seconds = last.get("time", 0) - first.get("time", 0)
        found |= {"step": last["step"], "loss": last.get("loss")}
        found["non_finite"] = {"loss": last["non_finite"]["loss"]} if "loss" in last.get("non_finite", {}) else {}
        found["rate"] = (last["step"] - first["step"]) / seconds if seconds > 0 else None
    return found


def parse_events(lines: str) -> list[dict[str, Any]]:
    """The JSON objects among these lines; a torn line is left out."""
    events = []
    for line in lines.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def job_status(processes: Sequence[ProcessStatus], submitting: bool, failure: str | None = None) -> JobStatus:
    """A job from its processes: rank 0 decides, the rest explain.

    Args:
        processes: by rank.
        submitting: whether the submit that makes this job is still at work.
        failure: why that submit gave up, if it did.
    """
    state, reason = _job_state(processes, submitting, failure)
    return JobStatus(state, reason, tuple(processes), processes[0].evaluation, processes[0].diverged)


def _job_state(
    processes: Sequence[ProcessStatus], submitting: bool, failure: str | None
) -> tuple[State, str]:
    rank_0 = processes[0].state
    states = {process.state for process in processes}
    alive = any(process.alive for process in processes)
    if rank_0 is State.SUCCEEDED:
        return rank_0, ""
    if failure is not None and not alive:
        return State.FAILED, failure
    if State.STOPPING in states or (State.STOPPED in states and alive):
        return State.STOPPING, ""
    if rank_0.final:
        return rank_0, _explain(processes)
    if rank_0 is State.RUNNING:
        starting = submitting and states & {State.STAGED, State.STARTING}
        return (State.STARTING if starting else rank_0), _explain(processes)
    if rank_0 in (State.QUEUED, State.STARTING) or submitting or not processes[0].reached:
        return rank_0, processes[0].reason
    return State.LOST, "the submit was interrupted before anything ran"


def _explain(processes: Sequence[ProcessStatus]) -> str:
    """How rank 0 went wrong, if it did, and the first process that went wrong.

    Rank 0 is never the first to lose its quorum, even if it has ended before those whose rows it lacks; nor is one
    that ended because rank 0 did.
    """
    wrong = [process for process in processes if process.state in (State.FAILED, State.LOST)]
    if processes[0] in wrong:
        wrong = [one for one in wrong if SERVER_GONE not in one.reason]
    wrong.sort(key=lambda one: ("QuorumLost" in one.reason, one.ended_ago is None, -(one.ended_ago or 0.0)))
    server = [process for process in wrong[1:] if process is processes[0]]
    return "; first, ".join(f"{process.name}: {process.reason}" for process in [*server, *wrong[:1]])
