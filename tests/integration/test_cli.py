"""The command line as a user's shell sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kuiper.cluster import identity

MANAGER = [sys.executable, str(Path(__file__).resolve().parents[2] / "manager.py")]
SPEC = """
job_name: hello
ps_ip: localhost
worker_ips: [localhost:1]
log_path: {logs}
limits: {{grace: 5s}}
job_conf:
  {{algorithm: parameter_server, model: softmax, dataset: iris, num_workers: 2, steps: 4, eval_interval: 2}}
"""
LONG = ["-o", "steps=1000000", "-o", "eval_interval=1000"]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "conf.yml"
    path.write_text(SPEC.format(logs=tmp_path / "logs"))
    return path


def manager(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*MANAGER, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("arguments", [
    ["list"], ["status", "x"], ["stop", "x"], ["logs", "x"], ["wait", "x"], ["show", "x"], ["retry", "x"],
    ["clean", "--dry-run"], ["completion", "bash"], ["init", "here.yml"]])
def test_quick_verbs_import_neither_torch_nor_hydra(arguments: list[str]) -> None:
    code = (
        "import sys; from kuiper.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'hydra', 'omegaconf', 'numpy', 'cryptography', 'matplotlib'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_control_plane_never_imports_torch(conf: Path) -> None:
    code = (
        "import sys; from kuiper.cluster import launch, spec\nfrom kuiper.config.compose import compose\n"
        "compose(spec.load(sys.argv[1]), False, 'x'); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, str(conf)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_errors_are_messages_with_exit_codes(tmp_path: Path, conf: Path) -> None:
    unknown = json.loads(manager("status", "nobody", "--json", code=102).stdout)
    assert unknown["exit_code"] == 102 and "nobody" in unknown["error"]
    wrong = manager("submit", conf, "-o", "num_workers=-1", code=3)
    assert "num_workers" in wrong.stderr and "Traceback" not in wrong.stderr
    assert not (tmp_path / "logs").exists()
    assert "Traceback" in manager("submit", conf, "-v", "-o", "num_workers=-1", code=3).stderr
    manager("submit", conf, "-o", "no equals sign", code=2)
    manager("sumbit", conf, code=2)


def test_a_simulation_followed_to_its_end(conf: Path) -> None:
    done = manager("submit", conf, "--simulate", "--follow", "--json")
    [result] = json.loads(done.stdout)
    assert {key: result[key] for key in ("job_name", "state", "exit_code")} == {
        "job_name": "hello", "state": "SUCCEEDED", "exit_code": 0
    }  # fmt: skip
    assert result["evaluation"]["step"] == 4
    assert "step 4/4" in done.stderr  # no terminal: a line per evaluation
    run_dir = Path(result["run_dir"])
    assert run_dir.name == result["run_id"] and (run_dir / "ps" / "training_perf").exists()
    [listed] = json.loads(manager("list", "--json").stdout)
    assert listed == result
    [status] = json.loads(manager("status", "hello", "--json").stdout)
    assert [process["state"] for process in status["processes"]] == ["SUCCEEDED"]
    assert manager("wait", "hello", "-q").stdout == ""
    assert "hello" in manager("list").stdout and result["run_id"] in manager("status", "hello").stdout
    manager("logs", "hello", "--errors")


def test_leaving_a_job_does_not_stop_it(conf: Path) -> None:
    command = [*MANAGER, "submit", str(conf), "--simulate", "-f", *LONG]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert following.stderr is not None
    for line in following.stderr:
        if line.startswith("step 0/"):
            break
    following.send_signal(signal.SIGINT)
    out, _ = following.communicate(timeout=30)
    assert following.returncode == 101 and "the job goes on" in out
    manager("submit", conf, "--simulate", code=5)
    assert manager("status", "hello", "-q").stdout == "RUNNING\n"
    manager("wait", "hello", "--timeout", "0", code=101)
    [stopped] = json.loads(manager("stop", "hello", "--json").stdout)
    assert stopped["state"] == "STOPPED" and identity.marked(stopped["run_id"]) == []
    manager("wait", "hello", code=103)
    assert "no process of it is left" in manager("stop", "hello").stdout


def test_a_follower_that_is_killed_does_not_take_the_job_along(conf: Path) -> None:
    command = [*MANAGER, "submit", str(conf), "--simulate", "-f", "-q", *LONG]
    with subprocess.Popen(command, start_new_session=True) as following:
        while '"RUNNING"' not in (listed := manager("list", "--json").stdout):
            time.sleep(0.2)
        os.killpg(following.pid, signal.SIGKILL)
    assert identity.marked(json.loads(listed)[0]["run_id"])
    manager("stop", "hello", "--grace", "3")
