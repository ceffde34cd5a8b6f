"""What users are told of units, losses, cores and their own environment."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from typer.testing import CliRunner

from kuiper.algorithms.federated import FedAvg
from kuiper.algorithms.non_finite import NonFinitePolicy
from kuiper.attacks.adversary import Adversary
from kuiper.cli.app import app
from kuiper.cli.follow import Bar, Lines
from kuiper.cli.show import evaluation_text
from kuiper.cluster.agent import with_setup
from kuiper.cluster.own_environment import guarded, unguarded
from kuiper.cluster.resume import unit_of
from kuiper.cluster.store import Job
from kuiper.errors import JobFailed, QuorumLost
from kuiper.link import Channel
from kuiper.link.choice import first
from kuiper.record import Recorder

CONF = {
    "algorithm": "all_reduce", "num_workers": 4, "dataset": "iris", "model": "softmax", "batch_size": 1, "steps": 2,
}  # fmt: skip


def check(folder: Path, simulate: bool = True, workers: int = 4, **values: object) -> tuple[int, str]:
    spec = {"job_name": "x", "log_path": str(folder), "ps_ip": "localhost", "worker_ips": [f"localhost:{workers}"],
            "job_conf": {**CONF, **values}}
    (folder / "conf.yml").write_text(yaml.safe_dump(spec))
    done = CliRunner().invoke(app, ["check", str(folder / "conf.yml"), *["--simulate"] * simulate])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"pool": 3}, "pool is 3, and this machine has 2 cores"), ({"pool": 2}, ""), ({}, ""),
     ({"pool": 2, "threads": 2}, "pool is 2 with 2 threads each"), ({"threads": 3}, "threads is 3"),
     ({"simulate": False}, "4 processes compute on this machine, which has 2 cores"),
     ({"simulate": False, "workers": 2}, ""),
     ({"simulate": False, "workers": 2, "threads": 2}, "2 processes of 2 threads each")],
)  # fmt: skip
def test_more_computing_than_cores_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict, said: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    code, output = check(tmp_path, **settings)
    assert code == 0 and said in output and ("cores" in output) == bool(said)


FEDERATED = [{"event": "start", "steps": 4, "unit": "round", "algorithm": "fedavg"},
             {"event": "step", "step": 1, "time": 1.0, "loss": 0.5},
             {"event": "step", "step": 2, "time": 2.0, "loss": 0.25},
             {"event": "evaluation", "step": 2, "top_1": 90.0, "loss": 0.125}]  # fmt: skip


def test_progress_says_rounds_and_which_loss(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for event in FEDERATED:
        lines.show(event)
    assert capsys.readouterr().err.splitlines() == [
        "running: fedavg, 4 rounds", "round 2/4  accuracy 90.00%, test loss 0.1250"]
    columns = [TextColumn(f"{{task.fields[{name}]}}") for name in ("accuracy", "loss", "rate")]
    console = Console(file=io.StringIO(), width=200)
    bar = Bar(Progress(MofNCompleteColumn(), *columns, console=console, auto_refresh=False))
    for event in FEDERATED:
        bar.show(event)
    fields = bar.progress.tasks[0].fields
    bar.close()
    assert (fields["accuracy"], fields["loss"]) == ("test accuracy 90.00%", "training loss 0.250")
    assert fields["rate"] == "1.0 rounds/s"


def test_an_evaluation_says_that_its_loss_is_the_tests() -> None:
    assert evaluation_text({"top_1": 90.0, "loss": 1.0}) == "accuracy 90.00%, test loss 1.0000"


@pytest.mark.parametrize(
    ("conf", "unit"), [({"rounds": 3}, "round"), ({"rounds": None, "steps": 3}, "step"), (None, "step")])
def test_the_unit_of_a_job(tmp_path: Path, conf: dict | None, unit: str) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"conf": conf}))
    assert unit_of(Job(tmp_path, "x", "r", "simulate", 0.0, 1.0)) == unit
    (tmp_path / "config.yaml").unlink()
    assert unit_of(Job(tmp_path, "x", "r", "simulate", 0.0, 1.0)) == "step"


def test_errors_of_a_federated_job_say_round(tmp_path: Path) -> None:
    channels = [Channel("update", 2, width=1, unit=unit) for unit in ("round", "step")]
    for channel in channels:
        with pytest.raises(QuorumLost, match=f"update, {channel.unit} 7:"):
            first(None, Adversary(np.arange(0)), channel, channel, 7, np.arange(2), None, -1.0, 3)
    with Recorder(tmp_path, "ps") as recorder, pytest.raises(JobFailed, match="round 7: NaN or Inf"):
        NonFinitePolicy("stop", recorder, FedAvg.unit).passed(7, np.arange(1), torch.ones(1, 1), np.array([np.nan]))


def variables(commands: list[str], ours: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """The environment of a process after its setup commands."""
    words = with_setup(guarded(commands, ours), ["env", "-0"])
    base = {key: os.environ[key] for key in ("PATH", "HOME")}
    done = subprocess.run(words, env={**base, **own, **ours}, capture_output=True, text=True, check=True)
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)


@pytest.mark.parametrize(
    ("command", "own", "expected"),
    [("export KUIPER_DATA=/cluster", {"KUIPER_DATA": "/my data; $(x) 'y'"}, {"KUIPER_DATA": "/my data; $(x) 'y'"}),
     ("export KUIPER_DATA=/data/cluster", {"KUIPER_DATA": "/data"}, {"KUIPER_DATA": "/data"}),
     ("export KUIPER_DATA=/cluster", {}, {"KUIPER_DATA": "/cluster"}),
     ("export WANDB_MODE=online", {"WANDB_MODE": "offline"}, {"WANDB_MODE": "offline"}),
     ("unset http_proxy", {"http_proxy": "http://p"}, {"http_proxy": "http://p"}),
     ("export OMP_NUM_THREADS=4", {}, {"OMP_NUM_THREADS": "4"}),  # `threads` has set it, not the user
     ("export PATH=/env/bin:$PATH VIRTUAL_ENV=/env", {"VIRTUAL_ENV": "/mine"}, {"VIRTUAL_ENV": "/env"}),
     ("export XDG_DATA_DIRS=/more:$XDG_DATA_DIRS", {"XDG_DATA_DIRS": "/a:/b"}, {"XDG_DATA_DIRS": "/more:/a:/b"}),
     ("export NEW=1", {"LINES_OF": "two\nlines"}, {"NEW": "1", "LINES_OF": "two\nlines"})],
)  # fmt: skip
def test_own_variables_win_over_setup_commands(command: str, own: dict, expected: dict) -> None:
    found = variables([command], {"OMP_NUM_THREADS": "1"}, own)
    assert {key: found.get(key) for key in expected} == expected
    assert "PATH=/env" not in command or found["PATH"].startswith("/env/bin:")
    assert unguarded(guarded([command], [])) == [command] and guarded([], []) == [] == unguarded([])


def test_it_is_so_in_a_simulation_and_only_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    spec = {"job_name": "x", "log_path": str(tmp_path), "ps_ip": "localhost", "worker_ips": ["localhost:1"],
            "setup_commands": ["export KUIPER_DATA=/cluster"], "job_conf": CONF}
    (tmp_path / "conf.yml").write_text(yaml.safe_dump(spec))
    from kuiper.cluster import launch
    from kuiper.cluster.spec import load

    for simulate in (True, False):
        one = load(tmp_path / "conf.yml", (), simulate)
        config = launch.composed(one, simulate, "run")
        snapshot = launch.code_of(one)
        grounds = launch.prepare(one, ["localhost"], snapshot, lambda *_: None)
        [job] = launch.drafted(one, [config], grounds)
        files = launch.staged(one, config, job, grounds, snapshot, {})
        orders = [json.loads(file.data) for file in files if file.path.name == "agent.json"]
        assert orders and all((len(order["setup_commands"]) == 3) is simulate for order in orders)
