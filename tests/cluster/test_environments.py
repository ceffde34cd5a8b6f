"""Hosts whose torch is in an environment that setup_commands activate, and whose SFTP is of no use."""

from __future__ import annotations

import json
import os
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.jobs import LONG, submit
from tests.cluster.lab import Lab
from tests.cluster.test_bad_hosts import few
from tests.integration.jobs import manager

pytestmark = pytest.mark.cluster
SHORT = {**LONG, "steps": 5}


@pytest.fixture
def environment(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment that alone has torch: the hosts have none of the submitter's interpreter."""
    bare, env = tmp_path / "bare", tmp_path / "an environment"
    for folder in (bare, env):
        venv.create(folder, with_pip=False)
    site = next(env.glob("lib/python*/site-packages"))
    (site / "ours.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    for host in lab.hosts[:3]:
        Path(host.home, ".bashrc").write_text(f"echo hello\nexport PATH={bare}/bin:/usr/bin:/bin\n")
    yield env
    for host in lab.hosts[:3]:
        Path(host.home, ".bashrc").unlink()


def write(lab: Lab, folder: Path, name: str, conf: dict[str, Any] = SHORT, **more: Any) -> Path:
    path = folder / f"{name}.yml"
    spec = few(lab).spec(name, log_path=str(folder / "logs"), job_conf=conf, **more)
    path.write_text(yaml.safe_dump(spec))
    return path


def verdicts(path: Path) -> dict[tuple[str, str], str]:
    done = manager("doctor", str(path), "--json")
    return {(one["subject"], one["verdict"]): one["detail"] for one in json.loads(done.stdout)}


def test_setup_commands_choose_the_python(lab: Lab, tmp_path: Path, environment: Path) -> None:
    """doctor and submit look where the processes run; what the commands leave running is not left by a probe."""
    python = environment.parent / "bare" / "bin" / "python"
    hosts = few(lab).spec("x")
    path = write(lab, tmp_path, "chosen", setup_commands=[f"source '{environment}/bin/activate'", "setsid -f sleep 985",
                                                          "test -n $KUIPER_PROCESS"])
    found = verdicts(path)
    assert {verdict for _, verdict in found} <= {"ok", "warning"}, found
    assert str(environment) in found["python", "ok"]
    assert not any(b"985" in cmdline for cmdline in cmdlines())
    job = submit(path)
    assert manager("wait", "chosen").returncode == 0
    made = json.loads(Path(lab.hosts[0].home, "kuiper/runs/chosen", job["run_id"], "environment.json").read_text())
    assert made["executable"].startswith(str(environment))
    assert not any(b"985" in cmdline for cmdline in cmdlines())

    workers = [{**one, "python": str(python)} for one in hosts["worker_ips"]]  # type: ignore[attr-defined]
    given = write(lab, tmp_path, "given", setup_commands=[f"source '{environment}/bin/activate'"], worker_ips=workers)
    assert "bare" in verdicts(given)["torch", "wrong"]
    refused = manager("submit", str(given))
    assert refused.returncode == 4 and f"{python} has none" in refused.stderr, refused.stderr

    broken = write(lab, tmp_path, "broken", setup_commands=["source /nowhere/activate"])
    assert "setup command failed: source /nowhere/activate" in verdicts(broken)["login", "wrong"]
    refused = manager("submit", str(broken))
    assert refused.returncode == 4 and "setup command failed: source /nowhere/activate" in refused.stderr


def cmdlines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            pass
    return found


def test_a_process_that_dies_at_its_start_says_why(lab: Lab, tmp_path: Path) -> None:
    """A server that is dead does not listen either: that is no firewall."""
    setup = 'if [ $KUIPER_PROCESS = ps ]; then export PYTHONPATH="$HOME/broken:$PYTHONPATH"; fi'
    broken = Path(lab.hosts[0].home, "broken", "torch")
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')\n")
    refused = manager("submit", str(write(lab, tmp_path, "dies", setup_commands=[setup])))
    assert refused.returncode == 100, refused.stderr
    assert f"ps on {lab.hosts[0].address} ended at its start" in refused.stderr
    assert "libcudart.so.12" in refused.stderr and "firewall" not in refused.stderr, refused.stderr


@pytest.mark.parametrize("subsystem", ["Subsystem sftp /usr/lib/openssh/sftp-server", ""], ids=["chatty", "none"])
def test_sftp_is_not_needed(subsystem: str, lab: Lab, tmp_path: Path) -> None:
    kept = {}
    for host in lab.hosts[:3]:
        config = Path(host.folder, "sshd_config")
        kept[host] = config.read_text()
        host.stop()
        config.write_text("\n".join([*(line for line in kept[host].splitlines() if "Subsystem" not in line), subsystem, ""]))
        host.start()
        Path(host.home, ".bashrc").write_text("echo hello\n")
    try:
        submit(write(lab, tmp_path, "sent"))
        for verb in ("wait", "status", "logs", "collect", "stop"):
            done = manager(verb, "sent")
            assert done.returncode == 0 and "hello" not in done.stdout, done.stderr
        assert list(tmp_path.glob("logs/sent/*/worker_1/metrics.jsonl"))
    finally:
        for host, text in kept.items():
            host.stop()
            Path(host.folder, "sshd_config").write_text(text)
            host.start()
            os.unlink(Path(host.home, ".bashrc"))
