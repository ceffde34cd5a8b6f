"""The ways that ssh knows to a host: its configuration, jump hosts, host keys, keys of this machine, addresses."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuiper.cluster.host import Address
from kuiper.cluster.login import jump_host
from kuiper.cluster.paths import known_hosts
from kuiper.cluster.ssh import SshHost
from kuiper.cluster.ssh_config import LocalFault
from kuiper.errors import HostError
from tests.cluster.jobs import LONG, spec, submit
from tests.cluster.lab import Lab, keygen
from tests.cluster.sshd import LabHost
from tests.integration.jobs import events, follow, manager

pytestmark = [pytest.mark.cluster,
              pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh: install openssh-client")]
SHORT = {**LONG, "steps": 5, "num_workers": 3, "f": 0}
PIPE = """
import os, socket, sys, threading
connection = socket.create_connection(sys.argv[1:3])
def to_host():
    while data := os.read(0, 65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
threading.Thread(target=to_host, daemon=True).start()
while data := connection.recv(65536):
    os.write(1, data)
"""
CONFIG = """\
Include {home}/.ssh/conf.d/*
Host *
  User {user}
  IdentityFile {key}
"""
INCLUDED = """\
Match originalhost near exec "test -d {home}"
  HostName {near.address}
  Port {near.port}
Host bastion
  HostName {bastion.address}
  Port {bastion.port}
  HostKeyAlias the-bastion
Host behind
  HostName {behind.address}
  Port {behind.port}
  ProxyJump bastion
Host piped
  HostName {bastion.address}
  Port {bastion.port}
  ProxyCommand {python} {home}/pipe.py %h %p
Host straight
  HostName {near.address}
  Port {near.port}
  ProxyJump none
Host circle
  ProxyJump round
Host round
  ProxyJump circle
Host *
  ProxyJump none
"""


@pytest.fixture
def home(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The submitter's own, with a ~/.ssh/config that has a way to each host of the lab."""
    own = tmp_path / "me"
    (own / ".ssh" / "conf.d").mkdir(parents=True)
    near, behind, bastion = lab.hosts[1:4]
    (own / ".ssh" / "config").write_text(CONFIG.format(home=own, user=lab.user, key=lab.key))
    (own / ".ssh" / "conf.d" / "lab").write_text(
        INCLUDED.format(home=own, python=sys.executable, near=near, behind=behind, bastion=bastion))
    (own / "pipe.py").write_text(PIPE)
    monkeypatch.setenv("HOME", str(own))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    jump_host.cache_clear()
    yield own


def public(host: LabHost) -> str:
    return " ".join(Path(host.folder, "host_key.pub").read_text().split()[:2])


def test_every_verb_goes_the_way_that_ssh_goes(lab: Lab, home: Path, tmp_path: Path) -> None:
    """Include, Match, ProxyJump, ProxyCommand, HostKeyAlias; and lines of known_hosts that are not understood."""
    near, other = public(lab.hosts[1]), public(lab.hosts[0])
    known = home / ".ssh" / "known_hosts"
    known.write_bytes(f"@cert-authority *.example.org {other}\n{lab.hosts[1].known_as} {other}\n".encode()
                      + b"\xff\xfe nonsense\nnode1 ssh-ed25519 !!!\n"
                      + f"{lab.hosts[1].known_as} {near}\n".encode())  # two keys of one type: either is right
    known_hosts().unlink()
    path = spec(lab, tmp_path, "ways", SHORT, worker_ips=["near", "behind:1", {"host": "piped"}])
    conf = {**yaml.safe_load(path.read_text()), "auth": {}}
    path.write_text(yaml.safe_dump(conf))
    refused = manager("submit", str(path))
    assert refused.returncode == 4 and "Traceback" not in refused.stderr
    assert "behind: on the way there: bastion: its host key is not known" in refused.stderr
    trusted = manager("trust", str(path), "--yes", "--json")
    assert trusted.returncode == 0, trusted.stderr
    found = {one["host"]: (one["entry"], one["known"], one["accepted"]) for one in json.loads(trusted.stdout)}
    assert found == {
        lab.hosts[0].address: (lab.hosts[0].known_as, "no", True), "near": (lab.hosts[1].known_as, "yes", False),
        "behind": (lab.hosts[2].known_as, "no", True), "bastion": ("the-bastion", "no", True),
        "piped": (lab.hosts[3].known_as, "no", True)}
    job = follow(path)
    for verb in ("status", "collect", "stop"):
        done = manager(verb, "ways")
        assert done.returncode == 0 and not done.stderr, done.stderr
    assert events(job["run_dir"], "end")


def test_what_is_wrong_with_ssh_s_files_is_told_by_every_verb(lab: Lab, home: Path, tmp_path: Path) -> None:
    """While a job runs: none ends in a traceback, `stop` least of all, and once it is mended all is as before."""
    config, path = home / ".ssh" / "config", spec(lab, tmp_path, "broken", {**LONG, "num_workers": 3, "f": 0})
    (home / ".ssh" / "known_hosts").write_bytes(b"@cert-authority * ssh-ed25519 KEY\n\xff\n")
    submit(path)
    before = config.read_text()
    config.write_text("Host *\n  Nonsense yes\n")
    (home / ".fabric.yml").write_text("{")
    for words, code in ((["status", "broken"], 104), (["stop", "broken"], 104), (["logs", "broken"], 104),
                        (["doctor", str(path)], 4), (["trust", str(path)], 4), (["collect", "broken"], 104),
                        (["submit", str(path), "-o", "job_name=another"], 4)):
        done = manager(*words)
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        assert code is None or done.returncode == code, said
        assert "line 2: Bad configuration option: nonsense" in said, (words, said)
    config.write_text(before)
    stopped = manager("stop", "broken")
    assert stopped.returncode == 0, stopped.stderr


def address(lab: Lab, name: str, key: Path | None = None) -> Address:
    return Address(name, sys.executable, key=str(key) if key else None)


def revoked(lab: Lab, home: Path) -> None:
    with known_hosts().open("a") as file:
        file.write(f"@revoked * {public(lab.hosts[1])}\n")


def revoked_elsewhere(lab: Lab, home: Path) -> None:
    (home / "revoked").write_text(f"{public(lab.hosts[1])} lab\n")
    with (home / ".ssh" / "config").open("a") as file:
        file.write(f"  RevokedHostKeys {home}/revoked\n")


def locked(home: Path) -> Path:
    keygen(home / "key")
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(home / "key")], check=True,
                   stdout=subprocess.DEVNULL)
    return home / "key"


def written(content: bytes) -> Callable[[Lab, Path], Path]:
    def write(lab: Lab, home: Path) -> Path:
        (home / "key").write_bytes(content)
        return home / "key"

    return write


def only_garbage(lab: Lab, home: Path) -> None:
    text = (home / ".ssh" / "config").read_text()
    (home / ".ssh" / "config").write_text(text.replace(str(lab.key), str(written(b"garbage")(lab, home))))


def authority(lab: Lab, home: Path) -> None:
    known_hosts().write_text(f"@cert-authority * {public(lab.hosts[0])}\n")


CASES: dict[str, tuple[str, Callable[[Lab, Path], Any], str, type[HostError]]] = {
    "revoked": ("near", revoked, r"its host key, ssh-ed25519 SHA256:\S+, is revoked in \S+known_hosts:\d", HostError),
    "revoked in a list": ("straight", revoked_elsewhere, r"is revoked in \S+/revoked", HostError),
    "an authority": ("near", authority, r"not known \(\S+known_hosts:1 trusts an authority", HostError),
    "no such key": ("near", lambda lab, home: home / "none", "me/none is not there", LocalFault),
    "a public key": ("near", lambda lab, home: keygen(home / "k") or home / "k.pub", "k.pub is a public", LocalFault),
    "an encrypted key": ("near", lambda lab, home: locked(home), "me/key is encrypted", LocalFault),
    "garbage for a key": ("near", written(b"\x00garbage"), "me/key is no private key", LocalFault),
    "only garbage": ("near", only_garbage, "me/key is no private key", LocalFault),
    "a circle": ("circle", lambda lab, home: None, "circle -> round -> circle", LocalFault),
    "no such name": ("nowhere.invalid", lambda lab, home: None, "does not know its address", HostError),
    "an empty label": ("a..b", lambda lab, home: None, "does not know its address", HostError),
}


@pytest.mark.parametrize("case", CASES)
def test_why_there_is_no_way(case: str, lab: Lab, home: Path) -> None:
    name, prepare, pattern, kind = CASES[case]
    text = (home / ".ssh" / "config").read_text()
    if case not in ("only garbage", "revoked in a list"):  # no other key helps
        (home / ".ssh" / "config").write_text(text.replace(f"  IdentityFile {lab.key}\n", ""))
    key = prepare(lab, home)
    with pytest.raises(HostError, match=re.compile(pattern, re.DOTALL)) as caught:
        SshHost(address(lab, name, key)).reach()
    assert type(caught.value) is kind or kind is HostError
    assert caught.value.message.startswith(name) and caught.value.remedy
    assert "does not let" not in caught.value.message


def test_a_key_that_only_an_agent_can_use(lab: Lab, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spec names one that is encrypted, and the agent holds it; a public key names it as well."""
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(home / "agent")], stdout=subprocess.DEVNULL)
    try:
        key = locked(home)
        with Path(lab.hosts[1].folder, "authorized_keys").open("a") as file:
            file.write((home / "key.pub").read_text())
        text = (home / ".ssh" / "config").read_text()
        (home / ".ssh" / "config").write_text(text.replace(f"  IdentityFile {lab.key}\n", "  IdentitiesOnly yes\n"))
        (home / "ask").write_text("#!/bin/sh\necho secret\n")
        (home / "ask").chmod(0o700)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
        wait = {**os.environ, "SSH_ASKPASS": str(home / "ask"), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "x"}
        while not (home / "agent").exists():
            assert agent.poll() is None
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env=wait, stdin=subprocess.DEVNULL)
        for name in (key, home / "key.pub"):
            assert SshHost(address(lab, "near", name)).run(["echo", "in"], 20).out == "in\n"
    finally:
        agent.kill()
        agent.wait()
        shutil.copyfile(f"{lab.key}.pub", Path(lab.hosts[1].folder, "authorized_keys"))


def test_a_server_with_an_ipv6_address_only(lab: Lab, tmp_path: Path) -> None:
    """Its sshd is at ::1, and workers reach the server there; doctor tries the same."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    host = LabHost._made(tmp_path / "six", "::1", port, Path(f"{lab.key}.pub"))
    host.start()
    try:
        path = spec(lab, tmp_path, "six", SHORT, ps_ip={"host": "::1", "port": port}, worker_ips=[
            {"host": lab.hosts[1].address, "port": lab.hosts[1].port}, {"host": "0:0:0:0:0:0:0:1", "port": port}])
        assert manager("trust", str(path), "--yes").returncode == 0
        doctor = manager("doctor", str(path), "--json")
        assert doctor.returncode == 0, doctor.stdout
        job = follow(path)
        endpoint = Path(host.home, "kuiper", "runs", "six", job["run_id"], "ps", "endpoint.json")
        assert json.loads(endpoint.read_text())["host"] == "::1"
        assert manager("collect", "six").returncode == 0
    finally:
        host.stop()
