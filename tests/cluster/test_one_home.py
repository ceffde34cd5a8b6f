"""Hosts that share a home folder, so that all of them have the same exp_path."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kuiper.cluster import agent
from tests.cluster.jobs import LONG, spec, status
from tests.cluster.lab import Lab
from tests.integration.jobs import ROOT, manager, trajectory

pytestmark = pytest.mark.cluster
SHORT = {**LONG, "steps": 6, "eval_interval": 2}


@pytest.fixture
def home(cluster: Lab, tmp_path_factory: pytest.TempPathFactory, trust: Callable[[Lab], None]) -> Iterator[Lab]:
    """A lab with one home folder; `cluster` says whether there can be one at all."""
    lab = Lab.up(tmp_path_factory.mktemp("home"), 3, one_home=True)
    trust(lab)
    yield lab
    runs = [path.name for path in Path(lab.hosts[0].home).glob("kuiper/runs/*/*")]
    lab.down()
    assert not [run for run in runs if agent.marked(KUIPER_RUN=run)], "the test left processes behind"


def at_once(*commands: list[str]) -> list[tuple[int, str, str]]:
    begun = [subprocess.Popen([sys.executable, str(ROOT / "manager.py"), *words], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) for words in commands]
    said = [one.communicate(timeout=200) for one in begun]
    return [(one.returncode, *each) for one, each in zip(begun, said, strict=True)]


def test_two_submits_of_new_code_at_once(home: Lab, tmp_path: Path) -> None:
    names = "one", "two"
    paths = [spec(home, tmp_path, name, SHORT) for name in names]
    for code, _, err in at_once(*(["submit", str(path), "--json"] for path in paths)):
        assert code == 0, err
    assert manager("wait", *names).returncode == 0
    base = Path(home.hosts[0].home, "kuiper")
    assert len(list((base / "code").iterdir())) == len(list((base / "agents").iterdir())) == 1
    for name in names:
        assert {process["state"] for process in status(name)["processes"]} == {"SUCCEEDED"}
        assert manager("collect", name).returncode == 0
    one, two = (Path(status(name)["run_dir"]) for name in names)
    assert trajectory(one) == trajectory(two)

    found = json.loads(manager("clean", "--older-than", "0s", "--dry-run", "--json").stdout)
    assert len(found["runs"]) == 2 and [Path(code["folder"]).parent for code in found["code"]] == [base / "code"]
    there = sum(path.lstat().st_size for path in (base / "runs").rglob("*") if path.is_file())
    here = sum(path.lstat().st_size for run in (one, two) for path in run.rglob("*") if path.is_file())
    assert sum(run["bytes"] for run in found["runs"]) == there + here
    for code, _, err in at_once(*[["clean", "--older-than", "0s", "--yes"]] * 2):
        assert code == 0, err
    left = json.loads(manager("clean", "--older-than", "0s", "--yes", "--json").stdout)
    assert left["runs"] == left["code"] == left["failures"] == []
    assert not [path for path in (base / "code").iterdir()] and not list((base / "runs").glob("*/*"))
