"""Verbs that look at, repeat and clear away jobs over ssh."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

from kuiper.cluster import agent
from tests.cluster.jobs import LONG, nothing_left, spec, status, submit, there
from tests.cluster.lab import Lab
from tests.integration.jobs import ROOT, manager, trajectory
from tests.integration.test_faults import wait_for

pytestmark = pytest.mark.cluster
SHORT = {**LONG, "steps": 6, "eval_interval": 2}


def says(*arguments: str, code: int = 0) -> Any:
    done = manager(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_submit_does_what_plan_said(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "not to be shown")
    path = spec(lab, tmp_path, "plan", SHORT, secrets=["API_KEY"], setup_commands=["export A='b c'"])
    for host in lab.hosts:
        host.stop()
    unasked = manager("plan", str(path))  # nobody is contacted
    assert unasked.returncode == 0 and "not known  what ~ is" in unasked.stdout, unasked.stderr
    for host in lab.hosts:
        host.start()
    before = [set(Path(host.home).rglob("*")) for host in lab.hosts]
    [planned] = says("plan", str(path), "--ask")
    assert [set(Path(host.home).rglob("*")) for host in lab.hosts] == before
    assert "not to be shown" not in json.dumps(planned) + unasked.stdout and planned["secrets"] == ["API_KEY"]
    job = submit(path)
    assert manager("wait", "plan").returncode == 0

    def real(text: str) -> str:
        return text.replace("<run_id>", job["run_id"])

    for plan, host in zip(planned["hosts"][1:], lab.hosts, strict=True):
        for file in plan["files"]:
            made = Path(real(file["path"]))
            assert made.is_relative_to(host.home)
            if made.name != "secrets.json":  # read, and removed
                assert f"{made.stat().st_mode & 0o777:o}" == file["mode"], made
        [process] = plan["processes"]
        order = json.loads((there(host, job, process["name"]) / "agent.json").read_text())
        assert order["argv"] == [real(word) for word in process["command"]]
        assert {key: order[key] for key in ("env", "cwd", "setup_commands")} == {
            key: process[key] for key in ("env", "cwd", "setup_commands")}
        assert plan["code"]["sent"] or plan["code"]["folder"] == order["cwd"]
    assert {one["code"]["sent"] for one in says("plan", str(path), "--ask")[0]["hosts"][1:]} == {False}


def test_retry_runs_the_same_code_and_show_compares(lab: Lab, tmp_path: Path) -> None:
    first = submit(spec(lab, tmp_path, "again", SHORT))
    assert manager("wait", "again").returncode == 0
    [again] = says("retry", "again", "--follow")
    assert again["run_id"] != first["run_id"] and again["state"] == "SUCCEEDED"
    for run in (first, again):
        assert manager("collect", run["run_id"]).returncode == 0
    assert trajectory(again["run_dir"]) == trajectory(first["run_dir"])
    compared = says("show", first["run_id"], again["run_id"])["differences"]
    assert compared["config"] == compared["environment"] == {} and compared["code"]["same"]
    assert says("show", "again")["runs"][0]["retry_of"] == first["run_id"]
    assert manager("plot", first["run_id"], "again", "-o", str(tmp_path / "both.png")).returncode == 0
    code = there(lab.hosts[1], again, "worker_1").parents[3] / "code"
    code.rename(code.with_name("gone"))
    refused = manager("retry", "again")
    assert refused.returncode == 3 and f"{lab.hosts[1].address}: the code" in refused.stderr
    code.with_name("gone").rename(code)


def test_clean_takes_what_is_dead_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    for host in lab.hosts:  # of other submitters, whose code would have to stay
        shutil.rmtree(Path(host.home, "kuiper"), ignore_errors=True)
    idle, conf = "case $KUIPER_PROCESS in worker_*) sleep 987;; esac", {**LONG, "join_timeout": 900}
    old = submit(spec(lab, tmp_path, "old", SHORT))
    dead = submit(spec(lab, tmp_path, "dead", conf, setup_commands=["setsid -f sleep 987", idle]))
    alive = submit(spec(lab, tmp_path, "alive", conf, setup_commands=[idle]))
    assert manager("wait", "old").returncode == 0
    for process, host in zip(("ps", "worker_1", "worker_2", "worker_3"), lab.hosts, strict=True):
        for name in ("agent.lock", "proc.json"):
            agent.send(json.loads((there(host, dead, process) / name).read_text()), signal.SIGKILL)
    wait_for(lambda: status("dead")["state"] == "LOST")
    assert len(agent.marked(KUIPER_RUN=dead["run_id"])) >= 4

    assert says("clean", "--dry-run")["runs"] == []  # a week is not over
    found = says("clean", "--older-than", "0s", "--dry-run")
    assert {run["run_id"] for run in found["runs"]} == {old["run_id"], dead["run_id"]}
    assert {left["run_id"] for left in found["leftovers"]} == {dead["run_id"]} and len(found["leftovers"]) == 4
    assert found["code"] == []  # the running job needs it
    assert manager("clean", "--older-than", "0s").returncode == 2  # nobody to ask
    assert Path(old["run_dir"]).exists()

    lab.hosts[3].stop()
    partly = manager("clean", "--older-than", "0s", "--yes")
    assert partly.returncode == 104 and f"{lab.hosts[3].address} port" in partly.stderr
    assert Path(old["run_dir"]).exists()  # a record of what is still on a host
    lab.hosts[3].start()

    assert says("clean", "--older-than", "0s", "--yes")["failures"] == []
    nothing_left(dead)
    for run, name in ((old, "old"), (dead, "dead")):
        assert not Path(run["run_dir"]).exists()
        assert manager("status", name).returncode == 102
        assert not any(there(host, run, "").parent.exists() for host in lab.hosts)
    seen = status("alive")
    assert {process["state"] for process in seen["processes"]} == {"RUNNING"}
    assert manager("stop", "alive", "--grace", "2").returncode == 0
    assert len(says("clean", "--older-than", "0s", "--yes")["code"]) == 4
    assert not any(os.listdir(Path(host.home, "kuiper", "code")) for host in lab.hosts)
    nothing_left(alive)


def test_an_installed_package_does_the_same(lab: Lab, tmp_path: Path) -> None:
    """`pip install .` elsewhere, beside the packages of this interpreter; its groups and its code travel."""
    source, place = tmp_path / "source", tmp_path / "env"
    shutil.copytree(ROOT / "kuiper", source / "kuiper", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip, quiet = [sys.executable, "-m", "pip"], ["-q", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", *quiet, "--no-build-isolation", "-w", tmp_path, source], check=True)
    venv.create(place)
    [wheel] = tmp_path.glob("*.whl")
    subprocess.run([*pip, "--python", place / "bin" / "python", "install", *quiet, wheel], check=True)
    [site] = place.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    kuiper, env = str(place / "bin" / "kuiper"), {**os.environ, "PYTHONPATH": ""}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([kuiper, *words], env=env, capture_output=True, text=True, timeout=120)

    path = spec(lab, tmp_path, "installed", SHORT)
    done = run("submit", str(path), "--json")
    assert done.returncode == 0, done.stderr
    [job] = json.loads(done.stdout)
    waited = run("wait", "installed")
    assert waited.returncode == 0 and run("collect", "installed").returncode == 0
    where = json.loads((Path(job["run_dir"]) / "code.json").read_text())["digest"]
    assert where == says("plan", str(path))[0]["code"]["digest"]  # as from a checkout
