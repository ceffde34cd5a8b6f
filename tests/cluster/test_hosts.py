"""The law of a host, for this machine and for one over ssh; and who is let in where."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePath

import paramiko
import pytest
import yaml

from kuiper.cluster.host import Address, Host, LocalHost
from kuiper.cluster.paths import known_hosts
from kuiper.cluster.login import SESSIONS
from kuiper.cluster.ssh import SshHost
from kuiper.errors import HostError, Unreachable
from tests.cluster.lab import Lab, LabHost, keygen, listed
from tests.cluster.sshd import signalled
from tests.integration.jobs import manager
from tests.integration.test_faults import wait_for

pytestmark = pytest.mark.cluster
HOSTILE = ["a b", "'", '"', "; touch hacked", "$(touch hacked)", "`touch hacked`", "line\nline", "*", "~", "\\", "-n",
           "ü", "", "!x", "#", "&", "| cat", "> hacked", "%s", "{a,b}"]


def address(lab: Lab, host: LabHost, **other: str) -> Address:
    return replace(Address(host.address, sys.executable, host.home, lab.user, host.port, str(lab.key)), **other)


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest, lab: Lab) -> Host:
    return LocalHost() if request.param == "local" else SshHost(address(lab, lab.hosts[1]))


def test_arguments_arrive_as_they_are(host: Host, lab: Lab) -> None:
    echo = [host.python, "-c", "import sys; sys.stdout.write(repr(sys.argv[1:]))"]
    assert host.run([*echo, *HOSTILE], 20).out == repr(HOSTILE)
    assert not any(Path(folder, "hacked").exists() for folder in (".", lab.hosts[1].home, Path.home()))
    done = host.run([host.python, "-c", "import sys; sys.stderr.write('wrong'); sys.exit(7)"], 20)
    assert (done.code, done.out, done.err) == (7, "", "wrong")


def test_what_runs_too_long_is_ended(host: Host) -> None:
    before = time.monotonic()
    with pytest.raises(HostError, match="longer than 0.5 s"):
        host.run(["sleep", "86.25"], 0.5)
    assert time.monotonic() - before < 8
    time.sleep(0.2)
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if b"86.25" in cmdline(pid)]


def cmdline(pid: Path) -> bytes:
    try:
        return (pid / "cmdline").read_bytes()
    except OSError:
        return b""


def test_what_is_not_there_is_named(host: Host, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot run /no/such/program"):
        host.run(["/no/such/program"], 20)
    with pytest.raises(HostError, match="cannot read .*nothing"):
        host.get(tmp_path / "nothing")


def test_files_are_whole_and_private(host: Host, tmp_path: Path) -> None:
    path, data = tmp_path / "new folder" / "it's; $(x)", os.urandom(3_000_000)
    assert not host.exists(path)
    host.put(data, path, mode=0o600)
    assert host.exists(path) and host.get(path) == data and host.get(path, 2_999_990) == data[-10:]
    assert host.get(path, 3_000_000) == b"" and path.stat().st_mode & 0o777 == 0o600
    source = tmp_path / "source"
    source.write_bytes(b"again")
    host.put(source, path)
    assert host.get(path) == b"again" and os.listdir(path.parent) == [path.name]
    with pytest.raises(Exception, match="cannot (write|make)"):
        host.put(b"", path / "below a file")


def test_many_at_once(host: Host) -> None:
    with ThreadPoolExecutor(4 * SESSIONS) as pool:
        said = list(pool.map(lambda number: host.run(["echo", str(number)], 20).out, range(40)))
    assert said == [f"{number}\n" for number in range(40)]


def test_a_lost_connection_is_opened_again(lab: Lab) -> None:
    host = SshHost(address(lab, lab.hosts[1]))
    for _ in range(2):
        assert host.run(["echo", "there"], 20).out == "there\n"
        lab.hosts[1].drop_connections()
    assert host.exists(PurePath("/"))
    lab.hosts[1].stop()
    with pytest.raises(HostError, match=f"{lab.hosts[1].address} port {lab.hosts[1].port}: it cannot be reached"):
        host.run(["true"], 20)
    lab.hosts[1].start()
    assert host.run(["echo", "back"], 20).out == "back\n"


def test_a_host_that_hangs_is_not_waited_for_long(lab: Lab) -> None:
    """As one that swaps: its kernel answers, its sshd does not; that of our connection, then all of them."""
    hung = lab.hosts[1]
    host = SshHost(address(lab, hung))
    host.reach()
    signalled(hung.sessions(), signal.SIGSTOP)
    assert host.run(["echo", "over another"], 20).out == "over another\n"
    signalled([*hung.sessions(), hung.listening], signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(host.run, ["true"], 1), pool.submit(host.exists, PurePath("/"))]
        assert all(hung.address in str(one.exception(60)) for one in asked)
        assert all(isinstance(one.exception(), Unreachable) for one in asked)
    finally:
        signalled([*hung.sessions(), hung.listening], signal.SIGCONT)
    assert host.run(["echo", "back"], 20).out == "back\n"


def test_who_is_not_let_in(lab: Lab, tmp_path: Path) -> None:
    keygen(tmp_path / "other")
    with pytest.raises(HostError, match="does not let .* in"):
        SshHost(address(lab, lab.hosts[1], key=str(tmp_path / "other"))).run(["true"], 20)


def transports() -> set[threading.Thread]:
    """Paramiko's connections that are open."""
    return {one for one in threading.enumerate() if isinstance(one, paramiko.Transport)}


def test_an_unknown_and_a_changed_host_key_are_refused(lab: Lab) -> None:
    where, path, before = address(lab, lab.hosts[1]), known_hosts(), transports()
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if lab.hosts[1].address not in line) + "\n")
    with pytest.raises(HostError, match="host key is not known") as caught:
        SshHost(where).run(["true"], 20)
    assert "trust" in caught.value.remedy
    path.write_text(f"{lines[1].split()[0]} {' '.join(lines[0].split()[1:])}\n")
    with pytest.raises(HostError, match="host key has changed: ssh-ed25519 SHA256:"):
        SshHost(where).run(["true"], 20)
    wait_for(lambda: transports() <= before)


def test_trust_and_doctor(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "conf.yml"
    conf = {"algorithm": "parameter_server", "num_workers": 6, "model": "softmax", "dataset": "digits", "steps": 5}
    spec = lab.spec("asked", job_conf=conf)
    del spec["ps_ip"], spec["worker_ips"]
    path.write_text(yaml.safe_dump(spec))
    for name, hosts in (("servers", lab.hosts[:1]), ("workers", lab.hosts[1:])):
        (tmp_path / name).write_text(listed(hosts))
    words = str(path), "--servers", "servers", "--workers", "workers"
    known_hosts().unlink()
    asked = manager("doctor", *words, "--json")
    assert asked.returncode == 4
    assert [(one["subject"], one["verdict"]) for one in json.loads(asked.stdout)] == [("login", "wrong")] * 4
    assert all("host key is not known" in one["detail"] for one in json.loads(asked.stdout))
    refused = manager("trust", *words)
    assert refused.returncode == 4 and "compare the fingerprints" in refused.stderr and not known_hosts().exists()
    assert manager("trust", *words, "--yes").returncode == 0
    well = manager("doctor", *words, "--json")
    assert well.returncode == 0, well.stdout
    found = {(one["host"], one["subject"]): one["detail"] for one in json.loads(well.stdout)}
    assert all("SHA256" not in detail for detail in found.values())
    assert f"reaches {lab.hosts[0].address} at port" in found[lab.hosts[3].address, "server"]
    lines = known_hosts().read_text().splitlines()
    known_hosts().write_text("\n".join([f"{lines[1].split()[0]} {' '.join(lines[0].split()[1:])}", *lines[2:]]) + "\n")
    changed = manager("trust", *words, "--yes")
    assert changed.returncode == 4 and "CHANGED" in changed.stdout and lab.hosts[1].address in changed.stderr


def test_doctor_compares_the_data_sets_of_hosts(lab: Lab, tmp_path: Path) -> None:
    """They are looked for as the processes would: after the setup commands, in the host's own home."""
    for host in lab.hosts:
        held = Path(host.home, "data", "MNIST", "raw", "train")
        held.parent.mkdir(parents=True)
        held.write_text("others" if host is lab.hosts[3] else "same")
    conf = {"algorithm": "parameter_server", "num_workers": 6, "model": "softmax", "dataset": "mnist", "steps": 5}
    spec = lab.spec("held", job_conf=conf, setup_commands=["echo hello", "export KUIPER_DATA=$HOME/data"])
    (tmp_path / "conf.yml").write_text(yaml.safe_dump(spec))

    def found(*options: str) -> tuple[int, list[str]]:
        done = manager("doctor", "conf.yml", "--json", *options)
        return done.returncode, [one["verdict"] for one in json.loads(done.stdout) if one["subject"] == "dataset"]

    assert found() == (4, ["ok", "ok", "ok", "wrong"])
    assert found("-o", "allow_different_data=true") == (0, ["ok"] * 4)
    shutil.rmtree(Path(lab.hosts[1].home, "data"))
    assert found() == (4, ["ok", "wrong", "ok", "wrong"])
    for host in lab.hosts:
        shutil.rmtree(Path(host.home, "data"), ignore_errors=True)
