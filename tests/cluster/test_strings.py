"""What comes from people and from other hosts: passed on as it is, or refused; it never runs."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.jobs import LONG, submit, there
from tests.cluster.jobs import spec as lab_spec
from tests.cluster.lab import Lab
from tests.integration.jobs import events, manager

pytestmark = pytest.mark.cluster
SHORT = {**LONG, "steps": 5}
NASTY = "it's; touch hacked $(touch hacked) `touch hacked` \"x\" & | > hacked #ü\\"


def hacked(*folders: str | Path) -> list[Path]:
    return [path for folder in folders for path in Path(folder).rglob("hacked") if path.is_file()]


def test_paths_environment_and_setup_commands_are_passed_as_they_are(
        lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NASTY", f"{NASTY}\n*")
    path = lab_spec(lab, tmp_path, "nasty", SHORT, exp_path=f"~/{NASTY}/new", secrets=["NASTY"],
                    setup_commands=['printf "told %s\\n" "$NASTY"', "true 'it; touch $(x)'"])
    conf = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**conf, "log_path": str(tmp_path / NASTY / "logs")}))
    job = submit(path)
    assert manager("wait", "nasty").returncode == 0
    own = Path(lab.hosts[1].home, NASTY, "new", "runs", "nasty", job["run_id"], "worker_1")
    assert f"told {NASTY}\n*\n" in (own / "log").read_text()
    assert manager("collect", "nasty").returncode == 0
    assert job["run_dir"].startswith(str(tmp_path / NASTY)) and events(job["run_dir"], "end")
    assert manager("stop", "nasty").returncode == 0
    assert not hacked(tmp_path, *(host.home for host in lab.hosts))


@pytest.mark.parametrize("name", [NASTY, "a b", "../up", "-n", "$(touch hacked)", "two\nlines", "", "a;b"])
def test_such_job_names_are_refused(name: str, lab: Lab, tmp_path: Path) -> None:
    path = lab_spec(lab, tmp_path, "named", SHORT)
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "job_name": name}))
    refused = manager("submit", str(path))
    assert refused.returncode == 3 and "job_name" in refused.stderr and "Traceback" not in refused.stderr
    for verb in ("stop", "status", "collect", "logs"):
        unknown = manager(verb, "--", name)
        assert unknown.returncode == 102 and "Traceback" not in unknown.stderr
    assert not hacked(tmp_path, *(host.home for host in lab.hosts)) and not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("override", "code"), [
    (f"dataset={NASTY}", 3), (f"job_name={NASTY}", 3), ("steps=$(touch hacked)", 3), ("seed=1; touch hacked", 3),
    ("model={_target_: os.system, command: touch hacked}", 3), ("dataset.root=${oc.env:HOME}", 3)])
def test_such_overrides_are_refused(override: str, code: int, lab: Lab, tmp_path: Path) -> None:
    refused = manager("submit", str(lab_spec(lab, tmp_path, "laid", SHORT)), "-o", override)
    assert refused.returncode == code and "Traceback" not in refused.stderr, refused.stderr
    assert not hacked(tmp_path, *(host.home for host in lab.hosts)) and not (tmp_path / "logs").exists()


def test_a_training_perf_that_would_run_something_is_refused(lab: Lab, tmp_path: Path) -> None:
    job = submit(lab_spec(lab, tmp_path, "perf", SHORT))
    assert manager("wait", "perf").returncode == 0

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "hacked",)

    (there(lab.hosts[0], job, "ps") / "training_perf").write_bytes(pickle.dumps({"perf": Touch()}))
    refused = manager("collect", "perf", "--json")
    assert refused.returncode == 104 and "training_perf" in refused.stderr and "Traceback" not in refused.stderr
    assert manager("plot", "perf", "-o", str(tmp_path / "plot.png")).returncode
    assert not hacked(tmp_path)


def test_a_shell_that_says_something_by_itself_is_no_trouble(lab: Lab, tmp_path: Path) -> None:
    """As one does whose start-up file prints a greeting."""
    for host in lab.hosts:
        Path(host.home, ".bashrc").write_text("echo welcome\n")
    try:
        submit(lab_spec(lab, tmp_path, "greeted", SHORT))
        for verb in ("wait", "status", "collect", "stop"):
            done = manager(verb, "greeted")
            assert done.returncode == 0, done.stderr
    finally:
        for host in lab.hosts:
            Path(host.home, ".bashrc").unlink()


def test_a_host_cannot_write_where_it_likes(lab: Lab, tmp_path: Path) -> None:
    """Its agent has been replaced by one that offers a file of a folder further up."""
    job = submit(lab_spec(lab, tmp_path, "liar", SHORT))
    assert manager("wait", "liar").returncode == 0
    folder = there(lab.hosts[1], job, "worker_1")
    (folder.parent / "hacked").write_text("")
    offer = {str(folder): {"../hacked": [0, hashlib.sha256().hexdigest()]}}
    for agent in Path(lab.hosts[1].home).glob("kuiper/agents/*.py"):
        agent.write_text(f"print({json.dumps(json.dumps(offer))})")
    refused = manager("collect", "liar")
    assert refused.returncode == 104 and "which is not of this run" in refused.stderr
    assert not hacked(tmp_path / "logs")
    for agent in Path(lab.hosts[1].home).glob("kuiper/agents/*.py"):
        agent.unlink()
    assert manager("collect", "liar").returncode == 0
