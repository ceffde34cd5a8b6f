"""Labs for the tests of a folder, and a submitter of its own for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kuiper.cluster import agent
from kuiper.cluster.host import connect
from kuiper.cluster.login import Login
from tests.cluster.lab import SSHD, Lab
from tests.cluster.namespaces import lacking
from tests.integration.test_faults import wait_for

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
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Lab], None]:
    """A submitter that knows nobody, and what makes it know the hosts of a lab."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    connect.cache_clear()
    Login.of.cache_clear()

    def trust(lab: Lab) -> None:
        known = tmp_path / "state" / "kuiper" / "known_hosts"
        known.parent.mkdir(parents=True)
        known.write_text(lab.known_hosts())

    return trust


@pytest.fixture
def lab(cluster: Lab, trust: Callable[[Lab], None]) -> Iterator[Lab]:
    """The lab, trusted, every sshd up; the test ends with nothing of its jobs alive."""
    trust(cluster)
    yield cluster
    for host in cluster.hosts:
        if not host.listens:
            host.start()
    runs = {Path(path).name for host in cluster.hosts for path in Path(host.home).glob("kuiper/runs/*/*")}
    left = [run for run in runs if agent.marked(KUIPER_RUN=run)]
    for run in left:
        for who in agent.marked(KUIPER_RUN=run):
            agent.send(who, 9)
    assert not left, "the test left processes behind"


@pytest.fixture
def network(tmp_path_factory: pytest.TempPathFactory, trust: Callable[[Lab], None]) -> Iterator[Lab]:
    """A lab of its own for one test, whose hosts have real links; in the end nothing at all runs on them."""
    if problem := lacking():
        pytest.skip(problem)
    lab = Lab.up(tmp_path_factory.mktemp("network"), HOSTS + 1, namespaces=True)
    try:
        trust(lab)
        yield lab
        wait_for(lambda: not any(host.processes for host in lab.hosts), 60)
    finally:
        lab.down()
