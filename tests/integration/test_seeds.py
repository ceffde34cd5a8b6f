"""Several seeds from one spec: one job after the other, each by itself, and what they say together."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuiper.cluster import identity, launch, store
from kuiper.cluster.plan import Process
from kuiper.cluster.resume import resume
from kuiper.cluster.spec import Spec, load
from kuiper.cluster.states import JobStatus, State
from kuiper.cluster.stop import stop_all
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, HostError
from kuiper.record import load_perf
from tests.integration.jobs import manager, write_spec
from tests.integration.test_faults import wait_for

CONF = {"dataset": "iris", "model": "softmax", "algorithm": "parameter_server", "num_workers": 2, "steps": 6,
        "eval_interval": 2, "checkpoint_interval": 2, "seed": [1, 2, 3]}


def states(name: str) -> list[str]:
    return [status.state.value for status in seen(store.find(name))]


def says(*arguments: str, code: int = 0) -> Any:
    done = manager(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def read(run_dir: str, name: str) -> dict[str, Any]:
    return json.loads((Path(run_dir) / "ps" / name).read_text())


def test_three_seeds_in_order_one_stopped_in_the_queue_and_resumed(tmp_path: Path) -> None:
    gate = tmp_path / "go"
    wait_at_gate = f"test $KUIPER_PROCESS = ps || until test -e {gate}; do sleep 0.1; done"
    path = str(write_spec(tmp_path, "trial", CONF, 1, setup_commands=[wait_at_gate]))
    jobs = says("submit", path)
    assert [job["job_name"] for job in jobs] == ["trial-seed1", "trial-seed2", "trial-seed3"]
    assert manager("status", "trial", "-q").stdout.split() == ["RUNNING", "QUEUED", "QUEUED"]
    assert states("trial-seed3") == ["QUEUED"]
    assert not list(tmp_path.glob("logs/trial-seed[23]/*/*/proc.json"))

    assert "trial-seed1" in says("submit", path, code=5)["error"]  # the first of them that is still going on
    for options in (["seed=1"], ["seed=1", "job_name=trial-seed3"]):  # `trial` is theirs
        with pytest.raises(ConflictError):
            launch.submit(load(path, options))
    assert says("stop", "trial-seed2")[0]["state"] == "STOPPED"
    assert states("trial") == ["RUNNING", "STOPPED", "QUEUED"]
    gate.touch()
    assert [job["state"] for job in says("wait", "trial", code=103)] == ["SUCCEEDED", "STOPPED", "SUCCEEDED"]
    first, third = (read(jobs[index]["run_dir"], "exit.json") for index in (0, 2))
    assert third["started"] >= first["ended"]

    [resumed] = says("resume", "trial", "--follow")  # only what had not succeeded
    assert resumed["job_name"] == "trial-seed2" and resumed["state"] == "SUCCEEDED"
    assert states("trial") == ["SUCCEEDED"] * 3
    with pytest.raises(ConflictError, match="trial-seed1 .* has succeeded"):
        resume(store.find("trial"))

    finals, clocks = [], []
    for job in jobs:
        last = list(load_perf(Path(job["run_dir"]) / "ps" / "training_perf")["perf"].values())[-1]
        finals.append(last["top_1: "])
        clocks.append(last["clock"])
    [row] = says("plot", "trial", "-o", str(tmp_path / "out.png"))["configurations"]
    half = 4.302653 * statistics.stdev(finals) / math.sqrt(3)
    assert (row["label"], row["seeds"], row["rounds"]) == ("trial", [1, 2, 3], 6)
    assert row["top_1"] == pytest.approx(statistics.mean(finals))
    assert row["top_1_ci"] == pytest.approx(half, rel=1e-6)
    assert row["curve"]["clock"][-1] == pytest.approx(statistics.mean(clocks))
    assert row["curve"]["rounds"] == [0, 2, 4, 6] and (tmp_path / "out.png").stat().st_size > 10_000


def series(folder: Path, does: str, seeds: list[int] | int, spoil: str = "") -> list[Job]:
    """Jobs whose one process is a line of sh, $0 being the job's name; the agent of `spoil` cannot start."""
    path = folder / "job.yml"
    content = {"job_name": "job", "mode": "simulate", "log_path": str(folder / "logs"),
               "limits": {"grace": "2s"}, "job_conf": {"seed": seeds}}
    path.write_text(yaml.safe_dump(content))

    def configure(one: Spec, run_id: str) -> dict[str, Any]:
        return {"job": {"mode": "simulate", "run_id": run_id}, "processes": [{"name": "ps", "nodes": []}],
                "conf": {"num_workers": 1, "ports": None, "threads": 1, "seed": one.job_conf["seed"]}}

    def argv(process: Process, run_dir: Path) -> list[str]:
        if run_dir.parent.name == spoil:
            (run_dir / "ps" / "log").mkdir(parents=True)
        return ["sh", "-c", does, run_dir.parent.name]

    return launch.launch(load(path), configure, argv=argv)


def seen(jobs: list[Job]) -> list[JobStatus]:
    return store.observe(jobs, detailed=True)


def test_a_seed_that_fails_does_not_stop_the_others_and_a_stop_of_all_starts_none(tmp_path: Path) -> None:
    fails = f"until test -e {tmp_path}/go; do sleep 0.1; done; test $0 != job-seed5 || exit 3; sleep 60"
    jobs = series(tmp_path, fails, [5, 6, 7])
    assert [status.state for status in seen(jobs)] == [State.RUNNING, State.QUEUED, State.QUEUED]
    (tmp_path / "go").touch()
    wait_for(lambda: seen(jobs)[1].state is State.RUNNING)
    assert seen(jobs)[0].state is State.FAILED
    assert [status.state for status in stop_all(jobs)] == [State.FAILED, State.STOPPED, State.STOPPED]
    assert not (jobs[2].run_dir / "ps" / "proc.json").exists()
    assert not any(identity.marked(job.run_id) for job in jobs)


def test_all_seeds_are_launched_or_none(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="localhost: starting ps failed: .*Is a directory"):
        series(tmp_path, "sleep 60", [1, 2, 3], spoil="job-seed2")
    jobs = store.find("job")
    assert [status.state for status in seen(jobs)] == [State.FAILED] * 3
    assert not any(identity.marked(job.run_id) for job in jobs)
    assert not (jobs[2].run_dir / "ps" / "proc.json").exists()


def test_a_name_means_what_was_last_submitted_under_it(tmp_path: Path) -> None:
    first = series(tmp_path, "true", [2, 10])
    wait_for(lambda: not any(status.alive for status in seen(first)))
    second = series(tmp_path, "sleep 60", [10, 3, 2])
    assert [job.job_name for job in store.find("job")] == ["job-seed10", "job-seed3", "job-seed2"]
    assert [job.run_id for job in store.find("job")] == [job.run_id for job in second]
    assert [job.run_id for job in store.find("job-seed2")] == [second[2].run_id]
    assert [job.run_id for job in store.find(first[0].run_id)] == [first[0].run_id]
    with pytest.raises(ConflictError, match="job-seed10"):
        series(tmp_path, "true", [11])
    stop_all(second, 0)
    third = series(tmp_path, "true", 1)
    assert [job.run_id for job in store.find("job")] == [job.run_id for job in third]
    wait_for(lambda: not any(status.alive for status in seen(third)))
