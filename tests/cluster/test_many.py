"""More hosts, and more logins at once, than there may be connections."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kuiper.cluster import agent, login, ssh, store
from kuiper.cluster.host import AT_ONCE
from kuiper.cluster.paths import known_hosts
from kuiper.cluster.shell import Shells
from kuiper.cluster.slots import Slots
from kuiper.cluster.stop import stop
from tests.cluster.idle import counted, submit_idle, write_spec
from tests.cluster.lab import Lab
from tests.cluster.test_hosts import address

pytestmark = pytest.mark.cluster
HOSTS = 40
LOGINS = 60


def test_more_hosts_than_connections(lab: Lab, tmp_path: Path) -> None:
    many = Lab.up(tmp_path / "many", HOSTS)
    try:
        known_hosts().write_text(many.known_hosts())
        with counted(many) as most:
            job = submit_idle(write_spec(many, "many", HOSTS))
            [status] = store.observe([job])
            assert Counter(process.state for process in status.processes) == {"RUNNING": HOSTS}
            assert stop(job, grace=5).state == "STOPPED"
        assert not agent.marked(KUIPER_RUN=job.run_id)
        assert AT_ONCE / 2 < most() <= AT_ONCE
    finally:
        many.down()


def test_a_busy_sshd_is_asked_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default sshd drops some of those who have not logged in yet from the eleventh on (MaxStartups)."""
    monkeypatch.setattr(login, "OPEN", Slots(LOGINS))
    where = address(lab, lab.hosts[1])

    def log_in(number: int) -> str:
        host, own = ssh.SshHost(where), login.Login(where.host, where.user, where.port, where.key)
        host._shells = Shells(own)  # as a submitter of its own
        try:
            return host.run(["echo", str(number)], 20).out
        finally:
            own.close()

    with ThreadPoolExecutor(LOGINS) as pool:
        assert list(pool.map(log_in, range(LOGINS))) == [f"{number}\n" for number in range(LOGINS)]
    log = Path(lab.hosts[1].folder, "sshd.log").read_text()
    assert "past MaxStartups" in log
