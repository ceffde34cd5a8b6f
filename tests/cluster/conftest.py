"""A lab for the tests of a folder, and a submitter of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kuiper.cluster import agent
from kuiper.cluster.host import connect
from kuiper.cluster.ssh import Login
from tests.cluster.lab import SSHD, Lab

HOSTS = 4


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if SSHD is None:
        if os.environ.get("CI"):
            pytest.fail("there is no sshd: .ci/run installs openssh-server")
        pytest.skip("there is no sshd: install openssh-server")
    lab = Lab.up(tmp_path_factory.mktemp("lab"), HOSTS)
    yield lab
    lab.down()


@pytest.fixture
def lab(cluster: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """The lab, trusted, every sshd up; the test ends with nothing of its jobs alive."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    known = tmp_path / "state" / "kuiper" / "known_hosts"
    known.parent.mkdir(parents=True)
    known.write_text(cluster.known_hosts())
    connect.cache_clear()
    Login.of.cache_clear()
    yield cluster
    for host in cluster.hosts:
        if not Path(host.folder, "sshd.pid").exists():
            host.start()
    runs = {Path(path).name for host in cluster.hosts for path in Path(host.home).glob("kuiper/runs/*/*")}
    left = [run for run in runs if agent.marked(KUIPER_RUN=run)]
    for run in left:
        for who in agent.marked(KUIPER_RUN=run):
            agent.send(who, 9)
    assert not left, "the test left processes behind"
