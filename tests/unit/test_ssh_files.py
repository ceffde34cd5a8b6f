"""What ssh keeps about hosts and keys, read as ssh reads it: known_hosts, the configuration, files of keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from kuiper.cluster import known_keys, ssh_config
from kuiper.cluster.identities import Unusable, identities, load
from kuiper.cluster.known_keys import judge, parse, preferred, read
from kuiper.cluster.ssh_config import LocalFault, route
from kuiper.errors import HostError

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="there is no ssh")


def blob(kind: str, body: str) -> bytes:
    data = kind.encode(), body.encode()
    return b"".join(len(part).to_bytes(4, "big") + part for part in data)


A, B, RSA = blob("ssh-ed25519", "a"), blob("ssh-ed25519", "b"), blob("ssh-rsa", "r")


def key(data: bytes) -> str:
    return f"{known_keys.kind(data)} {base64.b64encode(data).decode()}"


def hashed(name: str) -> str:
    digest = hmac.new(b"salt", name.encode(), hashlib.sha1).digest()
    return "|1|{}|{}".format(*(base64.b64encode(part).decode() for part in (b"salt", digest)))


@pytest.mark.parametrize(
    ("lines", "names", "verdict"),
    [
        ([f"node1 {key(A)}"], ["node1"], "yes"),
        ([f"Node1,10.0.0.1 {key(A)} a comment"], ["10.0.0.1"], "yes"),
        ([f"NODE1 {key(A)}"], ["node1"], "yes"),
        ([f"node1 {key(B)}"], ["node1"], "changed"),
        ([f"node1 {key(B)}", f"node1 {key(A)}"], ["node1"], "yes"),
        ([f"node1 {key(RSA)}"], ["node1"], "no"),
        ([f"node2 {key(A)}"], ["node1"], "no"),
        ([f"{hashed('node1')} {key(A)}"], ["node1"], "yes"),
        ([f"{hashed('[node1]:2222')} {key(B)}"], ["[node1]:2222", "node1"], "changed"),
        ([f"|1|?|? {key(A)}", f"|2|x {key(A)}"], ["node1"], "no"),
        ([f"*.lab,!bad.lab {key(A)}"], ["good.lab"], "yes"),
        ([f"*.lab,!bad.lab {key(A)}"], ["bad.lab"], "no"),
        ([f"node? {key(A)}"], ["node1"], "yes"),
        ([f"node[12] {key(A)}"], ["node1"], "no"),
        ([f"[node1]:2222 {key(A)}"], ["[node1]:2222", "node1"], "yes"),
        ([f"node1 {key(A)}"], ["[node1]:2222", "node1"], "yes"),  # as ssh: a name without a port goes for all
        ([f"node1 {key(B)}"], ["[node1]:2222", "node1"], "no"),
        ([f"@revoked * {key(A)}", f"node1 {key(A)}"], ["node1"], "revoked"),
        ([f"node1 {key(A)}", f"@revoked node1 {key(A)}"], ["node1"], "revoked"),
        ([f"@revoked node2 {key(A)}", f"node1 {key(A)}"], ["node1"], "yes"),
        ([f"@cert-authority * {key(A)}"], ["node1"], "no"),
        ([f"@cert-authority * {key(B)}", f"node1 {key(A)}"], ["node1"], "yes"),
        ([f"@unheard-of node1 {key(A)}"], ["node1"], "no"),
        (["", "# node1", "node1", "node1 ssh-ed25519", "node1 ssh-ed25519 !!!", "node1 ssh-new AAAA",
          "node1 1024 35 1234567", "\xff\x00", f"node1 {key(A)}"], ["node1"], "yes"),
        ([f"node1 ssh-rsa {key(A).split()[1]}"], ["node1"], "no"),  # not the type that it says
    ],
)
def test_known_hosts(lines: list[str], names: list[str], verdict: str, tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode("latin-1"))
    found = judge(read([tmp_path / "none", tmp_path, path]), names, A)
    assert found.known == verdict
    assert bool(found.where) == (verdict != "no" or "@cert" in lines[0])
    assert not found.where or found.where.startswith(f"{path}:")


def test_a_key_on_record_is_asked_for_first() -> None:
    keys = [one for line in (f"node1 {key(RSA)}", f"node2 {key(A)}") if (one := parse(line, ""))]
    offered = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256"]
    assert preferred(keys, ["node1"], offered) == ["rsa-sha2-512", "rsa-sha2-256", *offered[:2]]
    assert preferred(keys, ["node3"], offered) == offered


def test_one_more_key_leaves_other_lines_alone() -> None:
    lines = ["# mine", f"@revoked * {key(B)}", f"node1 {key(B)}", f"node1 {key(RSA)}", "not a key", f"node2 {key(B)}"]
    assert list(known_keys.with_key(lines, "node1", A)) == [*lines[:2], *lines[3:], f"node1 {key(A)}"]


CONFIG = """\
Include {home}/.ssh/conf.d/*
Match host inner originalhost inner
  ProxyJump ann@bastion:2200,[fd00::7]:22
Host bastion
  ProxyJump none
Host piped
  ProxyCommand nc %h %p -l %r
  HostName 10.0.0.%h
Host alias
  HostName Node.Example.org
  Port 2222
  HostKeyAlias The-Cluster
  UserKnownHostsFile ~/.ssh/lab_hosts /dev/null
  IdentitiesOnly yes
  IdentityFile ~/.ssh/%r@%h
  IdentityAgent none
  ConnectTimeout 3
  AddressFamily inet6
Host *
  User bob
  ProxyJump bastion
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with ~/.ssh/config in it, and one more file that is included."""
    (tmp_path / ".ssh" / "conf.d").mkdir(parents=True)
    (tmp_path / ".ssh" / "config").write_text(CONFIG.format(home=tmp_path))
    (tmp_path / ".ssh" / "conf.d" / "lab").write_text("Host included\n  HostName 10.9.9.9\n  ProxyJump none\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@needs_ssh
def test_the_way_is_ssh_s_own(home: Path) -> None:
    included = route("included")
    assert (included.host, included.port, included.user, included.jump) == ("10.9.9.9", 22, "bob", None)
    inner, outer = route("inner", port=2022), route("other", user="eve")
    assert inner.port == 2022 and inner.jump is not None and outer.jump is not None
    assert (inner.jump.name, inner.jump.user, inner.jump.port) == ("fd00::7", None, 22)
    assert inner.jump.through == ("ann@bastion:2200",)
    assert (outer.user, outer.jump.name, outer.jump.through) == ("eve", "bastion", None)
    assert route("bastion").jump is None
    piped = route("piped")
    assert (piped.command, piped.jump) == ("nc 10.0.0.piped 22 -l bob", None)
    alias = route("alias")
    assert (alias.host, alias.port, alias.names) == ("Node.Example.org".lower(), 2222, ("the-cluster",))
    assert alias.known_hosts[:2] == (home / ".ssh" / "lab_hosts", Path("/dev/null"))
    assert alias.keys == (f"{home}/.ssh/bob@node.example.org",) and alias.identities_only and not alias.agent
    assert (alias.timeout, alias.family) == (3.0, socket.AF_INET6)
    assert route("fd00::5", port=2222).names == ("[fd00::5]:2222", "fd00::5")
    with pytest.raises(LocalFault, match="is not put into a ProxyCommand|invalid"):
        route("piped", user="x;touch${IFS}hacked")
    with pytest.raises(LocalFault, match="begins with '-'"):
        route("-oProxyCommand=touch hacked")
    assert not (home / "hacked").exists()


def test_without_an_ssh_paramiko_reads_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_config.shutil, "which", lambda name: None)
    config = home / ".ssh" / "config"
    config.write_text(CONFIG.partition("\n")[2].replace("Match host inner originalhost inner", "Host inner"))
    inner, alias = route("inner"), route("alias")
    assert inner.jump is not None and inner.jump.name == "fd00::7" and inner.jump.through == ("ann@bastion:2200",)
    assert (alias.host.lower(), alias.port, alias.names) == ("node.example.org", 2222, ("the-cluster",))
    assert alias.known_hosts[0] == home / ".ssh" / "lab_hosts"
    for broken in (b"Match nonsense\n", b"Host \xff\n", b'Host "open\n'):
        config.write_bytes(broken)
        with pytest.raises(LocalFault, match=str(config)):
            route("inner")


@needs_ssh
@pytest.mark.parametrize("broken", [b"Host *\n  Nonsense yes\n", b"Host *\n  Port many\n", b"Match unheard-of x\n",
                                    b"Host x\n  ProxyJump @:\n"])
def test_a_configuration_that_ssh_refuses_is_named(broken: bytes, home: Path) -> None:
    config = home / ".ssh" / "config"
    config.write_bytes(broken)
    with pytest.raises(LocalFault, match=f"x: this machine's ssh does not say how to get there: .*{config}.*line [12]"):
        route("x")


def test_an_ssh_that_cannot_say_is_done_without(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "ssh").write_text("#!/bin/sh\necho 'Unknown option -G' >&2; echo 'Usage: dbclient [options]' >&2; exit 1\n")
    (home / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    (home / ".ssh" / "config").write_text("Host x\n  HostName 10.0.0.9\n  Port 2200\n")
    assert (route("x").host, route("x").port) == ("10.0.0.9", 2200)


def keygen(path: Path, *words: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", str(path), *words], check=True)
    return path


@needs_ssh
def test_keys_that_cannot_be_used_are_named(home: Path) -> None:
    good = keygen(home / "good", "-t", "ed25519")
    assert len(list(load(str(good)))) == 1
    keygen(home / "open.pem", "-t", "rsa", "-b", "2048", "-m", "PEM")
    assert len(list(load(str(home / "open.pem")))) == 1
    for name, words in (("locked", ["-t", "ed25519"]), ("locked.pem", ["-t", "rsa", "-b", "2048", "-m", "PEM"])):
        keygen(home / name, *words)
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(home / name)], check=True,
                       stdout=subprocess.DEVNULL)
    for name, content in {
        "garbage": b"\x00\xff garbage", "empty": b"", "putty": b"PuTTY-User-Key-File-3: ssh-ed25519\n",
        "public": (home / "good.pub").read_bytes(), "cut": good.read_bytes()[:200],
        "dsa": b"-----BEGIN DSA PRIVATE KEY-----\nMIIB\n-----END DSA PRIVATE KEY-----\n",
    }.items():  # fmt: skip
        (home / name).write_bytes(content)
    (home / "folder").mkdir()
    for name, wrong in {
        "garbage": "is no private key", "empty": "is no private key", "putty": "PuTTY", "public": "is a public key",
        "cut": "is damaged", "dsa": "DSA", "locked": "is encrypted", "locked.pem": "is encrypted",
        "folder": "Is a directory",
    }.items():  # fmt: skip
        with pytest.raises(Unusable, match=wrong) as caught:
            list(load(str(home / name)))
        assert caught.value.remedy


@needs_ssh
def test_an_agent_that_does_not_answer_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "gone"))
    found = identities(route("included"), str(keygen(home / "id", "-t", "ed25519")))
    assert [name for name, _ in found.keys] == [str(home / "id")]
    assert [fault.what for fault in found.faults] == [f"ssh-agent at {home / 'gone'}"]
    monkeypatch.delenv("SSH_AUTH_SOCK")
    found = identities(route("included"), str(home / "none"))
    assert [(fault.wrong, fault.asked) for fault in found.faults] == [("is not there", True)]
    assert issubclass(LocalFault, HostError)
