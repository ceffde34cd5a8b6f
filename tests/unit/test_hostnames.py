"""Names and addresses of hosts as people write them, paths of hosts, and sockets for either family of addresses."""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from kuiper.cluster import agent, survey
from kuiper.cluster.host import LocalHost
from kuiper.cluster.hostnames import BadHost, canonical, not_reached, split
from kuiper.cluster.spec import Spec, Worker, load
from kuiper.config.schema import InvalidSpec
from kuiper.places import expanded, in_full

SPEC = """\
job_name: named
ps_ip: node0
worker_ips: [node1]
job_conf: {algorithm: parameter_server, num_workers: 5, model: mlp, dataset: digits, steps: 10}
"""
Write = Callable[..., Spec]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Loads the spec with these workers, or with other lines."""

    def write(entries: str = "[node1]", text: str = SPEC, encoding: str = "utf-8", workers: Path | None = None) -> Spec:
        path = tmp_path / "conf.yml"
        path.write_bytes(text.replace("[node1]", entries).encode(encoding))
        return load(path, workers=workers)

    return write


@pytest.mark.parametrize(
    ("text", "host", "rest"),
    [
        ("node1", "node1", None), ("gpu_node_1:4", "gpu_node_1", "4"), ("node1:[2,2]", "node1", "[2,2]"),
        ("[::1]", "::1", None), ("[::1]:4", "::1", "4"), ("[fe80::1%eth0]:[1,2]", "fe80::1%eth0", "[1,2]"),
        ("::1", "::1", None), ("fd00::2", "fd00::2", None), ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", None),
        ("fe80::1%eth0", "fe80::1%eth0", None), (" node1:2 ", "node1", "2"),
    ],
)  # fmt: skip
def test_a_host_and_what_follows_it(text: str, host: str, rest: str | None) -> None:
    assert split(text) == (host, rest)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ann@node1", "ssh_user"), ("ann@[::1]:4", "ssh_user"), ("[node1]:2222", "port: 2222"),
        ("fd00::5:4", "[fd00::5:4], or [fd00::5]:4"), ("fd00:::1", "[IPv6 address]:2"), ("node1:2:3", "host:2"),
    ],
)  # fmt: skip
def test_what_is_no_host_says_what_to_write(text: str, says: str) -> None:
    with pytest.raises(BadHost) as caught:
        split(text)
    assert says in caught.value.remedy


@pytest.mark.parametrize(
    ("texts", "host"),
    [
        (["node1", "node1."], "node1"), (["LOCALHOST", "localhost.", "localhost.localdomain"], "localhost"),
        (["fd00::2", "FD00:0:0::2", "[fd00:0:0:0:0:0:0:2]"], "fd00::2"), (["::ffff:10.0.0.1"], "10.0.0.1"),
        (["b\u00fccher.example"], "xn--bcher-kva.example"), (["FE80::1%eth0"], "fe80::1%eth0"),
    ],
)  # fmt: skip
def test_one_spelling(texts: list[str], host: str) -> None:
    assert {canonical(text) for text in texts} == {host}


def test_workers_with_all_kinds_of_names(write: Write) -> None:
    loaded = write("[gpu_1:2, _x, '[fd00::2]:4', {host: 'fd00:0::2', gpus: [1]}, {'fd00::3': 2}, '::5', Node1, "
                   "node1.:3]")
    assert loaded.worker_ips == [
        Worker("gpu_1", 2), Worker("_x"), Worker("fd00::2", 4), Worker("fd00::2", 1, (1,)), Worker("fd00::3", 2),
        Worker("::5"), Worker("Node1"), Worker("Node1", 3)]
    here = write("['127.0.0.1:2', '[::1]:3', LocalHost]", SPEC.replace("node0", "127.0.0.1"))
    assert here.worker_ips == [Worker("localhost", 2), Worker("localhost", 3), Worker("localhost")]
    assert here.ps_ip == [Worker("localhost")] and len(here.notes) == 2 and "no ssh" in here.notes[0]
    assert write("[{host: 127.0.0.1, port: 2222}]").worker_ips == [Worker("127.0.0.1", port=2222)]  # a tunnel


@pytest.mark.parametrize(
    ("workers", "says"),
    [
        ("[ann@node1:2]", "ssh_user"), ("[{host: ann@node1}]", "ssh_user"), ("['fd00::5:4']", "[fd00::5]:4"),
        ("[{host: 'fd00:::1'}]", "no host name or address"), ("[a..b, -x]", "a host name or address"),
        ("['[fd00::2]:two']", "write [fd00::2]:2"), ("[[fd00::2]:4]", "put it in quotes"),
        ("[[::1]:4]", "needs quotes: '[::1]:2'"), ("[[::1]]", "needs quotes: '[::1]:2'"),
        ("[{host: node1, python: '$SCRATCH/python'}]", "$HOME and $USER"),
    ],
)  # fmt: skip
def test_workers_that_are_none_say_what_to_write(workers: str, says: str, write: Write) -> None:
    with pytest.raises(InvalidSpec) as caught:
        write(workers)
    assert says in str(caught.value)


def test_files_from_other_systems(write: Write, tmp_path: Path) -> None:
    """A byte-order mark, CRLF, tabs and trailing commas, in host files and in the spec."""
    lines = b"gpu_1:2,", b"\t[fd00::2]:22:4\t# four", b"", b"::5", b"[fd00::3]:2222;"
    (tmp_path / "hosts").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    loaded = write(text=SPEC.replace("\n", "\r\n"), encoding="utf-8-sig", workers=tmp_path / "hosts")
    assert loaded.worker_ips == [Worker("gpu_1", 2), Worker("fd00::2", 4, port=22), Worker("::5"),
                                 Worker("fd00::3", port=2222)]
    assert loaded.job_name == "named"


def test_home_and_user_in_paths(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of logs and keys they are this machine's, of everything on hosts that host's."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USER", "me")
    lines = ("exp_path: /scratch/$USER/kuiper\nlog_path: /data/${USER}_logs/$USER\n"
             "auth: {ssh_private_key: /keys/$USER/id}\n")
    loaded = write("[{host: node1, python: $HOME/$USER/python}, {host: localhost, python: '~/${USER}/python'}]",
                   SPEC + lines)
    assert loaded.exp_path == "/scratch/$USER/kuiper" and loaded.log_path == "/data/me_logs/me"
    assert loaded.address("node1").key == "/keys/me/id" and loaded.address("node1").python == "$HOME/$USER/python"
    assert loaded.address("localhost").python == "/home/me/me/python"
    assert in_full("root", "$HOME/$USER/data") == Path("/home/me/me/data")
    assert expanded("/a/$USERS/$(x)/$1") == "/a/$USERS/$(x)/$1"
    monkeypatch.delenv("USER")
    assert expanded("/$USER") == f"/{pwd.getpwuid(os.getuid()).pw_name}"
    with monkeypatch.context() as container:  # whose user /etc/passwd does not know
        container.setattr(pwd, "getpwuid", {}.__getitem__)
        assert expanded("/$USER") == f"/{os.getuid()}"
    for path in ("$SCRATCH/x", "/data/$PROJECT/x", "/data/${PROJECT}", "/data/$USERS"):
        with pytest.raises(InvalidSpec, match=r"of variables, only \$HOME and \$USER"):
            write(text=f"{SPEC}exp_path: {path}\n")


def test_a_host_puts_in_its_own_home_and_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "it's $(me)"))
    monkeypatch.setenv("USER", "ann")
    python = tmp_path / "it's $(me)" / "ann" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    host = LocalHost()
    for word in ("$HOME/$USER/python", "~/${USER}/python", "${HOME}/ann/python"):
        entry = {"host": "localhost", "python": word}
        (tmp_path / "conf.yml").write_text(yaml.safe_dump(
            {"job_name": "x", "ps_ip": "localhost", "worker_ips": [entry], "job_conf": {}}))
        facts = survey.survey(load(tmp_path / "conf.yml"), host, "$HOME/${USER}/kuiper")
        assert (facts["path"], facts["base"]) == (str(python), str(python.parent / "kuiper"))


has_ipv6 = pytest.mark.skipif(not agent.has_ipv6(), reason="this machine has no IPv6")


@has_ipv6
def test_a_server_listens_on_both_families() -> None:
    with agent.listen("", None) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, port), 20).close()
            shown = listener.accept()[1][0]
            seen = ipaddress.IPv6Address(shown)
            assert str(seen.ipv4_mapped or seen) == address
        with pytest.raises(OSError, match="ports"):
            agent.listen("", f"{port}-{port}")
    with agent.listen("127.0.0.1", None) as alone:
        assert alone.family == socket.AF_INET


@has_ipv6
def test_a_host_without_ipv6_still_listens(tmp_path: Path) -> None:
    code = ("import socket, sys, json; sys.path.insert(0, sys.argv[1]); import agent\n"
            "real = socket.socket\n"
            "def only_4(family=socket.AF_INET, *more, **named):\n"
            "    if family == socket.AF_INET6: raise OSError(97, 'Address family not supported')\n"
            "    return real(family, *more, **named)\n"
            "socket.socket = only_4\n"
            "print(json.dumps(agent.listen('', None).getsockname()[0]))")
    done = subprocess.run([sys.executable, "-I", "-c", code, str(Path(agent.__file__).parent)], capture_output=True,
                          text=True, check=True)
    assert json.loads(done.stdout) == "0.0.0.0"


@pytest.mark.parametrize(("name", "said"), [("no.such.host.invalid", "ps_ip"), ("127.0.0.1", "firewalls")])
def test_a_server_that_workers_do_not_know_by_name(name: str, said: str) -> None:
    """As an alias of the submitter's ssh config."""
    with pytest.raises(OSError) as caught:
        socket.create_connection((name, 1), 2)
    assert said in not_reached(name, f"cannot reach the server: {caught.value}")
