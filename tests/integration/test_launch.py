"""Launching, observing, stopping: a real control plane around a stand-in for the data plane."""

from __future__ import annotations

import os
import stat
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuiper.cluster import identity, launch, store
from kuiper.cluster import start as cluster_start
from kuiper.cluster.logs import merged, readers
from kuiper.cluster.paths import RunPaths
from kuiper.cluster.plan import Process
from kuiper.cluster.spec import Spec, load
from kuiper.cluster.states import State
from kuiper.cluster.stop import stop
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, JobFailed, KuiperError, SpecError, UnknownJob

# What kuiper.run does as far as the control plane can see: argv is run directory, rank and what to do.
STAND_IN = """
import json, os, sys, time
from pathlib import Path
run_dir, rank, does = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
folder = run_dir / ("ps" if rank == 0 else f"worker_{rank}")
if rank == 0 and does != "mute":
    (folder / "endpoint.tmp").write_text(json.dumps({"host": "127.0.0.1", "port": 1}))
    (folder / "endpoint.tmp").rename(folder / "endpoint.json")
time_ = f"2026-01-01T00:00:0{rank}.000Z"
print(json.dumps({"level": 30, "time": time_, "msg": f"rank {rank} is up", "v": 0}), flush=True)
if rank == 0:
    with open(folder / "metrics.jsonl", "a") as file:
        for event in ({"event": "step", "loss": 1.5}, {"event": "evaluation", "top_1": 80.0}):
            file.write(json.dumps({**event, "step": 5, "time": time.time()}) + "\\n")
if does == "fail" and rank == 1:
    raise ValueError("no such data set")
time.sleep(0.5 if does == "end" else 60)
"""


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    return make_spec(tmp_path, "trial")


def make_spec(folder: Path, name: str, **keys: Any) -> Spec:
    path = folder / f"{name}.yml"
    content = {
        "job_name": name, "ps_ip": "localhost", "worker_ips": ["localhost:2"],
        "log_path": str(folder / "logs"), "limits": {"grace": "2s"},
        "job_conf": {"algorithm": "parameter_server", "num_workers": 4}, **keys,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return load(path)


def start(spec: Spec, does: str = "work", join_timeout: float = 20.0) -> Job:
    def configure(one: Spec, run_id: str) -> dict[str, Any]:
        processes = spec.processes(4, simulate=False)
        return {
            "job": {"mode": "cluster", "run_id": run_id},
            "processes": [asdict(one) for one in processes],
            "conf": {"num_workers": 4, "ports": None, "threads": 1, "security": "tls",
                     "join_timeout": join_timeout, "algorithm": {"_peers_": False}},
        }

    def argv(process: Process, run_dir: Path) -> list[str]:
        return [process.python, "-c", STAND_IN, str(run_dir), str(process.rank), does]

    [job] = launch.launch(spec, configure, argv=argv)
    return job


def test_a_job_from_start_to_stop(spec: Spec) -> None:
    job = start(spec)
    [status] = store.observe([job])
    assert status.state is State.RUNNING
    assert [process.name for process in status.processes] == ["ps", "worker_1", "worker_2"]
    assert (status.processes[0].step, status.processes[0].loss) == (5, 1.5)
    assert status.evaluation is not None and status.evaluation["top_1"] == 80.0
    found = {who["pid"] for who in identity.marked(job.run_id)}
    assert found >= {process.pid for process in status.processes}

    paths = RunPaths(job.run_dir)
    assert paths.spec.read_bytes() == spec.path.read_bytes()
    assert yaml.safe_load(paths.config.read_text())["job"]["run_id"] == job.run_id
    for name in ("ps", "worker_1", "worker_2"):
        keys = sorted(paths.process(name).tls.iterdir())
        assert [key.name for key in keys] == ["ca.pem", "cert.pem", "key.pem"]
        assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)

    lines = list(merged(readers(job)))
    assert [(line.process, line.record and line.record["msg"]) for line in lines] == [
        ("ps", "rank 0 is up"), ("worker_1", "rank 1 is up"), ("worker_2", "rank 2 is up")
    ]  # fmt: skip

    assert stop(job).state is State.STOPPED
    assert identity.marked(job.run_id) == []
    assert stop(job).state is State.STOPPED
    [again] = store.find("trial")
    assert again.run_id == job.run_id and store.observe([again])[0].state is State.STOPPED
    assert again.final is not None and again.final["evaluation"]["top_1"] == 80.0


def test_stopping_exp1_leaves_exp10_alone(tmp_path: Path) -> None:
    jobs = [start(make_spec(tmp_path, name)) for name in ("exp1", "exp10")]
    stop(*store.find("exp1"))
    assert [status.state for status in store.observe(jobs)] == [State.STOPPED, State.RUNNING]
    stop(*store.find(jobs[1].run_id))


def test_a_job_ends_and_its_name_is_free_again(spec: Spec) -> None:
    first = start(spec, "end")
    with pytest.raises(ConflictError, match=first.run_id):
        start(spec)
    while store.observe([first], detailed=True)[0].alive:
        time.sleep(0.1)
    assert store.observe([first])[0].state is State.SUCCEEDED
    second = start(spec)
    assert store.find("trial")[0].run_id == second.run_id
    assert {job.run_id for job in store.jobs()} == {first.run_id, second.run_id}
    stop(second)


def test_of_two_concurrent_submits_one_wins(spec: Spec) -> None:
    won: list[Job] = []
    lost: list[ConflictError] = []

    def attempt() -> None:
        try:
            won.append(start(spec))
        except ConflictError as error:
            lost.append(error)

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 1)
    stop(won[0])


def test_a_start_that_cannot_complete_is_rolled_back(tmp_path: Path) -> None:
    broken = {"host": "localhost", "python": "/no/such/python"}
    with pytest.raises(JobFailed, match="worker_2 on localhost ended at its start.*/no/such/python"):
        start(make_spec(tmp_path, "trial", worker_ips=["localhost:1", broken]))
    [job] = store.find("trial")
    assert identity.marked(job.run_id) == []
    [status] = store.observe([job])
    assert status.state is State.FAILED and "/no/such/python" in status.reason


def test_a_server_that_does_not_say_where_it_listens(spec: Spec) -> None:
    with pytest.raises(JobFailed, match="ps on localhost did not say where it listens within 1 s"):
        start(spec, "mute", join_timeout=1)
    assert identity.marked(store.find("trial")[0].run_id) == []


def test_a_worker_that_fails_is_named_and_its_error_found(spec: Spec) -> None:
    try:
        job = start(spec, "fail")
    except JobFailed:  # it failed before the launch was over
        [job] = store.find("trial")
    reader = readers(job, rank=1)
    lines = list(merged(reader, whole=True))
    while not any(line.is_error for line in lines):
        time.sleep(0.1)
        lines += merged(reader, whole=True)
    assert lines[-1].text == "ValueError: no such data set"
    status = stop(job)
    assert status.processes[1].reason == "exit code 1: ValueError: no such data set"


def test_nothing_is_made_of_a_wrong_configuration(spec: Spec) -> None:
    def configure(one: Spec, run_id: str) -> dict[str, Any]:
        raise SpecError("wrong")

    with pytest.raises(SpecError):
        launch.launch(spec, configure)
    assert store.jobs() == [] and not Path(spec.log_path).exists()


def test_what_stands_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    with pytest.raises(SpecError, match="NO_SUCH_TOKEN"):
        start(make_spec(tmp_path, "trial", secrets=["NO_SUCH_TOKEN"]))
    (tmp_path / "taken").write_text("")
    with pytest.raises(KuiperError, match="cannot make the folder .*taken"):
        start(make_spec(tmp_path, "trial", log_path=str(tmp_path / "taken")))
    for key in ("trial", "*", "../..", "", "a/b", "\0"):
        with pytest.raises(UnknownJob):
            store.find(key)


def test_a_submitter_that_dies_in_the_middle(spec: Spec) -> None:
    submitter = os.fork()
    if submitter == 0:
        cluster_start._await_heartbeats = lambda job: os._exit(0)  # type: ignore[assignment]
        try:
            start(spec)
        finally:
            os._exit(1)
    assert os.waitpid(submitter, 0)[1] == 0
    [job] = store.find("trial")
    while any(process.pid is None for process in store.observe([job], detailed=True)[0].processes):
        time.sleep(0.1)
    assert store.observe([job])[0].state is State.RUNNING
    assert stop(job).state is State.STOPPED
