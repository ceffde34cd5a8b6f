"""Disks that are full, fill up or are read-only: real mounts, real jobs."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kuiper.cluster import agent
from kuiper.cluster.paths import code_folder
from kuiper.cluster.snapshot import pack
from kuiper.record import load_perf
from kuiper.record.checkpoint import load
from kuiper.record.metrics import read_metrics
from tests.integration.jobs import manager, only, write_spec
from tests.integration.test_faults import wait_for

CONF = {"dataset": "iris", "model": "softmax", "algorithm": "parameter_server", "num_workers": 2,
        "steps": 2000, "eval_interval": 50, "checkpoint_interval": 50, "batch_size": 8}
PAGE = 4096


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ballast = folder / "ballast"
        folder.mkdir()

    def mount(self, options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)],
                              capture_output=True, text=True)

    def fill(self, leaving: int) -> None:
        with open(self.ballast, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while self.free > leaving:
                file.write(b"x" * PAGE)

    @property
    def free(self) -> int:
        return os.statvfs(self.folder).f_bavail * PAGE


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    mounted = disk.mount("size=8m")
    if mounted.returncode:
        pytest.skip(f"needs root, who may mount a tmpfs: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


def spec_on(disk: Disk, tmp_path: Path, processes: int) -> Path:
    return write_spec(tmp_path, "full", CONF, processes, log_path=str(disk.folder / "logs"))


@pytest.mark.parametrize(("prepare", "says"), [
    (lambda disk: disk.fill(16 * PAGE), "has 64 kB free, less than 1216"),
    (lambda disk: disk.mount("remount,ro"), "cannot be written to: it is read-only"),
], ids=["full", "read-only"])
def test_nothing_is_begun_where_it_cannot_be_kept(
        prepare: Callable[[Disk], object], says: str, disk: Disk, tmp_path: Path) -> None:
    prepare(disk)
    before = set(disk.folder.rglob("*"))
    for verb in ("check", "submit"):
        done = manager(verb, str(spec_on(disk, tmp_path, 2)))
        assert done.returncode == 3
        assert f"log_path is '{disk.folder}/logs', and {disk.folder} {says}" in done.stderr
        assert "-> free space there, or choose a log_path" in done.stderr
    assert set(disk.folder.rglob("*")) == before


@pytest.mark.parametrize("processes", [0, 2], ids=["simulated", "deployed"])
def test_a_disk_that_fills_up_fails_the_run_and_resume_goes_on(
        processes: int, disk: Disk, tmp_path: Path) -> None:
    snapshot = pack()
    snapshot.install_here(code_folder(disk.folder / "logs") / snapshot.digest)  # as an earlier run has
    disk.fill(leaving=1 << 20 | 1 << 18)
    how = [] if processes else ["--simulate"]
    submitted = manager("submit", str(spec_on(disk, tmp_path, processes)), *how, "--json")
    assert submitted.returncode == 0, submitted.stderr
    job = only(submitted)
    run_dir = Path(job["run_dir"])
    wait_for(lambda: len(list((run_dir / "ps" / "checkpoint").glob("*.checkpoint"))) > 1)
    disk.fill(leaving=0)

    assert manager("wait", "full").returncode == 100
    wait_for(lambda: not agent.marked(KUIPER_RUN=job["run_id"]))
    seen = only(manager("status", "full", "--json"))
    assert seen["state"] == "FAILED" and seen["exit_code"] == 100
    assert f"cannot write {run_dir}" in seen["reason"] and "No space left on device" in seen["reason"]
    assert json.loads(manager("list", "--json").stdout)[0]["state"] == "FAILED"

    metrics = run_dir / "ps" / "metrics.jsonl"
    steps = [event["step"] for event in read_metrics(metrics) if event["event"] == "step"]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 100
    assert max(load_perf(run_dir / "ps" / "training_perf")["perf"]) >= 50
    assert all(load(path) for path in (run_dir / "ps" / "checkpoint").glob("*.checkpoint"))
    assert not list(run_dir.rglob("*.tmp"))

    still = manager("resume", "full")
    assert still.returncode == 100
    assert "kB free, less than" in still.stderr and "free space there" in still.stderr
    disk.ballast.unlink()
    resumed = manager("resume", "full", "--follow", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert only(resumed)["evaluation"]["step"] == CONF["steps"]
    [again] = [event for event in read_metrics(metrics) if event["event"] == "resumed"]
    assert again["step"] >= 50
    assert not list(run_dir.rglob("*.reserved"))
