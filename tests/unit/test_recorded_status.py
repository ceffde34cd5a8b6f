"""Numbers that status, list, show and plot say of a run, on inputs so small that they are worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuiper.analysis import compare, load_curves
from kuiper.cli.show import evaluation_text
from kuiper.cluster.account import account
from kuiper.cluster.states import JobStatus, ProcessStatus, State, process_status
from kuiper.cluster.store import Job, Process
from kuiper.record import Recorder
from tests.unit.test_analysis import HEADER, config, run_dir
from tests.unit.test_states import BOOT, ENDED, RUNNING


def seen(*events: dict[str, Any], **facts: Any) -> ProcessStatus:
    """At 100 s on the host's clock."""
    lines = "\n".join(json.dumps(event) for event in events)
    return process_status("ps", "localhost", {**RUNNING, "metrics": lines, **facts}, BOOT, now=100.0)


def test_progress_of_a_process() -> None:
    """Twelve steps in four seconds, in three lines; the values shown are those of the last line and evaluation."""
    evaluation = {"event": "evaluation", "step": 20, "top_1": 60.0, "loss": 0.5}
    status = seen(
        {"event": "evaluation", "step": 0, "top_1": 10.0}, {"event": "step", "time": 50.0, "step": 8, "loss": 9.0},
        {"event": "step", "time": 51.0, "step": 14, "loss": 8.0}, evaluation,
        {"event": "step", "time": 54.0, "step": 20, "loss": 7.0}, {"event": "late", "step": 99, "time": 60.0},
        heartbeat={"time": 88.0})
    assert (status.step, status.loss, status.rate, status.heartbeat_age) == (20, 7.0, 3.0, 12.0)
    assert status.evaluation == evaluation and status.diverged is None and status.non_finite == {}


def test_times_of_a_process_that_has_ended() -> None:
    status = seen(alive=False, agent_alive=False, **{"exit.json": {**ENDED, "started": 30.0, "ended": 90.0}})
    assert (status.started, status.ended, status.ended_ago, status.heartbeat_age) == (30.0, 90.0, 10.0, None)


@pytest.mark.parametrize(("events", "diverged"), [
    ([{"event": "diverged", "step": 5}], 5),
    ([{"event": "step", "step": 9, "time": 1.0, "diverged": 5}, {"event": "end", "step": 9}], 5),
    ([{"event": "evaluation", "step": 9, "diverged": 5}, {"event": "late", "step": 9}], 5),
    ([{"event": "step", "step": 9, "time": 1.0}, {"event": "not_finite", "step": 9, "nodes": [1]}], None),
])  # fmt: skip
def test_any_piece_of_the_record_says_that_it_diverged(events: list[dict], diverged: int | None) -> None:
    assert seen(*events).diverged == diverged


def test_a_loss_that_is_not_finite_is_shown_as_what_it_is() -> None:
    line = {"event": "step", "step": 3, "time": 1.0, "loss": None, "non_finite": {"loss": "inf", "deviation": "nan"}}
    assert (seen(line).loss, seen(line).non_finite) == (None, {"loss": "inf"})
    assert evaluation_text({"top_1": 9.8, "loss": None, "non_finite": {"loss": "inf"}, "diverged": 3}) == (
        "accuracy 9.80%, test loss inf, diverged at step 3")
    peers = {"top_1": 30.0, "worst": 10.0, "average_model": 70.0, "loss": 0.25}
    assert evaluation_text(peers) == "accuracy 30.00%, worst node 10.00%, average model 70.00%, test loss 0.2500"


def test_the_result_of_a_run(tmp_path: Path) -> None:
    """Of 10, 80 and 70 % after 0, 2 and 4 s: best 80, last 70; the process ran from 30 to 90 s."""
    folder = run_dir(tmp_path / "r1", [10.0, 80.0, 70.0], config())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config(), "processes": []}))
    job = Job(folder, "job", "r1", "simulate", 0.0, 1.0, [Process("ps", "localhost")])
    last = {"step": 20, "top_1": 70.0, "loss": 0.1, "clock": 4.0}
    process = ProcessStatus("ps", "localhost", State.SUCCEEDED, started=30.0, ended=90.0)
    result = account(job, JobStatus(State.SUCCEEDED, "", (process,), last, 20))["result"]
    assert result == {"state": "SUCCEEDED", "reason": "", "evaluations": 3, "step": 20, "top_1": 70.0,
                      "best_top_1": 80.0, "loss": 0.1, "clock": 4.0, "seconds": 60.0, "diverged": 20, "non_finite": {}}
    (folder / "ps" / "training_perf").unlink()  # as before `collect`
    elsewhere = account(job, JobStatus(State.SUCCEEDED, "", (process,), last, 20))["result"]
    assert elsewhere == {**result, "evaluations": None, "best_top_1": None}


def test_a_row_of_several_seeds(tmp_path: Path) -> None:
    """Best is the mean of each seed's best (80, 60), not the best of the means; bytes and clock are means."""
    folders = []
    for seed, (top_1, factor) in enumerate([([10.0, 80.0, 40.0], 1), ([20.0, 30.0, 60.0], 3)]):
        folders.append(run_dir(tmp_path / str(seed), [], config(job=f"j-seed{seed}", run_id=str(seed), seed=seed)))
        with Recorder(folders[-1] / "ps", "ps", HEADER) as record:
            for index, accuracy in enumerate(top_1):
                record.step(10 * index + 3, bytes_in=10 * factor, bytes_out=factor)
                record.evaluation(10 * index, 2.0 * index * factor, accuracy, 99.0, 0.1)
    [row] = compare(load_curves(folders), target=40.0)
    assert (row["top_1"], row["best_top_1"], row["clock"], row["rounds"]) == (50.0, 70.0, 8.0, 20)
    before = 10 + 5 + 1 + 2  # of `run_dir`
    assert row["bytes"] == ((before + 33) + (before + 99)) / 2
    assert (row["time_to_target"], row["reached"]) == ((2.0 + 12.0) / 2, 2)
    assert row["curve"]["clock"] == [0.0, 4.0, 8.0] and row["curve"]["top_1"] == [15.0, 55.0, 50.0]
    [late] = compare(load_curves(folders), target=70.0)
    assert (late["time_to_target"], late["reached"]) == (None, 1)  # no mean over those that got there


def test_a_curve_is_the_mean_over_seeds(tmp_path: Path) -> None:
    """Of 10, 20 and 60, which have another median; the worst peers' likewise."""
    folders = [run_dir(tmp_path / str(seed), [0.0, top_1], config(job=f"j-seed{seed}", run_id=str(seed), seed=seed),
                       worst=top_1 / 2) for seed, top_1 in enumerate((10.0, 20.0, 60.0))]
    [curve] = load_curves(folders)
    assert (curve.top_1, curve.worst, curve.clock) == ((0.0, 30.0), (0.0, 15.0), (0.0, 2.0))


def test_the_target_is_near_the_best_that_any_ended_with(tmp_path: Path) -> None:
    """95 % of 90 is 85.5; none ended with 97, where one has been."""
    folders = [run_dir(tmp_path / rule, top_1, config(rule)) for rule, top_1 in (
        ("average", [97.0, 60.0]), ("median", [10.0, 90.0]), ("krum", [10.0, 30.0]))]
    assert [row["target"] for row in compare(load_curves(folders))] == [85.0] * 3
