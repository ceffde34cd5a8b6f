"""What is wrong with a host: `doctor` says it before, `submit` says it too, and nothing is left there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuiper.cluster import agent
from kuiper.cluster.paths import known_hosts
from tests.cluster.lab import Lab, LabHost
from tests.integration.jobs import manager, only

pytestmark = pytest.mark.cluster
CONF = {"dataset": "digits", "model": "softmax", "algorithm": "parameter_server", "aggregator": "median",
        "num_workers": 6, "f": 2, "steps": 1_000_000, "eval_interval": 1000, "batch_size": 8}
NO_QUOTA_LEFT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int is_full(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    const char *full = getenv("FULL");
    errno = EDQUOT;
    path[length > 0 ? length : 0] = 0;
    return length > 0 && full && strncmp(path, full, strlen(full)) == 0;
}
ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    return is_full(fd) ? -1 : real(fd, data, size);
}
size_t fwrite_unlocked(const void *data, size_t size, size_t count, FILE *file) {
    size_t (*real)(const void *, size_t, size_t, FILE *) = dlsym(RTLD_NEXT, "fwrite_unlocked");
    return is_full(fileno(file)) ? 0 : real(data, size, count, file);
}
"""
SFTP = "/usr/lib/openssh:/usr/libexec/openssh:/usr/lib/ssh:/usr/libexec"
BAD = 2
"""The host that is wrong, where the case does not say otherwise."""


def few(lab: Lab) -> Lab:
    """A server and two workers: torch is imported on each, again and again."""
    return Lab(lab.folder, lab.hosts[:BAD + 1])


def entries(lab: Lab, **changes: Any) -> list[dict[str, Any]]:
    """worker_ips, with changes to the entry of the bad host."""
    workers: list[dict[str, Any]] = few(lab).spec("bad")["worker_ips"]  # type: ignore[assignment]
    return [{**one, **changes} if one["host"] == lab.hosts[BAD].address else one for one in workers]


def interpreter(host: LabHost, *, packages: bool = False, patch: str = "", torch: str = "") -> str:
    """A venv on that host: without packages, or with ours and a patch that its processes begin with."""
    folder = Path(host.home, "venv")
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    if packages:
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (site / "ours.pth").write_text("\n".join([*ours, *filter(None, [patch])]))
    if torch:
        (site / "torch").mkdir()
        (site / "torch" / "__init__.py").write_text(
            f"class cuda:\n    device_count = lambda: 0\n__version__ = {torch!r}\n"
            "class backends:\n    class cpu:\n        get_cpu_capability = lambda: 'AVX2'\n")
        (site / f"torch-{torch}.dist-info").mkdir()
        (site / f"torch-{torch}.dist-info" / "METADATA").write_text(f"Name: torch\nVersion: {torch}\n")
    return str(folder / "bin" / "python")


@contextlib.contextmanager
def disk(host: LabHost, options: str) -> Iterator[None]:
    """A file system of its own at kuiper's place on that host."""
    folder = Path(host.home, "kuiper")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"needs root, who may mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def unknown_key(lab: Lab) -> None:
    lines = known_hosts().read_text().splitlines()
    del lines[BAD]
    known_hosts().write_text("\n".join(lines) + "\n")


def changed_key(lab: Lab) -> None:
    lines = known_hosts().read_text().splitlines()
    lines[BAD] = f"{lines[BAD].split()[0]} {' '.join(lines[0].split()[1:])}"
    known_hosts().write_text("\n".join(lines) + "\n")


def only_the_submitter_resolves_the_server(lab: Lab) -> dict[str, Any]:
    server = lab.hosts[0]
    ssh = Path(os.environ["HOME"], ".ssh")
    ssh.mkdir()
    (ssh / "config").write_text(f"Host server.invalid\n  HostName {server.address}\n")
    return {"ps_ip": {"host": "server.invalid", "port": server.port}}


def occupied(lab: Lab) -> dict[str, Any]:
    Path(lab.hosts[BAD].home, "occupied").write_text("")
    return {"exp_path": "~/occupied"}


def says_no(lab: Lab) -> dict[str, Any]:
    path = Path(lab.hosts[BAD].home, "python")
    path.write_text("#!/bin/sh\necho this module is not loaded >&2\nexit 1\n")
    path.chmod(0o755)
    return {"worker_ips": entries(lab, python=str(path))}


# what is done to the lab (it returns changes to the spec), what doctor and submit say of the bad host
CASES: dict[str, tuple[Callable[[Lab], Any], str]] = {
    "unreachable": (lambda lab: lab.hosts[BAD].stop(), "it cannot be reached: Connection refused"),
    "refused login": (lambda lab: {"auth": {"ssh_user": "nobody-here", "ssh_private_key": str(lab.key)}},
                      "does not let nobody-here in"),
    "unknown host key": (unknown_key, "its host key is not known"),
    "changed host key": (changed_key, "its host key has changed: ssh-ed25519 SHA256:"),
    "no interpreter": (lambda lab: {"worker_ips": entries(lab, python="/opt/none")},
                       "there is no interpreter /opt/none"),
    "broken interpreter": (says_no, "this module is not loaded"),
    "no torch": (lambda lab: {"worker_ips": entries(lab, python=interpreter(lab.hosts[BAD]))},
                 "has none: .*torch"),
    "another torch": (lambda lab: {"worker_ips": entries(
        lab, python=interpreter(lab.hosts[BAD], packages=True, torch="1.13.0"))}, "is 1.13.0, elsewhere 2"),
    "no such GPU": (lambda lab: {"worker_ips": entries(lab, gpus=[63])}, "there is no GPU 63: it has "),
    "exp_path is a file": (occupied, "occupied is not a folder"),
    "ports blocked": (only_the_submitter_resolves_the_server, "reach .*server.invalid .*port"),
}  # fmt: skip


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """~/.ssh of nobody else."""
    (tmp_path / "me").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "me"))


def write(lab: Lab, folder: Path, changes: dict[str, Any] | None) -> Path:
    """A spec whose job is called as the test's folder is."""
    path = folder / "bad.yml"
    given = {"log_path": str(folder / "logs"), "job_conf": CONF, **(changes or {})}
    path.write_text(yaml.safe_dump(few(lab).spec(folder.name, **given)))
    return path


def both_say(pattern: str, path: Path, address: str) -> None:
    """doctor and submit name the host and say it, with a remedy; and nothing is left."""
    doctor = manager("doctor", str(path), "--json")
    assert doctor.returncode == 4, doctor.stdout + doctor.stderr
    wrong = [one for one in json.loads(doctor.stdout) if one["verdict"] == "wrong"]
    match = re.compile(pattern, re.DOTALL).search
    assert any(match(one["detail"]) and one["host"] == address and one["remedy"] for one in wrong), wrong
    done = manager("submit", str(path))
    assert done.returncode == 4 and "Traceback" not in done.stderr, done.stderr
    said = done.stderr[done.stderr.index("error: "):]
    assert f"{address}" in said and match(said) and "\n  -> " in said, said


def nothing_left(lab: Lab, folder: Path) -> None:
    """No process, no file of the run on a host; here at most a run that says why it failed."""
    runs = list(folder.glob("logs/*/*"))
    for host in lab.hosts:
        on_it = Path(host.home, "kuiper", "runs", folder.name)
        assert not on_it.exists() or runs, list(on_it.iterdir())
    for run in runs:
        assert not agent.marked(KUIPER_RUN=run.name)
        seen = only(manager("status", run.name, "--json"))
        assert seen["state"] == "FAILED" and seen["reason"]


@pytest.mark.usefixtures("own_home")
@pytest.mark.parametrize("case", CASES)
def test_a_bad_host_is_told_and_nothing_is_left(case: str, lab: Lab, tmp_path: Path) -> None:
    prepare, pattern = CASES[case]
    try:
        path = write(lab, tmp_path, prepare(lab))
        address = lab.hosts[BAD].address
        if case == "ports blocked":
            address = lab.hosts[1].address
        both_say(pattern, path, address)
        nothing_left(lab, tmp_path)
    finally:
        shutil.rmtree(Path(lab.hosts[BAD].home, "venv"), ignore_errors=True)


@pytest.mark.parametrize(("options", "pattern"), [
    ("size=512k", r"kuiper has \d+ kB free, less than"),
    ("size=4m,ro", "kuiper cannot be written to: Read-only file system"),
], ids=["full", "read-only"])  # fmt: skip
def test_a_bad_disk(options: str, pattern: str, lab: Lab, tmp_path: Path) -> None:
    with disk(lab.hosts[BAD], options):
        both_say(pattern, write(lab, tmp_path, None), lab.hosts[BAD].address)
        nothing_left(lab, tmp_path)


def test_a_disk_that_fills_up_while_files_are_sent(lab: Lab, tmp_path: Path) -> None:
    with disk(lab.hosts[BAD], "size=8m,nr_inodes=600"):
        path = write(lab, tmp_path, None)
        for number in range(590):  # the code needs more than what is left
            Path(lab.hosts[BAD].home, "kuiper", str(number)).touch()
        done = manager("submit", str(path))
        assert done.returncode == 4 and "No space left on device" in done.stderr, done.stderr
        assert f"{lab.hosts[BAD].address}: cannot unpack" in done.stderr and "\n  -> " in done.stderr
        nothing_left(lab, tmp_path)
        assert not os.listdir(Path(lab.hosts[BAD].home, "kuiper", "code"))


def test_a_quota_that_is_used_up(lab: Lab, tmp_path: Path) -> None:
    """Its kernel need not have quotas: whatever a login on this host runs gets write()'s error of one."""
    host, library = lab.hosts[BAD], tmp_path / "quota.so"
    compiler, server = shutil.which("cc"), shutil.which("sftp-server", path=SFTP)
    if not compiler or not server:
        pytest.skip("needs a C compiler and an sftp-server that is a program")
    shutil.rmtree(Path(host.home, "kuiper"), ignore_errors=True)
    (tmp_path / "quota.c").write_text(NO_QUOTA_LEFT)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "quota.c", "-ldl"], check=True)
    config = Path(host.folder, "sshd_config")
    before = config.read_text()
    try:
        host.stop()
        config.write_text(before.replace("SetEnv ", f"SetEnv LD_PRELOAD={library} FULL={host.home}/kuiper/ ")
                          .replace("internal-sftp", server))
        host.start()
        path = write(lab, tmp_path, None)
        Path(host.home, "kuiper").mkdir()
        both_say("kuiper cannot be written to: Disk quota exceeded", path, host.address)
        Path(host.home, "kuiper").rmdir()  # now nothing is noticed before it is made
        done = manager("submit", str(path))
        assert done.returncode == 4 and "Disk quota exceeded" in done.stderr, done.stderr
        assert f"{host.address}: cannot write" in done.stderr and "\n  -> " in done.stderr
        nothing_left(lab, tmp_path)
        assert not [path for path in Path(host.home, "kuiper").rglob("*") if path.is_file()]
    finally:
        host.stop()
        config.write_text(before)
        host.start()


def test_log_path_is_a_file(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    path = write(lab, tmp_path, None)
    doctor = manager("doctor", str(path), "--json")
    [wrong] = [one for one in json.loads(doctor.stdout) if one["verdict"] == "wrong"]
    assert doctor.returncode == 4 and "logs is not a folder" in wrong["detail"]
    done = manager("submit", str(path))
    assert done.returncode == 3 and "logs is not a folder" in done.stderr


def test_a_clock_that_is_wrong_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    """An hour ahead on one host: doctor warns, and the job starts, beats and stops as ever."""
    ahead = "import time; time.time = lambda clock=time: clock.clock_gettime(0) + 3600"
    python = interpreter(lab.hosts[BAD], packages=True, patch=ahead)
    try:
        path = write(lab, tmp_path, {"worker_ips": entries(lab, python=python)})
        doctor = manager("doctor", str(path), "--json")
        clocks = [one for one in json.loads(doctor.stdout) if one["subject"] == "clock"]
        assert [(one["host"], one["verdict"]) for one in clocks] == [(lab.hosts[BAD].address, "warning")]
        assert "is +36" in clocks[0]["detail"] and doctor.returncode == 0
        done = manager("submit", str(path))
        assert done.returncode == 0, done.stderr
        seen = only(manager("status", tmp_path.name, "--json"))
        assert {process["state"] for process in seen["processes"]} == {"RUNNING"}
        assert all(0 <= process["heartbeat_age"] < 60 for process in seen["processes"])
        assert manager("stop", tmp_path.name).returncode == 0
    finally:
        shutil.rmtree(Path(lab.hosts[BAD].home, "venv"), ignore_errors=True)
