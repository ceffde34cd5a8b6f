"""A run that is killed and resumed ends with the bits of one that was not: losses, scores, models, clocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kuiper.algorithms.base import Algorithm
from kuiper.cluster import agent
from kuiper.cluster.spec import load
from kuiper.config.compose import compose
from kuiper.process import Process
from kuiper.record import load_perf
from tests.integration.jobs import events, follow, manager, only, trajectory, write_spec
from tests.integration.test_faults import at_step, kill, start, wait_for
from tests.integration.test_parity import COMMON, FAMILIES

NOT_OF_THE_MODEL = ("wall", "phases", "clock", "bytes_in", "bytes_out")

# A schedule beside the spec. At the step that a file names, once, it kills whatever runs of the job.
DYING = """
import os, signal
from pathlib import Path
from kuiper.cluster import agent

def dying(step, steps):
    when = Path("{folder}/die_at")
    try:
        if step + 1 != int(when.read_text()):
            return 1.0
        when.unlink()
    except FileNotFoundError:  # it has happened, or another process is at it
        return 1.0
    for who in agent.marked(KUIPER_RUN=os.environ["KUIPER_RUN"]):
        agent.send(who, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Killed(BaseException):
    """Stands in for SIGKILL where a test runs the process itself."""


def simulate(spec: Path, run_dir: Path, resume: bool = False) -> Path:
    """Run, or go on with, the simulation of a spec in this process."""
    config = compose(load(spec, simulate=True), True, "run")
    (run_dir / "ps").mkdir(parents=True, exist_ok=True)
    Process(config, run_dir, 0, resume=resume).run()
    return run_dir


def evaluations(run_dir: Path, without: tuple[str, ...] = ("wall", "phases")) -> list[dict[str, Any]]:
    perf = load_perf(run_dir / "ps" / "training_perf")["perf"]
    return [{key: value for key, value in entry.items() if key not in without} for entry in perf.values()]


def clocks(run_dir: Path) -> list[float]:
    return [event["clock"] for event in events(run_dir, "step")]


QUORUM = {**FAMILIES["parameter_server"], "aggregator": "median", "quorum": "n-f"}


@pytest.mark.parametrize("family", [*FAMILIES, "quorum"])
def test_a_simulation_goes_on_with_the_same_bits(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = {**COMMON, **FAMILIES.get(family, QUORUM), "checkpoint_interval": 2, "devices": "lognormal"}
    spec = write_spec(tmp_path, "job", conf, 0)
    whole = simulate(spec, tmp_path / "whole")
    run_dir, lr_scale = tmp_path / "killed", Algorithm.lr_scale
    for step in (4, 5):  # twice: the second life goes on from the first one's checkpoint, and leaves another
        def dying(self: Algorithm, at: int, last: int = step) -> float:
            if at == last:
                raise Killed
            return lr_scale(self, at)

        monkeypatch.setattr(Algorithm, "lr_scale", dying)
        with pytest.raises(BaseExceptionGroup):
            simulate(spec, run_dir, resume=step == 5)
    monkeypatch.setattr(Algorithm, "lr_scale", lr_scale)
    simulate(spec, run_dir, resume=True)
    assert trajectory(run_dir) == trajectory(whole)
    assert evaluations(run_dir) == evaluations(whole) and clocks(run_dir) == clocks(whole)


def test_damaged_checkpoints_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    conf = {**COMMON, **FAMILIES["gossiping_sgd"], "checkpoint_interval": 2}
    spec = write_spec(tmp_path, "job", conf, 0)
    whole = simulate(spec, tmp_path / "whole")
    expected = trajectory(whole)
    kept = whole / "ps" / "checkpoint"
    assert {path.name for path in kept.iterdir()} == {"6.checkpoint", "8.checkpoint", "10.checkpoint"}
    for step in (10, 8, 6):
        path = kept / f"{step}.checkpoint"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        capsys.readouterr()
        simulate(spec, whole, resume=True)
        said = capsys.readouterr().err
        assert "checksum" in said and ("from the beginning" in said) == (step == 6)
        assert trajectory(whole) == expected
        for later in range(step, 12, 2):  # it was made again: damage it for the next round
            (kept / f"{later}.checkpoint").write_bytes(b"")


def dying_spec(folder: Path, conf: dict[str, Any], processes: int, step: int) -> Path:
    """A spec whose job is killed whole at a step, the first time that it gets there."""
    (folder / "dying.py").write_text(DYING.replace("{folder}", str(folder)))
    (folder / "die_at").write_text(str(step))
    group = folder / "groups" / "schedule" / "dying.yaml"
    group.parent.mkdir(parents=True, exist_ok=True)
    group.write_text("_target_: dying.dying\n_doc_: a schedule that kills\n")
    return write_spec(folder, "job", {**conf, "schedule": "dying"}, processes, allow=["dying"])


def killed(folder: Path, conf: dict[str, Any], processes: int, step: int) -> Path:
    """The run directory of a job that was killed whole at a step."""
    spec = dying_spec(folder, conf, processes, step)
    how = [] if processes else ["--simulate"]
    assert manager("submit", str(spec), "--follow", *how).returncode == 100
    [run_dir] = (folder / "logs" / "job").iterdir()
    assert not (folder / "die_at").exists() and not agent.marked(KUIPER_RUN=run_dir.name)
    return run_dir


@pytest.mark.parametrize("family", ["parameter_server", "all_reduce", "elastic_gossip", "fedavg"])
def test_processes_go_on_with_the_same_bits(family: str, tmp_path: Path) -> None:
    conf = {**COMMON, **FAMILIES[family], "checkpoint_interval": 2, "eval_interval": 2}
    whole = Path(follow(write_spec(tmp_path, "whole", conf, 0), "--simulate")["run_dir"])
    step = 5 if "rounds" in conf else 8
    run_dir = killed(tmp_path, conf, 2, step)
    expected = 4 if "rounds" in conf else 6
    if family == "parameter_server":  # the newest, at one process only: the one before it is taken by all
        newest = max((run_dir / "worker_1" / "checkpoint").iterdir(), key=lambda path: int(path.stem))
        newest.write_bytes(newest.read_bytes()[:-1])
        expected = int(newest.stem) - 2
    done = manager("resume", "job", "--follow", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert only(done)["state"] == "SUCCEEDED"
    assert trajectory(run_dir) == trajectory(whole)
    assert evaluations(run_dir, NOT_OF_THE_MODEL) == evaluations(whole, NOT_OF_THE_MODEL)
    for process in ("ps", "worker_1", "worker_2"):
        assert [event["step"] for event in events(run_dir, "resumed", process)] == [expected]
    if family == "parameter_server":
        assert "checksum" in (run_dir / "worker_1" / "log").read_text()
        assert f"step {expected + 2} is not whole at worker_1" in (run_dir / "ps" / "log").read_text()
    assert clocks(run_dir) == sorted(clocks(run_dir))


def test_a_worker_that_was_gone_takes_part_again(tmp_path: Path) -> None:
    conf = {**COMMON, **FAMILIES["parameter_server"], "aggregator": "median", "num_workers": 4, "num_byzantine": 0,
            "attack": "none", "f": 1, "steps": 100_000, "eval_interval": 1000, "checkpoint_interval": 20}
    job = start(write_spec(tmp_path, "gone", conf, 4))
    kill(job, "worker_2")
    before = at_step(job)
    wait_for(lambda: at_step(job) > before + 100)
    assert manager("stop", "gone").returncode == 0
    assert manager("resume", "gone").returncode == 0
    wait_for(lambda: events(job["run_dir"], "resumed"))
    [resumed] = events(job["run_dir"], "resumed")
    assert resumed["step"] > before and resumed["step"] % 20 == 0
    wait_for(lambda: events(job["run_dir"], "step")[-1]["step"] > resumed["step"])
    assert events(job["run_dir"], "step")[-1]["rows"] == 4
    said = (Path(job["run_dir"]) / "worker_2" / "log").read_text()
    assert f"for step {resumed['step']}, the newest state that this process has is of step" in said
    assert manager("stop", "gone").returncode == 0


def test_resume_as_a_user_sees_it(tmp_path: Path) -> None:
    conf = {**COMMON, **FAMILIES["parameter_server"], "checkpoint_interval": 3}
    run_dir = killed(tmp_path, conf, 0, 6)
    assert manager("resume", "nobody").returncode == 102
    done = manager("resume", run_dir.name, "--follow", "--json")
    assert done.returncode == 0, done.stderr
    assert [event["step"] for event in events(run_dir, "resumed")] == [3]
    again = manager("resume", "job")
    assert again.returncode == 5 and "has succeeded" in again.stderr

    long = {**conf, "steps": 1_000_000, "eval_interval": 1000}
    other = write_spec(tmp_path, "job", long, 0)
    assert manager("submit", str(other), "--simulate").returncode == 0
    for key, why in (("job", "is RUNNING"), (run_dir.name, "has succeeded")):
        refused = manager("resume", key)
        assert refused.returncode == 5 and why in refused.stderr
    [*_, last] = sorted((tmp_path / "logs" / "job").iterdir())
    wait_for(lambda: at_step({"run_dir": last}) > 3)
    assert manager("stop", "job").returncode == 0  # which keeps a checkpoint first
    stopped = events(last, "step")[-1]["step"]
    assert (last / "ps" / "checkpoint" / f"{stopped}.checkpoint").exists()
    assert manager("resume", "job").returncode == 0
    wait_for(lambda: at_step({"run_dir": last}) > stopped)
    assert [event["step"] for event in events(last, "resumed")] == [stopped]
    assert manager("stop", "job").returncode == 0

    path = last / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["conf"]["checkpoint_interval"] = None
    path.write_text(yaml.safe_dump(config))
    refused = manager("resume", "job")
    assert refused.returncode == 3 and "keeps no checkpoints" in refused.stderr
