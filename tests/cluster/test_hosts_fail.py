"""Hosts that are rebooted, and disks that fill up or are read-only: real boots and mounts, as root."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from kuiper.link.handshake import SILENCE_SECONDS
from tests.cluster.jobs import LONG, goes_on, spec, status, step, submit
from tests.cluster.lab import Lab
from tests.cluster.namespaces import NamespaceHost
from tests.integration.jobs import manager
from tests.integration.test_faults import wait_for

pytestmark = pytest.mark.cluster
CONF = {**LONG, "num_workers": 8, "checkpoint_interval": 20}
BOUND = 3 * SILENCE_SECONDS


def fill(host: NamespaceHost, folder: Path) -> Path:
    """Leave no room on the file system of a folder of a host; returns what takes it up."""
    ballast = host.path(folder / "ballast")
    with open(ballast, "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return ballast


def test_hosts_that_are_rebooted(network: Lab, tmp_path: Path) -> None:
    """A worker's: the job goes on without it. The server's: the job is lost, ends everywhere, and is resumed."""
    submit(spec(network, tmp_path, "boots", CONF))
    wait_for(lambda: step("boots") > 40)
    network.hosts[4].reboot()
    wait_for(lambda: status("boots")["processes"][4]["state"] == "LOST")
    assert status("boots")["processes"][4]["reason"] == "the host was rebooted"
    before = step("boots")
    wait_for(lambda: step("boots") > before, BOUND)

    network.hosts[0].reboot()
    seen = status("boots")
    assert seen["state"] == "LOST" and "ps: the host was rebooted" in seen["reason"]
    wait_for(lambda: not any(host.processes for host in network.hosts), BOUND)
    workers = status("boots")["processes"][1:4]
    assert all("the server is gone: it was silent" in worker["reason"] for worker in workers)
    resumed = manager("resume", "boots")
    assert resumed.returncode == 0, resumed.stderr
    goes_on("boots")
    assert {process["state"] for process in status("boots")["processes"]} == {"RUNNING"}
    assert manager("stop", "boots").returncode == 0


def test_disks_that_fill_up(network: Lab, tmp_path: Path) -> None:
    """A worker's: the job goes on without it. The server's: the job ends, says why, and is resumed."""
    server, full = network.hosts[0], network.hosts[2]
    folders = {host: Path(host.home, "kuiper") for host in (server, full)}
    for host, folder in folders.items():
        host.mount(str(folder), "size=32m")
    submit(spec(network, tmp_path, "full", CONF))
    wait_for(lambda: step("full") > 40)
    fill(full, folders[full])
    wait_for(lambda: status("full")["processes"][2]["state"] == "FAILED")
    assert "No space left on device" in status("full")["processes"][2]["reason"]
    goes_on("full")
    ballast = fill(server, folders[server])
    wait_for(lambda: status("full")["state"] == "FAILED")
    assert "No space left on device" in status("full")["reason"]
    wait_for(lambda: not any(host.processes for host in network.hosts))

    refused = manager("submit", str(spec(network, tmp_path, "more", CONF)))
    assert refused.returncode == 4 and f"{server.address}: " in refused.stderr and full.address in refused.stderr
    assert "Traceback" not in refused.stderr and not (tmp_path / "logs" / "more").exists()
    os.unlink(ballast)
    full.mount(str(folders[full]), "remount,ro")
    refused = manager("submit", str(spec(network, tmp_path, "more", CONF)))
    assert refused.returncode == 4 and f"{full.address}: " in refused.stderr and "ead-only" in refused.stderr
    full.mount(str(folders[full]), "remount,rw")
    os.unlink(full.path(folders[full] / "ballast"))
    resumed = manager("resume", "full")
    assert resumed.returncode == 0, resumed.stderr
    goes_on("full")
    assert manager("stop", "full").returncode == 0
