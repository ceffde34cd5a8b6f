"""Verbs around a job on this machine: begin a spec, plan, repeat, compare, clean, complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent, logs
from kuiper.cluster.clean import find_rubbish, remove
from kuiper.cluster.store import find
from tests.integration.jobs import ROOT, events, follow, manager, trajectory, write_spec

CONF = {"algorithm": "parameter_server", "model": "softmax", "dataset": "iris", "num_workers": 2, "steps": 6,
        "eval_interval": 2}


def says(*arguments: str, code: int = 0) -> Any:
    done = manager(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_init_writes_what_check_accepts_and_submit_trains(tmp_path: Path) -> None:
    assert manager("init", "--local", "2", "first.yml").returncode == 0
    assert manager("init").returncode == 0
    before = Path("conf.yml").read_bytes()
    refused = manager("init", "conf.yml", "--local", "3")
    assert refused.returncode == 5 and "is there already" in refused.stderr
    assert Path("conf.yml").read_bytes() == before
    for name in ("conf.yml", "first.yml"):
        checked = manager("check", name)
        assert checked.returncode == 0, checked.stderr
    assert follow(Path("first.yml"))["evaluation"]["top_1"] > 90


def test_smoke_needed_retry_and_show(tmp_path: Path) -> None:
    path = write_spec(tmp_path, "job", CONF, 0)
    both = manager("submit", str(path), "--follow", "--detach")
    assert both.returncode == 2
    smoke = follow(path, "--simulate", "--smoke")
    assert [event["step"] for event in events(smoke["run_dir"], "step")] == [1, 2]
    first = follow(path, "--simulate", "--needed")
    assert len(events(first["run_dir"], "step")) == 6  # the smoke test was another experiment
    assert says("submit", str(path), "--simulate", "--needed")[0]["run_id"] == first["run_id"]
    some = manager("submit", str(path), "--simulate", "--needed", "--follow", "-o", "seed=[1,2]")
    assert some.returncode == 0, some.stderr
    more = manager("submit", str(path), "--simulate", "--needed", "--follow", "-o", "seed=[1,2,3]")
    assert more.returncode == 0 and more.stdout.count("SUCCEEDED") == 1 and "job-seed3" in more.stdout

    [again] = says("retry", first["run_id"], "--follow")
    assert trajectory(again["run_dir"]) == trajectory(first["run_dir"])
    same = says("show", first["run_id"], again["run_id"])["differences"]
    assert same["config"] == same["environment"] == {} and same["code"] == {
        "same": True, "digests": same["code"]["digests"], "files": {}}
    other = says("show", smoke["run_id"], "job-seed3")["differences"]
    assert other["config"]["steps"] == [2, 6] and other["config"]["seed"] == [1, 3]
    assert other["result"]["evaluations"] == [2, 4]
    [one] = says("show", again["run_id"])["runs"]
    assert one["retry_of"] == first["run_id"] and one["config"]["optimizer.lr"] == 0.1
    assert one["result"]["best_top_1"] >= one["result"]["top_1"] > 0
    code = Path(again["run_dir"], "code.json")
    record = json.loads(code.read_text())
    record["digest"], record["files"]["kuiper/run.py"] = "other", "other"
    code.write_text(json.dumps(record))
    assert says("show", first["run_id"], again["run_id"])["differences"]["code"]["files"] == {"kuiper/run.py": "changed"}


def test_a_retried_seed_takes_its_place(tmp_path: Path) -> None:
    follow_all = ["submit", str(write_spec(tmp_path, "job", CONF, 0)), "--simulate", "-f", "-o", "seed=[1,2]"]
    first, second = says(*follow_all)
    [again] = says("retry", "job-seed1", "--follow")
    assert [job.run_id for job in find("job")] == [again["run_id"], second["run_id"]]
    both = says("retry", "job", "--follow")
    assert [job.run_id for job in find("job")] == [job["run_id"] for job in both]
    assert [job.run_id for job in find(first["run_id"])] == [first["run_id"]]


def test_plan_tells_and_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "not to be shown")
    path = write_spec(tmp_path, "job", CONF, 2, secrets=["API_KEY"])
    before = sorted(tmp_path.rglob("*"))
    text, [planned] = manager("plan", str(path)), says("plan", str(path))
    assert text.returncode == 0 and sorted(tmp_path.rglob("*")) == before
    assert "API_KEY" in text.stdout and "not to be shown" not in text.stdout + json.dumps(planned)
    run = follow(path)
    made = {str(file) for file in Path(run["run_dir"]).rglob("*")}
    [host] = planned["hosts"]
    for file in host["files"]:
        name = file["path"].replace("<run_id>", run["run_id"])
        assert name in made or name.endswith("secrets.json"), name
    assert [process["nodes"] for process in host["processes"]] == [[], [0], [1]]


def test_clean_removes_what_is_old(tmp_path: Path) -> None:
    run = follow(write_spec(tmp_path, "job", CONF, 0), "--simulate")
    assert says("clean", "--dry-run")["runs"] == []
    assert says("clean", "--older-than", "0s", code=2)["removed"] is False
    found = find_rubbish(0.0)
    [code] = found.code
    assert remove(replace(found, code=[])) == [] and Path(code.folder).exists()
    os.utime(code.folder)  # as a submit does that is about to run it
    assert remove(found) == [] and Path(code.folder).exists()
    run = follow(write_spec(tmp_path, "job", CONF, 0), "--simulate")
    assert says("clean", "--older-than", "0s", "--yes")["runs"][0]["run_id"] == run["run_id"]
    assert not Path(code.folder).exists()
    assert not Path(run["run_dir"]).parent.exists() and says("list") == []
    assert manager("clean", "--older-than", "a while").returncode == 2


def test_job_names_complete(tmp_path: Path) -> None:
    follow(write_spec(tmp_path, "long-name", CONF, 0), "--simulate")
    program = tmp_path / "kuiper"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {ROOT}/manager.py \"$@\"\n")
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def completed(*words: str) -> str:
        script = 'source <(kuiper completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); ' \
                 '_kuiper_completion kuiper; echo "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", script, "-", *words], env=env, capture_output=True, text=True)
        return done.stdout

    for verb in ("status", "stop", "retry", "show"):
        assert completed("kuiper", verb, "lo") == "long-name\n"
    assert completed("kuiper", "show", "x", "lo") == "long-name\n"
    assert completed("kuiper", "cl") == "clean\n" and "--older-than" in completed("kuiper", "clean", "--o")
    for shell in ("zsh", "fish"):
        assert "_KUIPER_COMPLETE=complete_" + shell in manager("completion", shell).stdout


def test_a_reader_goes_on_over_rotations(tmp_path: Path) -> None:
    [job] = [find(follow(write_spec(tmp_path, "job", CONF, 0), "--simulate")["run_id"])[0]]
    log = job.paths.process("ps").log
    log.unlink()
    reader, said = logs.Reader(job, job.processes[0]), []

    def write(*numbers: int) -> None:
        with log.open("a") as file:
            file.writelines(f"line {number}\n" for number in numbers)
            file.write("torn")

    def read() -> list[str]:
        return [line.text.replace("torn", "") for line in reader.read()]

    assert read() == []
    write(1, 2)
    agent.rotate(str(log), 0, 3)
    said += read()  # what was rotated before the first look is read too
    write(3)
    said += read() + read()
    agent.rotate(str(log), 0, 3)
    said += read()
    write(4)
    agent.rotate(str(log), 0, 3)
    write(*range(5, 50))  # longer than what was there before
    said += read()
    agent.rotate(str(log), 0, 3)
    agent.rotate(str(log), -1, 3)  # empty: a log that is quiet
    said += read()
    write(50)
    said += read()
    assert said == [f"line {number}" for number in range(1, 51)] and reader.gaps == 0
    for number in (51, 52, 53, 54, 55):
        write(number)
        agent.rotate(str(log), 0, 3)
    assert read() == ["line 53", "line 54", "line 55"] and reader.gaps == 1
