"""metrics.jsonl, the log, the environment and the recorder that ties them together."""

import io
import json
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from kuiper.errors import RecordError
from kuiper.record import Recorder, environment, load_perf
from kuiper.record.log import bunyan_logger
from kuiper.record.metrics import MetricsLog, read_metrics
from kuiper.record.recorder import PHASES

HEADER = {
    "data_set": "digits", "model": "mlp", "sample_mode": "all", "gradient_policy": "average", "task": "cv",
}  # fmt: skip
ROOT = Path(__file__).parents[2]


def test_metrics_are_valid_json_whatever_the_numbers(tmp_path: Path) -> None:
    rows = [np.float32(0.5), float("inf")]
    with closing(MetricsLog(tmp_path / "metrics.jsonl")) as metrics:
        metrics.event("step", step=np.int64(1), loss=float("nan"), rows=rows, deep={"x": -np.inf})
    (line,) = read_metrics(tmp_path / "metrics.jsonl")
    assert abs(line.pop("time") - time.time()) < 60
    assert line == {"event": "step", "step": 1, "loss": None, "rows": [0.5, None],
                    "deep": {"x": None, "non_finite": {"x": "-inf"}}, "non_finite": {"loss": "nan"}}


def test_a_torn_last_line_is_left_out_and_dropped_on_reopening(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with closing(MetricsLog(path)) as metrics:
        metrics.event("step", step=1)
    with path.open("a") as file:
        file.write('{"event": "st')
    assert [line["step"] for line in read_metrics(path)] == [1]
    with closing(MetricsLog(path)) as metrics:
        metrics.event("step", step=2)
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    path.write_text('{"event": "a"}\n{"event"\n{"event": "b"}\n')
    with pytest.raises(RecordError, match="metrics.jsonl:2"):
        read_metrics(path)


def test_a_full_disk_stops_the_log_between_lines(tmp_path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from kuiper.errors import RecordError\n"
        "from kuiper.record.metrics import MetricsLog\n"
        "metrics = MetricsLog(Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    for step in range(1000):\n"
        "        metrics.event('step', step=step)\n"
        "except RecordError as error:\n"
        "    assert sys.argv[1] in error.message\n"
        "    sys.exit(7)\n"
    )
    path = tmp_path / "metrics.jsonl"
    assert subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT).returncode == 7
    assert path.read_bytes().endswith(b"}\n") and len(read_metrics(path)) > 5


def test_log_lines_have_bunyans_fields() -> None:
    stream = io.StringIO()
    log = bunyan_logger("worker_1", stream)
    log.debug("not shown")
    log.warning("late: node %d", 3, extra={"step": 7, "loss": float("nan"), "level": "not ours to change"})
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed")
    warning, failure = (json.loads(line) for line in stream.getvalue().splitlines())
    assert {"name", "hostname", "pid", "level", "time", "msg", "v"} <= warning.keys()
    assert (warning["name"], warning["level"], warning["v"]) == ("worker_1", 40, 0)
    assert (warning["msg"], warning["step"], warning["loss"]) == ("late: node 3", 7, None)
    assert warning["time"].endswith("Z") and datetime.fromisoformat(warning["time"])
    assert failure["level"] == 50 and "ValueError: bad" in failure["err"]["stack"]


def test_recorder_writes_steps_phases_and_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with Recorder(tmp_path, "ps", HEADER) as recorder:
        recorder.start(steps=2, unit="step")
        recorder.evaluation(0, 0.0, 10.0, 50.0, 2.3)
        for step in (1, 2):
            with recorder.phase("wait"):
                time.sleep(0.01)
            recorder.step(step, clock=float(step), bytes_in=100, bytes_out=50)
        recorder.evaluation(2, 2.0, 20.0, 60.0, 2.1, worst=15.0)
        recorder.end(2)
        recorder.log.info("done")
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["event"] for line in lines] == ["start", "evaluation", "step", "step", "evaluation", "end"]
    assert all(set(PHASES) <= line.keys() for line in lines[2:4])
    assert 0.01 <= lines[3]["wait"] < 0.02 + lines[2]["wait"] and lines[3]["compute"] == 0
    perf = load_perf(tmp_path / "training_perf")["perf"]
    assert list(perf) == [0, 2]
    assert perf[2]["worst"] == 15.0 and (perf[2]["bytes_in"], perf[2]["bytes_out"]) == (200, 100)
    assert perf[0]["phases"]["wait"] == 0 and perf[2]["phases"]["wait"] >= 0.02 and perf[2]["wall"] >= 0.02
    said = [json.loads(line)["msg"] for line in capsys.readouterr().err.splitlines()]
    assert said[0] == "training begins" and "evaluation" in said and said[-1] == "done"


def test_only_rank_0_writes_training_perf(tmp_path: Path) -> None:
    with Recorder(tmp_path, "worker_1") as recorder:
        recorder.evaluation(0, 0.0, 10.0, 50.0, 2.3)
        with pytest.raises(KeyError), recorder.phase("lunch"):
            pass
    assert not (tmp_path / "training_perf").exists()
    with pytest.raises(RecordError, match="missing"):
        Recorder(tmp_path / "missing", "worker_1")


def test_environment_is_json_and_names_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    found = json.loads(json.dumps(environment("0a", {"commit": "1b", "modified": False})))
    assert found["variables"]["ATEN_CPU_CAPABILITY"] == "avx2" and found["cores"] >= 1
    assert found["packages"]["numpy"] == np.__version__
    assert found["code"] == "0a" and found["git"]["commit"] == "1b"


def test_the_record_and_its_readers_import_neither_torch_nor_matplotlib() -> None:
    script = (
        "import sys, kuiper.record, kuiper.analysis\n"
        "sys.exit(bool({'torch', 'matplotlib'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0
