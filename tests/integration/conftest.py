"""Every test here gets a state folder of its own and leaves no process behind."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kuiper.cluster import agent


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """XDG_STATE_HOME in the test's folder, and a marker in everything that the test starts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)  # `logs` here is not the user's
    test = uuid.uuid4().hex
    monkeypatch.setenv("KUIPER_TEST", test)
    yield
    left = agent.marked(KUIPER_TEST=test)
    for who in left:
        agent.send(who, signal.SIGKILL)
    assert not left, "the test left processes behind"
