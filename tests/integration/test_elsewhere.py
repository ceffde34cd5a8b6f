"""Machines that share a log_path and a ledger: a process that is another machine's is not taken for dead."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent, files, identity
from kuiper.cluster.store import load
from kuiper.errors import KuiperError
from tests.integration.jobs import manager, write_spec
from tests.integration.test_faults import wait_for

CONF = {"algorithm": "parameter_server", "model": "softmax", "dataset": "iris", "num_workers": 2, "steps": 1_000_000,
        "eval_interval": 1000, "checkpoint_interval": 1000}
ELSEWHERE = {"boot_id": "another", "node": "login2", "machine_id": ""}


def says(*arguments: str, code: int = 0) -> Any:
    done = manager(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def move(*paths: Path) -> None:
    """Have files say that the process which they are about is one of another machine."""
    for path in paths:
        files.write_json(path, {**json.loads(path.read_text()), **ELSEWHERE})


def test_a_job_of_another_machine(tmp_path: Path) -> None:
    """Its agent is at work all the time, only seen as from another machine; it hears of a stop all the same."""
    spec = write_spec(tmp_path, "job", CONF, 0)
    [job] = says("submit", str(spec), "--simulate")
    folder = Path(job["run_dir"]) / "ps"
    wait_for(lambda: (folder / "heartbeat").exists() and (folder / "proc.json").exists())
    move(folder / "agent.lock", folder / "proc.json")
    [seen] = says("status", "job", code=104)
    [process] = seen["processes"]
    assert seen["state"] == process["state"] == "RUNNING" and not process["reached"]
    assert "it was started on login2" in process["reason"]
    assert says("list")[0]["state"] == "RUNNING" and load(Path(job["run_dir"])).final is None
    assert "is RUNNING" in manager("submit", str(spec), "--simulate").stderr
    assert manager("resume", "job").returncode == 5 and (folder / "proc.json").exists()
    assert says("clean", "--older-than", "0s", "--dry-run")["runs"] == []
    assert says("stop", "job", "--grace", "5")[0]["state"] == "STOPPED"
    assert json.loads((folder / "exit.json").read_text())["reason"] == "stopped"
    assert not agent.marked(KUIPER_RUN=job["run_id"])


def test_who_is_where() -> None:
    me = identity.myself()
    assert not agent.elsewhere(me) and identity.is_alive(me) and not agent.elsewhere(None)
    rebooted = {**me, "boot_id": "before"}
    assert not agent.elsewhere(rebooted) and not identity.is_alive(rebooted)
    renamed = {**rebooted, "node": "before", "machine_id": "1"}
    assert agent.elsewhere({**renamed, "machine_id": "other"}) == "before"
    if me["machine_id"]:
        assert not agent.elsewhere({**renamed, "machine_id": me["machine_id"]})
    old = {key: rebooted[key] for key in ("boot_id", "pid", "start_time")}  # written by an earlier version
    assert not agent.elsewhere(old)
    submitter = {**me, **ELSEWHERE}
    assert identity.is_alive(submitter) and not identity.is_alive({**submitter, "time": time.time() - 7200})


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: object, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with pytest.raises(KuiperError, match="cannot lock .*No locks available"), files.locked(tmp_path / "lock"):
        pass
    (tmp_path / "exit.json").write_text("{}")
    agent.supervise(str(tmp_path))  # goes on to say that it has ended


def test_an_agent_that_cannot_lock_finds_the_one_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(agent.fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(37, "No locks available")))
    files.write_json(tmp_path / "agent.lock", dict(identity.myself()))
    agent.supervise(str(tmp_path))
    assert "already supervised" in capsys.readouterr().out
