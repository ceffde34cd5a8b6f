"""What Kuiper's users bring with them: their conf.yml, and their files of hosts."""

from __future__ import annotations

from pathlib import Path

import yaml

from kuiper.record import load_perf
from tests.integration.jobs import ROOT, manager, only, write_spec


def test_a_conf_of_kuipers_runs_as_it_is(tmp_path: Path) -> None:
    """In the same words `check` and `submit` say what its keys are called here; its record is Kuiper's."""
    conf, options = str(ROOT / "configs" / "kuiper_conf.yml"), ("--simulate", "-o", "rounds=2")
    checked = manager("check", conf, *options)
    assert checked.returncode == 0 and f"{conf}:16: total_worker: 10 -> job_conf." in checked.stderr
    done = manager("submit", conf, *options, "--follow", "--json")
    assert done.returncode == 0 and done.stderr.startswith(checked.stderr)
    perf = load_perf(Path(only(done)["run_dir"]) / "ps" / "training_perf")
    said = [perf[key] for key in ("data_set", "model", "sample_mode", "gradient_policy", "task")]
    assert said == ["digits", "mlp", "random", "fedavg", "cv"]
    assert sorted(perf["perf"]) == [0, 2] and perf["perf"][2]["clock"] > 0


def test_host_files_are_kept_with_the_run(tmp_path: Path) -> None:
    conf = {"algorithm": "parameter_server", "model": "softmax", "dataset": "iris", "num_workers": 2}
    spec = write_spec(tmp_path, "files", {**conf, "steps": 2}, 0)
    (tmp_path / "s").write_text("localhost\n")
    (tmp_path / "w").write_text("# two processes\nlocalhost:2\n")
    words = "--servers", str(tmp_path / "s"), "--workers", str(tmp_path / "w")
    done = manager("submit", str(spec), *words, "--follow", "--json")
    assert done.returncode == 0, done.stderr
    run_dir = Path(only(done)["run_dir"])
    assert (run_dir / "servers").read_text() == "localhost\n"
    assert (run_dir / "workers").read_text() == "# two processes\nlocalhost:2\n"
    processes = yaml.safe_load((run_dir / "config.yaml").read_text())["processes"]
    assert [process["name"] for process in processes] == ["ps", "worker_1", "worker_2"]
