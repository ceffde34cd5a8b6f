"""A run keeps the code of its submit: queued seeds, `resume` and `retry` do not see what was edited since."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kuiper
from tests.integration.jobs import manager, only, write_spec
from tests.integration.test_faults import wait_for

CONF = {"algorithm": "parameter_server", "aggregator": "mine", "model": "softmax", "dataset": "iris", "num_workers": 2,
        "steps": 6, "checkpoint_interval": 2}
MINE = """
import time
from pathlib import Path

import helper

def mine(rows, f):
    print(helper.VERSION, flush=True)
    while Path({gate!r}).exists():
        time.sleep(0.05)
    if Path({fails!r}).exists() and mine.calls > 4:
        raise ValueError("as asked")
    mine.calls += 1
    return rows.mean(0)

mine.calls = 0
"""


def own_rule(folder: Path) -> Path:
    """A spec with a rule that waits while `gate` is there, and fails after 5 steps if `fails` is."""
    (folder / "mine.py").write_text(MINE.format(gate=str(folder / "gate"), fails=str(folder / "fails")))
    group = folder / "groups" / "aggregator" / "mine.yaml"
    group.parent.mkdir(parents=True)
    group.write_text("_target_: mine.mine\n_needs_: {f: 2, plus: 1}\n")
    edit(folder, 1)
    return write_spec(folder, "job", CONF, 0, allow=["mine"])


def edit(folder: Path, version: int) -> None:
    (folder / "helper.py").write_text(f"VERSION = 'version {version}'\n")


def versions(run_dir: str | Path) -> set[str]:
    return {line for line in (Path(run_dir) / "ps" / "log").read_text().splitlines() if line.startswith("version")}


def digests(run_dir: str | Path) -> set[str]:
    """Of the code, by every file that says it."""
    record, ran = (json.loads((Path(run_dir) / name).read_text()) for name in ("code.json", "environment.json"))
    return {record["digest"], ran["code"]}


def says(*arguments: str, code: int = 0) -> Any:
    done = manager(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_an_edit_after_the_submit_changes_no_run_of_it(tmp_path: Path) -> None:
    spec, gate, fails = own_rule(tmp_path), tmp_path / "gate", tmp_path / "fails"
    gate.touch(), fails.touch()
    first, second = says("submit", str(spec), "--simulate", "-o", "seed=[1,2]")
    wait_for(lambda: versions(first["run_dir"]))
    edit(tmp_path, 2)
    (tmp_path / "mine.py").write_text("gone wrong")
    gate.unlink()
    says("wait", "job", code=100)
    assert versions(first["run_dir"]) == versions(second["run_dir"]) == {"version 1"}
    fails.unlink()
    (tmp_path / "picture.png").touch()
    resumed = manager("resume", "job-seed1", "--follow")
    assert resumed.returncode == 0 and "has changed since" in resumed.stderr and "in 2 files" in resumed.stderr
    [again] = says("retry", "job-seed2", "--follow")
    for run in (first, second, again):
        assert versions(run["run_dir"]) == {"version 1"}
        assert digests(run["run_dir"]) == digests(first["run_dir"]) and len(digests(run["run_dir"])) == 1
    assert says("show", first["run_id"], again["run_id"])["differences"]["code"]["same"]

    [snapshot] = (tmp_path / "logs" / ".code").iterdir()
    (snapshot / "spec" / "helper.py").chmod(0o644)
    edit(snapshot / "spec", 3)
    before = sorted((tmp_path / "logs").rglob("*"))
    for verb in ("retry", "resume"):
        refused = manager(verb, "job-seed2" if verb == "retry" else second["run_id"])
        assert refused.returncode == 3 and f"not what is in {snapshot} now" in refused.stderr
        shutil.move(snapshot, tmp_path / "aside")
        refused = manager(verb, "job-seed2" if verb == "retry" else second["run_id"])
        assert refused.returncode == 3 and f"is gone from {snapshot}" in refused.stderr, refused.stderr
        assert "submit the job again" in refused.stderr
        shutil.move(tmp_path / "aside", snapshot)
    assert sorted((tmp_path / "logs").rglob("*")) == before

    assert says("clean", "--older-than", "0s", "--dry-run")["code"][0]["folder"] == str(snapshot)
    assert says("clean", "--older-than", "1d", "--yes")["code"] == [] and snapshot.exists()
    assert says("clean", "--older-than", "0s", "--yes")["failures"] == []
    assert not list((tmp_path / "logs" / ".code").iterdir())


def test_an_edit_of_the_package_changes_no_run_either(tmp_path: Path) -> None:
    """Of a checkout, here a copy of this one; it is even gone when the run is resumed."""
    source = tmp_path / "checkout"
    shutil.copytree(Path(kuiper.__file__).parent, source / "kuiper", ignore=shutil.ignore_patterns("__pycache__"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(source), "PYTHONSAFEPATH": "1"}
        return subprocess.run([sys.executable, "-m", "kuiper.cli", *words, "--json"], env=env, capture_output=True,
                              text=True, timeout=120)

    spec = write_spec(tmp_path, "job", {**CONF, "aggregator": "median"}, 0, mode="simulate")
    first = only(run("submit", str(spec), "--follow"))
    assert first["state"] == "SUCCEEDED"
    rule = source / "kuiper" / "aggregation" / "median.py"
    rule.write_text(rule.read_text() + "\nraise ValueError('edited')\n")
    assert only(run("retry", "job", "--follow"))["state"] == "SUCCEEDED"
    edited = only(run("submit", str(spec), "--follow"))
    assert edited["state"] == "FAILED" and "edited" in edited["reason"]
    assert len(digests(first["run_dir"])) == 1
    assert json.loads((Path(edited["run_dir"]) / "code.json").read_text())["digest"] not in digests(first["run_dir"])
    shutil.rmtree(source)
    assert says("retry", first["run_id"], "--follow")[0]["state"] == "SUCCEEDED"


def test_what_lies_beside_the_spec_changes_no_digest(tmp_path: Path) -> None:
    """Nor does it keep the modules out, however large it is."""
    spec = own_rule(tmp_path)
    [first] = says("submit", str(spec), "--simulate", "--follow")
    with open(tmp_path / "large.npz", "wb") as file:
        file.truncate(200 << 20)
    (tmp_path / "results.csv").write_text("1")
    (tmp_path / "other.yml").write_text("job_name: other")
    [second] = says("submit", str(spec), "--simulate", "--follow")
    assert versions(second["run_dir"]) == {"version 1"} and digests(first["run_dir"]) == digests(second["run_dir"])
    assert len(list((tmp_path / "logs" / ".code").iterdir())) == 1
    edit(tmp_path, 2)
    note = manager("submit", str(spec), "--simulate", "--needed", "-q").stderr
    assert "; 1 file of the code changed since" in note
