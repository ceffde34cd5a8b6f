"""What follows a job goes on over a host that is gone for a while and over rotated logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kuiper.cluster import agent
from tests.cluster.jobs import LONG, nothing_left, spec, status, submit, there
from tests.cluster.lab import Lab
from tests.integration.jobs import ROOT, manager
from tests.integration.test_faults import wait_for

pytestmark = pytest.mark.cluster


def test_no_line_is_lost_or_doubled(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    enough = tmp_path / "enough"
    say = f"(i=0; until test -e {enough}; do i=$((i + 1)); echo line $i; sleep 0.05; done; echo line last) &"
    job = submit(spec(lab, tmp_path, "lines", LONG, setup_commands=[say]))
    run = [sys.executable, str(ROOT / "manager.py")]
    request.addfinalizer(lambda: [one.kill() for one in (logs, watch)])
    out, err, seen = (tmp_path / name for name in ("out", "err", "seen"))
    with out.open("w") as o, err.open("w") as e, seen.open("w") as s:
        logs = subprocess.Popen([*run, "logs", "lines", "-f", "--grep", "^line"], stdout=o, stderr=e)
        watch = subprocess.Popen([*run, "status", "lines", "-w", "--json"], stdout=s)
    host, log = lab.hosts[2], there(lab.hosts[2], job, "worker_2") / "log"
    wait_for(lambda: len(out.read_text().splitlines()) > 20)
    host.stop()
    wait_for(lambda: f"{host.address} port {host.port}: it cannot be reached" in err.read_text())
    agent.rotate(str(log), 0, 3)  # and what is written after it is longer than what was before
    wait_for(lambda: log.stat().st_size > (log.parent / "log.1").stat().st_size)
    agent.rotate(str(log), 0, 3)
    host.start()
    wait_for(lambda: f"{host.address} is back" in err.read_text())
    for other in lab.hosts:
        other.drop_connections()
    enough.touch()
    wait_for(lambda: out.read_text().count("line last\n") == 4)
    assert manager("stop", "lines", "--grace", "2").returncode == 0
    assert logs.wait(60) == 0 and watch.wait(60) == 0
    nothing_left(job)
    lines = out.read_text().splitlines()
    for process in ("ps", "worker_1", "worker_2", "worker_3"):
        own = [line.partition("| ")[2] for line in lines if line.startswith(process)]
        assert own == [*(f"line {number}" for number in range(1, len(own))), "line last"], process
    reached = [json.loads(line)[0]["processes"][2]["reached"] for line in seen.read_text().splitlines()]
    assert reached[0] and reached[-1] and not all(reached)


def test_a_host_that_stays_away_is_said(lab: Lab, tmp_path: Path) -> None:
    submit(spec(lab, tmp_path, "away", LONG))
    lab.hosts[3].stop()
    name = lab.hosts[3].address
    for verb in (["status", "away"], ["status", "away", "--json"], ["logs", "away"]):
        done = manager(*verb)
        assert done.returncode == 104 and f"{name} port" in done.stderr, verb
    assert status("away")["state"] == "RUNNING"
    for host in lab.hosts:
        if host is not lab.hosts[3]:
            host.stop()
    assert status("away")["state"] == "RUNNING"  # as it was last seen
    for host in lab.hosts:
        host.start()
    assert manager("stop", "away", "--grace", "2").returncode == 0
    assert os.listdir(tmp_path / "logs" / "away")
