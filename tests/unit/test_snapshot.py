"""A snapshot is in its place whole or not at all, however many bring it there at once."""

from __future__ import annotations

import importlib.util
import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from kuiper.cluster.host import LocalHost
from kuiper.cluster.snapshot import ENTRY, WHEN, Snapshot, _bring_bytecode, is_whole, pack
from kuiper.code_digest import contents_of, digest_of
from kuiper.errors import HostError, KuiperError

Bring = Callable[[Snapshot, Path], None]
WAYS: dict[str, Bring] = {
    "here": lambda snapshot, folder: snapshot.install_here(folder),
    "to a host": lambda snapshot, folder: snapshot.install(LocalHost(), PurePosixPath(folder)),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("bring", WAYS.values(), ids=WAYS.keys())
def test_many_at_once(bring: Bring, tmp_path: Path) -> None:
    """As hosts that share a folder do, or submits of one moment. What is there already is as good."""
    snapshot = pack()
    folder = tmp_path / "code" / snapshot.digest
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: bring(snapshot, folder), range(8)))
    assert [path.name for path in folder.parent.iterdir()] == [snapshot.digest]
    assert is_whole(folder, snapshot.digest) and digest_of(contents_of(folder)) == snapshot.digest
    bring(snapshot, folder)
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.py")} == {0o444}


@pytest.mark.parametrize("bring", WAYS.values(), ids=WAYS.keys())
def test_where_it_cannot_be(bring: Bring, tmp_path: Path) -> None:
    snapshot = pack()
    (tmp_path / "code").touch()
    with pytest.raises((KuiperError, HostError), match="code"):
        bring(snapshot, tmp_path / "code" / snapshot.digest)
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


def test_what_a_crash_left_is_made_again(tmp_path: Path) -> None:
    snapshot = pack()
    folder = tmp_path / snapshot.digest
    snapshot.install_here(folder)
    (folder / ENTRY).chmod(0o644)
    (folder / ENTRY).write_bytes(b"")
    assert not is_whole(folder, snapshot.digest)
    snapshot.install_here(folder)
    assert is_whole(folder, snapshot.digest) and len(list(tmp_path.glob(f"*{snapshot.digest}*"))) == 1


def test_what_is_compiled_is_shared_between_snapshots(tmp_path: Path) -> None:
    """Kernels by all that have the same ones; bytecode as far as it belongs to the files."""
    old = pack()
    new = replace(old, contents={**old.contents, "kuiper/run.py": b"print('another')\n"})
    other = replace(old, contents={**old.contents, "kuiper/aggregation/kernels/stream.py": b""})
    folders = [tmp_path / one.digest for one in (old, new, other)]
    for one, folder in zip((old, new, other), folders, strict=True):
        one.install_here(folder)
    first, second, third = (folder / "kuiper/aggregation/kernels/__pycache__" for folder in folders)
    assert first.resolve() == second.resolve() != third.resolve() and first.resolve().is_relative_to(tmp_path / "cache")
    said = subprocess.run([sys.executable, "-m", "kuiper.run"], cwd=folders[1], capture_output=True, text=True,
                          env={"PYTHONPATH": str(folders[1]), "PYTHONSAFEPATH": "1"})
    assert said.stdout == "another\n", said.stderr


def test_bytecode_comes_along_only_if_it_is_of_these_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    source, copy = tmp_path / "live.py", tmp_path / "snapshot" / "live.py"
    source.write_bytes(b"value = 1\n")
    copy.parent.mkdir()
    copy.write_bytes(b"value = 1\n")
    os.utime(copy, (WHEN, WHEN))

    def brought() -> bool:
        place = Path(importlib.util.cache_from_source(str(copy)))
        place.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            _bring_bytecode(source, copy, copy.read_bytes())
        return place.exists()

    assert not brought()
    py_compile.compile(str(source))
    assert not brought()  # an edit in the same second would not show
    os.utime(source, (1e9, 1e9))
    assert not brought()
    py_compile.compile(str(source))
    assert brought()
    said = subprocess.run([sys.executable, "-v", "-c", "import live"], cwd=copy.parent, capture_output=True, text=True)
    assert f"code object from '{Path(importlib.util.cache_from_source(str(copy)))}'" in said.stderr
    source.write_bytes(b"value = 2\n")
    os.utime(source, (1e9, 1e9))
    assert not brought()
