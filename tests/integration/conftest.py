"""Every test here gets a state folder of its own and leaves no process and no thread behind."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kuiper.cluster import agent
from kuiper.link.mesh import Mesh
from tests.integration.meshes import BLOCKS, CHANNELS, NAMES, RUN, Recorder, write

ENDING = 3.0
"""Seconds that an agent has for its own end, once it has written exit.json."""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """XDG_STATE_HOME in the test's folder, and a marker in everything that the test starts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)  # `logs` here is not the user's
    test = uuid.uuid4().hex
    monkeypatch.setenv("KUIPER_TEST", test)
    yield
    until = time.monotonic() + ENDING
    while (left := agent.marked(KUIPER_TEST=test)) and time.monotonic() < until:
        time.sleep(0.05)
    for who in left:
        agent.send(who, signal.SIGKILL)
    assert not left, "the test left processes behind"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates of the run, a folder per process."""
    return write(tmp_path_factory.mktemp("tls"), RUN, 3600)


@pytest.fixture
def mesh() -> Iterator[Callable[..., Mesh]]:
    """Make a mesh with a recorder; all are closed at the end and leave no thread."""
    made: list[Mesh] = []
    before = set(threading.enumerate())

    def make(rank: int, folder: Path | None = None, attempt: int = 0, **more: int) -> Mesh:
        own = folder / NAMES[rank] if folder else None
        made.append(Mesh(rank, NAMES, CHANNELS, BLOCKS, Recorder(), RUN, own, attempt, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()
    deadline = time.monotonic() + 10
    while left := [each for each in set(threading.enumerate()) - before if each.name.startswith("kuiper-")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
