"""States as functions of what was found in the files: a table, no process involved."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kuiper.cluster.states import (
    JobStatus,
    ProcessStatus,
    State,
    job_status,
    process_status,
)

BOOT = "boot-1"
IDENTITY = {"boot_id": BOOT, "pid": 42, "start_time": 7}
NOTHING: dict[str, Any] = {
    "proc.json": None, "exit.json": None, "heartbeat": None, "agent": None,
    "alive": False, "agent_alive": False, "staged": False, "stop": False, "after": None, "metrics": "",
}  # fmt: skip
RUNNING = {
    **NOTHING, "staged": True, "agent": IDENTITY, "proc.json": IDENTITY, "alive": True, "agent_alive": True
}  # fmt: skip
ENDED = {"code": 0, "signal": None, "reason": "finished", "first_error": None, "started": 1.0, "ended": 50.0}


def status(name: str = "ps", **changes: Any) -> ProcessStatus:
    facts = {**NOTHING, **changes}
    return process_status(name, "localhost", facts, BOOT, now=100.0)


def ended(name: str = "ps", ahead: float = 0.0, **changes: Any) -> ProcessStatus:
    """On a host whose clock is `ahead` seconds ahead."""
    exit_json = {**ENDED, **changes}
    exit_json["ended"] += ahead
    facts = {**NOTHING, **RUNNING, "alive": False, "agent_alive": False, "exit.json": exit_json}
    return process_status(name, "localhost", facts, BOOT, now=100.0 + ahead)


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        (NOTHING, State.PLANNED, ""),
        ({"staged": True}, State.STAGED, ""),
        ({"staged": True, "agent": IDENTITY, "agent_alive": True}, State.STARTING, ""),
        (
            {"staged": True, "agent": IDENTITY, "agent_alive": True, "after": "/logs/job-seed1/r1"},
            State.QUEUED, "after job-seed1 r1",
        ),
        (RUNNING, State.RUNNING, ""),
        ({**RUNNING, "agent_alive": False}, State.RUNNING, "its agent is gone: nothing supervises it"),
        ({**RUNNING, "stop": True}, State.STOPPING, ""),
        ({**RUNNING, "alive": False, "agent_alive": False}, State.LOST, "it is dead and left no exit.json"),
        (
            {**RUNNING, "alive": False, "agent_alive": False, "proc.json": {**IDENTITY, "boot_id": "boot-0"}},
            State.LOST, "the host was rebooted",
        ),
        ({**RUNNING, "alive": False, "exit.json": ENDED}, State.SUCCEEDED, ""),
        ({"exit.json": {**ENDED, "code": None, "signal": 15, "reason": "stopped"}}, State.STOPPED, ""),
        ({"exit.json": {**ENDED, "code": 3, "reason": "failed"}}, State.FAILED, "exit code 3"),
        (
            {"exit.json": {**ENDED, "code": None, "signal": 9, "reason": "failed", "first_error": "E: x"}},
            State.FAILED, "signal 9: E: x",
        ),
        ({"exit.json": {**ENDED, "code": 143, "reason": "duration"}}, State.FAILED, "duration"),
    ],
)  # fmt: skip
def test_process_state(facts: dict[str, Any], state: State, reason: str) -> None:
    seen = status(**facts)
    assert (seen.state, seen.reason) == (state, reason)


def test_progress_comes_from_the_end_of_the_metrics_whose_first_line_may_be_cut() -> None:
    lines = [
        'oss": 3}',
        json.dumps({"event": "step", "time": 10.0, "step": 4, "loss": 2.0}),
        json.dumps({"event": "evaluation", "time": 11.0, "step": 4, "top_1": 50.0}),
        json.dumps({"event": "step", "time": 12.0, "step": 8, "loss": 1.0}),
        '{"event": "step", "ti',
    ]
    seen = status(**{**RUNNING, "metrics": "\n".join(lines), "heartbeat": {"time": 97.0}})
    assert (seen.step, seen.loss, seen.rate, seen.heartbeat_age) == (8, 1.0, 2.0, 3.0)
    assert seen.evaluation is not None and seen.evaluation["top_1"] == 50.0


def job(*processes: ProcessStatus, submitting: bool = False, failure: str | None = None) -> JobStatus:
    return job_status(processes, submitting, failure)


def test_rank_0_decides() -> None:
    worker = status("worker_1", **RUNNING)
    assert job(ended(), worker).state is State.SUCCEEDED
    assert job(ended(), ended("worker_1", code=1, reason="failed")).state is State.SUCCEEDED
    assert job(status(**RUNNING), ended("worker_1", code=1, reason="failed")).state is State.RUNNING


@pytest.mark.parametrize("when", [60.0, 54.0], ids=["after", "before"])
def test_the_first_process_that_went_wrong_is_the_reason(when: float) -> None:
    ps = ended(code=100, reason="failed", first_error="QuorumLost: 3 of 4", ended=when)
    worker = ended("worker_2", code=1, reason="failed", first_error="ValueError: nan", ended=55.0, ahead=500.0)
    later = ended("worker_1", code=1, reason="failed", first_error="ValueError: inf", ended=58.0)
    seen = job(ps, later, worker)
    assert (seen.state, seen.reason) == (
        State.FAILED, "ps: exit code 100: QuorumLost: 3 of 4; first, worker_2: exit code 1: ValueError: nan")
    assert seen.state.exit_code == 100


def test_who_ends_because_the_server_did_is_not_the_first() -> None:
    ps = ended(code=100, reason="failed", first_error="RecordError: no room", ended=60.0)
    worker = ended("worker_1", code=100, reason="failed", first_error="JobFailed: the server is gone: it ended", ended=50.0)
    assert job(ps, worker).reason == "ps: exit code 100: RecordError: no room"
    assert "worker_1" in job(status(**RUNNING), worker).reason


def test_stopped_is_said_only_when_nothing_lives() -> None:
    stopped = ended(code=None, reason="stopped")
    assert job(stopped, status("worker_1", **RUNNING)).state is State.STOPPING
    assert job(stopped, ended("worker_1", reason="stopped")).state is State.STOPPED
    assert State.STOPPED.exit_code == 103


def test_a_submit_that_died_or_gave_up() -> None:
    staged = status(**{"staged": True})
    assert job(staged, submitting=True).state is State.STAGED
    assert job(staged).state is State.LOST
    assert job(status(**RUNNING), status("worker_1", staged=True), submitting=True).state is State.STARTING
    queued = status(staged=True, agent=IDENTITY, agent_alive=True, after="/logs/job-seed1/r1")
    assert job(queued, queued) == JobStatus(State.QUEUED, "after job-seed1 r1", (queued, queued))
    stopped = ended(code=None, reason="stopped")
    assert job(stopped, failure="no python") == JobStatus(State.FAILED, "no python", (stopped,))
