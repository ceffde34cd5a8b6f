"""Divergence by itself: the bound, the words, the record and what a checkpoint keeps; then as a user sees it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kuiper.analysis import compare, load_curves
from kuiper.cli.app import app
from kuiper.cli.follow import Lines
from kuiper.cli.plot import print_table
from kuiper.cli.show import evaluation_text
from kuiper.cluster.logs import Line
from kuiper.cluster.store import Job, Process, load, register
from kuiper.errors import JobFailed
from kuiper.record import Recorder, load_perf
from kuiper.record.divergence import Divergence
from kuiper.record.metrics import read_metrics
from tests.unit.test_analysis import HEADER, config, run_dir

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(("losses", "step", "reason"), [
    ([2.3, 1.0, NAN, 1.0], 2, "the training loss is nan"),
    ([2.3, INF], 1, "the training loss is inf"),
    ([2.3, -INF], 1, "the training loss is -inf"),
    ([NAN, 1.0], 0, "the training loss is nan"),
    ([INF, INF], 0, "the training loss is inf"),
    ([2.0, 2000.0, 2000.1], 2, "the training loss is 2e+03, more than 1000 times the larger of 1 and the first, 2"),
    ([0.01, 1000.0, 1001.0], 2, "the training loss is 1e+03, more than 1000 times the larger of 1 and the first, 0.01"),
    ([50.0, 49_000.0], None, ""),
    ([50.0, 1e30, 1.0], 1, "the training loss is 1e+30, more than 1000 times the larger of 1 and the first, 50"),
    ([-5.0, 999.0, 1001.0], 2, "the training loss is 1e+03, more than 1000 times the larger of 1 and the first, -5"),
    ([None, None, 3.0, None], None, ""),
    ([None, 3.0, 3001.0], 2, "the training loss is 3e+03, more than 1000 times the larger of 1 and the first, 3"),
])  # fmt: skip
def test_the_bound_on_a_loss(losses: list[float | None], step: int | None, reason: str) -> None:
    divergence = Divergence()
    news = [divergence.look(at, loss) for at, loss in enumerate(losses)]
    assert (divergence.step, divergence.reason) == (step, reason)
    assert news == [at == step for at in range(len(losses))]  # told once


def recorder(folder: Path, on_divergence: str = "go_on") -> Recorder:
    folder.mkdir(exist_ok=True)
    return Recorder(folder, "ps", HEADER, on_divergence)


def test_the_record_tells_it_once_and_marks_what_follows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with recorder(tmp_path) as record:
        record.evaluation(0, 0.0, 10.0, 50.0, 2.3)
        record.step(1, loss=2.0)
        record.evaluation(1, 1.0, 30.0, 60.0, INF)
        record.step(2, loss=NAN)
        record.evaluation(2, 2.0, 9.8, 50.0, NAN)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["event"], line["step"], line.get("diverged")) for line in lines] == [
        ("evaluation", 0, None), ("step", 1, None), ("evaluation", 1, 1), ("diverged", 1, None),
        ("step", 2, 1), ("evaluation", 2, 1)]
    assert (lines[3]["reason"], lines[3]["loss"], lines[3]["non_finite"]) == (
        "the test loss is inf", None, {"loss": "inf"})
    assert [line.get("non_finite") for line in lines[4:]] == [{"loss": "nan"}] * 2
    perf = load_perf(tmp_path / "training_perf")
    assert perf["diverged"] == 1 and type(perf["diverged"]) is int and math.isnan(perf["perf"][2]["loss"])
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    [warning] = [line for line in said if line["level"] == 40]
    assert "diverged at step 1: the test loss is inf; lower optimizer.lr" in warning["msg"]


def test_stopping_comes_after_the_last_line_is_written(tmp_path: Path) -> None:
    with recorder(tmp_path, "stop") as record:
        record.evaluation(0, 0.0, 10.0, 50.0, 2.3)
        with pytest.raises(JobFailed, match="diverged at step 4: the test loss is nan"):
            record.evaluation(4, 1.0, 9.8, 50.0, NAN)
    assert load_perf(tmp_path / "training_perf")["perf"][4]["top_1: "] == 9.8
    assert [line["event"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [
        "evaluation", "evaluation", "diverged"]


def test_only_rank_0_looks(tmp_path: Path) -> None:
    with Recorder(tmp_path, "worker_1", on_divergence="stop") as record:
        record.step(1, loss=NAN)
    assert [line["event"] for line in read_metrics(tmp_path / "metrics.jsonl")] == ["step"]


@pytest.mark.parametrize(("checkpoint", "expected"), [(1, 3), (3, 2), (4, 2)])
def test_resume_keeps_what_was_before_the_checkpoint(tmp_path: Path, checkpoint: int, expected: int) -> None:
    """It diverged at step 2; resumed before that, and with a first loss of 2.0 as ever, it does so at step 3."""
    with recorder(tmp_path) as record:
        for step, loss in enumerate([2.0, 1.0, 2001.0, 1.0, 1.0]):
            record.step(step, loss=loss)
            if step == checkpoint:
                state = json.loads(json.dumps(record.state()))
    with recorder(tmp_path) as record:
        record.resume(checkpoint, state)
        record.step(checkpoint + 1, loss=1999.0)
        record.step(checkpoint + 2, loss=2001.0)
    events = [line for line in read_metrics(tmp_path / "metrics.jsonl") if line["event"] == "diverged"]
    assert [event["step"] for event in events] == [expected]
    assert load_perf(tmp_path / "training_perf")["diverged"] == expected


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """A run that is fine and one that diverged at step 2, as they are on record when they have ended."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    register(tmp_path / "logs")
    made = []
    for name, losses in {"fine": [2.3, 0.1], "wild": [2.3, NAN]}.items():
        folder = tmp_path / "logs" / name / f"{name}-id"
        run_dir(folder, [], config(name, job=name, run_id=f"{name}-id"))
        with Recorder(folder / "ps", "ps", HEADER) as record:
            for step, loss in enumerate(losses, 1):
                record.evaluation(step, float(step), 10.0 * step, 50.0, loss)
        lines = read_metrics(folder / "ps" / "metrics.jsonl")
        evaluation = [line for line in lines if line["event"] == "evaluation"][-1]
        diverged = evaluation.get("diverged")
        final = {"state": "SUCCEEDED", "reason": "", "evaluation": evaluation, "diverged": diverged}
        made.append(Job(folder, name, f"{name}-id", "simulate", 0.0, 1.0, [Process("ps", "localhost")], final=final))
        made[-1].save()
        assert load(folder).final == final
    return made


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def strict(text: str) -> Any:
    """JSON as other languages' parsers take it."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_every_verb_that_shows_a_score_says_it(jobs: list[Job]) -> None:
    fine, wild = (next(line for line in run("list").splitlines() if name in line) for name in ("fine", "wild"))
    assert "20.00%, diverged at step 2" in wild and "diverged" not in fine
    assert run("wait", "wild").split(" ", 2)[2].strip() == "SUCCEEDED diverged at step 2"
    assert "diverged" not in run("wait", "fine")
    for text in (run("list", "--json"), run("wait", "fine", "wild", "--json")):
        by_name = {one["job_name"]: one for one in strict(text)}
        assert by_name["wild"]["diverged"] == 2 and by_name["fine"]["diverged"] is None
        assert (by_name["wild"]["state"], by_name["wild"]["exit_code"]) == ("SUCCEEDED", 0)
        assert by_name["wild"]["evaluation"]["non_finite"] == {"loss": "nan"}
    table = run("plot", "fine", "wild", "-o", "out.png").splitlines()
    assert table[1].split()[0] == "fine" and "step" not in table[1] and "diverged at step 2" in table[2]
    rows = strict(run("plot", "fine", "wild", "-o", "out.png", "--json"))["configurations"]
    assert [row["diverged"] for row in rows] == [[None], [2]]


def test_following_shows_the_loss_that_is_none(jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for event in read_metrics(jobs[1].run_dir / "ps" / "metrics.jsonl"):
        lines.show(event)
    shown = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("{")]
    assert shown[-2].endswith("accuracy 20.00%, test loss nan, diverged at step 2")
    assert shown[-1] == "diverged at step 2: the test loss is nan"


def test_a_table_counts_seeds_and_takes_its_target_from_runs_that_are_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of three seeds of one rule diverged, at 20 and at 10; its best is 90, and the other rule's 60."""
    folders = [run_dir(tmp_path / str(seed), [10.0, 50.0, 90.0], config("average", "a", str(seed), seed=seed))
               for seed in (1, 2, 3)]
    folders.append(run_dir(tmp_path / "median", [10.0, 50.0, 60.0], config("median", "b", "4")))
    for folder, step in zip(folders[1:3], (20, 10), strict=True):
        with Recorder(folder / "ps", "ps") as record:
            record.metrics.event("diverged", step=step)
    rows = compare(load_curves(folders))
    assert [row["diverged"] for row in rows] == [[None, 20, 10], [None]]
    assert [row["target"] for row in rows] == [57.0, 57.0]  # 95 % of 60
    print_table(rows)
    assert "2 of 3 diverged, the first at step 10" in capsys.readouterr().out


def test_losses_are_readable_whatever_they_are() -> None:
    record = {"msg": "evaluation", "level": 30, "top_1": 20.0, "loss": None, "non_finite": {"loss": "nan"}}
    assert Line(None, "ps", 0.0, "", record).shown.endswith("INFO  evaluation  top_1 20  loss nan")
    assert evaluation_text({"top_1": 20.0, "loss": 3.1489943e34}) == "accuracy 20.00%, test loss 3.149e+34"
