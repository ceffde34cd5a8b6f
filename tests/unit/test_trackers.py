"""wandb and TensorBoard by reading back what they wrote; a tracker never harms the run."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kuiper.record import Recorder, trackers
from kuiper.record.metrics import read_metrics

CONFIG = {"job": {"job_name": "j", "run_id": "20260131-142501-7f3a", "mode": "cluster"},
          "conf": {"seed": 3, **{group: {"_name_": f"a_{group}"} for group in
                                 ("algorithm", "aggregator", "attack", "model", "dataset")}}}


def record(folder: Path, names: list[str], steps: range) -> None:
    """A short run in `folder`."""
    with Recorder(folder, "ps") as recorder:
        recorder.track(names, CONFIG)
        for step in steps:
            with recorder.phase("compute"):
                pass
            odd = {"clients": [1, 2], "odd": float("nan")}
            recorder.step(step, clock=0.5 * step, loss=1.0 / step, bytes_in=7, **odd)
        recorder.evaluation(steps[-1], 2.0, top_1=50.0, top_5=90.0, loss=0.25, digest="ff",
                            validation_top_1=40.0)
        recorder.end(steps[-1])


def records(folder: Path) -> Iterator[Any]:
    """What a run of wandb wrote: protocol buffers in LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    [path] = folder.glob("*.wandb")
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found = wandb_internal_pb2.Record()
            found.ParseFromString(parts)
            yield found
            parts = b""


def test_wandb_offline_is_read_back_and_resumes_under_its_id(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    record(tmp_path, ["wandb"], range(1, 4))
    record(tmp_path, ["wandb"], range(4, 6))
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    rows = []
    for folder in folders:
        found = list(records(folder))
        [run] = [one.run for one in found if one.WhichOneof("record_type") == "run"]
        assert (run.run_id, run.run_group, run.project) == (CONFIG["job"]["run_id"], "j", "kuiper")
        assert {"cluster", "a_algorithm", "a_attack"} <= set(run.tags)
        config = {each.key: json.loads(each.value_json) for each in run.config.update}
        assert config["conf"] == CONFIG["conf"]
        assert [one.exit.exit_code for one in found if one.WhichOneof("record_type") == "exit"] == [0]
        history = [one.history.item for one in found if one.WhichOneof("record_type") == "history"]
        rows += [{"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
                 for items in history]
    losses = [(row["step"], row["train/loss"], row["traffic/bytes_in"]) for row in rows if "train/loss" in row]
    assert losses == [(step, 1 / step, 7) for step in range(1, 6)]
    assert all("seconds/compute" in row for row in rows if "train/loss" in row)
    scores = [(row["step"], row["test/top_1"], row["test/loss"]) for row in rows if "test/top_1" in row]
    assert scores == [(3, 50, 0.25), (5, 50, 0.25)]
    assert "train/odd" not in rows[0] and "train/clients" not in rows[0]


def test_tensorboard_is_read_back(tmp_path: Path) -> None:
    record(tmp_path, ["tensorboard"], range(1, 4))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [(one.step, one.value) for one in found.Scalars("train/loss")] == [
        (step, pytest.approx(1 / step)) for step in range(1, 4)]
    assert [(one.step, one.value) for one in found.Scalars("test/top_1")] == [(3, 50.0)]
    assert [(one.step, one.value) for one in found.Scalars("validation/top_1")] == [(3, 40.0)]
    assert "config/text_summary" in found.Tags()["tensors"]


def test_nothing_is_imported_that_was_not_asked_for() -> None:
    code = "import sys, kuiper.record; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not {"wandb", "tensorboard", "torch"} & set(done.stdout.split())


def warnings(text: str) -> list[str]:
    return [line["msg"] for line in map(json.loads, text.splitlines()) if line["level"] == 40]


def test_one_that_is_not_installed_says_how(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "kuiper.record.trackers.wandb", raising=False)
    record(tmp_path, ["wandb"], range(1, 3))
    [warning] = warnings(capsys.readouterr().err)
    assert "pip install 'kuiper[wandb]'" in warning
    assert [line["event"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [
        "step", "step", "evaluation", "end"]


class Bad:
    """Fails at the second step, or never closes."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.told: list[int] = []

    def log(self, step: int, values: dict[str, float]) -> None:
        self.told.append(step)
        if self.fails and step == 2:
            raise ConnectionError("the dashboard is gone")

    def close(self, failed: bool) -> None:
        threading.Event().wait()


@pytest.mark.parametrize(("fails", "says", "told"), [
    (True, "off from here on: ConnectionError: the dashboard is gone", [1, 2]),
    (False, "did not end in time", [1, 2, 3, 3]),
])
def test_one_that_fails_is_a_warning_and_then_silence(
        fails: bool, says: str, told: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    bad = Bad(fails)
    monkeypatch.setattr(trackers, "_module", lambda name: types.SimpleNamespace(start=lambda *_: bad))
    monkeypatch.setattr(trackers, "_CLOSE_SECONDS", 0.05)
    record(tmp_path, ["tensorboard"], range(1, 4))
    [warning] = warnings(capsys.readouterr().err)
    assert says in warning
    assert bad.told == told
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 5
