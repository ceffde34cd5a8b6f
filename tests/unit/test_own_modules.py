"""Which files beside a spec are code: a change of any other one changes no digest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kuiper.cluster import own_modules
from kuiper.cluster.own_modules import own_files
from kuiper.errors import SpecError

CODE = {
    "mine.py": "from pathlib import Path\nTABLE = Path(__file__).with_name('table.json'), 'weights/start.npz'\n"
               "RESULTS = '/somewhere/results.csv', '~/status.json', 'see notes.txt'\n",
    "helper.py": "", "deep/er/still.py": "", "groups/aggregator/mine.yaml": "_target_: mine.mine",
    "package/__init__.py": "", "package/words.txt": "a b", "package/below/grid.csv": "1,2",
    "table.json": "[1]", "weights/start.npz": "", "compiled.so": "", "namespace/one.py": "",
}  # fmt: skip
OTHER = {
    "conf.yml": "job_name: a", "second.yaml": "job_name: b", "both.png": "", "results.csv": "1", "notes.txt": "todo",
    "data/x.npz": "", "logs/job/20260101-000000-0000/job.json": "{}", "logs/job/20260101-000000-0000/table.json": "",
    "elsewhere/20260101-000000-0000/job.json": "{}", "elsewhere/20260101-000000-0000/ps/table.json": "",
    "env/pyvenv.cfg": "", "env/lib/python3.11/site-packages/six.py": "", ".hidden/mine.py": "", ".swp.py": "",
    "__pycache__/mine.cpython-311.pyc": "", "status.json": "{}",
}  # fmt: skip


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def git(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)


def no_git(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.mark.parametrize("repository", [lambda *_: None, lambda folder, _: git(folder), no_git],
                         ids=["no repository", "a repository", "no git"])
def test_code_and_what_lies_beside_it(
    repository: Callable[[Path, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "job", {**CODE, **OTHER})
    repository(folder, monkeypatch)
    assert sorted(own_files(folder, ["mine."], [folder / "logs"])) == sorted(CODE)


def test_what_git_ignores(tmp_path: Path) -> None:
    """It is no code, unless the spec names it; nor does a repository hide what is in another one inside it."""
    git(tmp_path)
    folder = fill(tmp_path / "job", {"mine.py": "", "scratch.py": "", "own/deep.py": "", "kept.py": ""})
    (tmp_path / ".gitignore").write_text("mine.py\nscratch.py\nown/\n")
    assert set(own_files(folder, ["mine.", "own.deep."])) == {"mine.py", "own/deep.py", "kept.py"}
    (tmp_path / ".gitignore").write_text("job/\n")
    assert set(own_files(folder, ["mine."])) == {"mine.py", "scratch.py", "own/deep.py", "kept.py"}
    (tmp_path / ".gitignore").write_text("")
    git(fill(folder / "library", {"inner.py": ""}))
    (folder / "linked").symlink_to(fill(tmp_path / "far", {"away.py": ""}))
    (tmp_path / "far" / "back").symlink_to(tmp_path / "far")  # a circle
    assert {"library/inner.py", "linked/away.py"} < set(own_files(folder, []))


def test_too_much_for_code_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that no module names is no matter, whatever its size; nothing is left out because of it."""
    monkeypatch.setattr(own_modules, "MOST_BYTES", 1 << 20)
    large = "x" * (2 << 20)
    folder = fill(tmp_path, {"mine.py": "", "data/huge.bin": large, "big.npz": large})
    assert set(own_files(folder, ["mine."])) == {"mine.py"}
    fill(tmp_path, {"mine.py": "load('big.npz')"})
    with pytest.raises(SpecError, match=r"2 MiB, and at most 1 .*largest files are big.npz \(2 MiB\), mine.py"):
        own_files(folder, ["mine."])


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    from kuiper.cluster.snapshot import pack

    (tmp_path / os.fsdecode(b"m\xe9in.py")).write_text("")
    snapshot = pack(tmp_path, ["mine."])
    assert "spec/" + os.fsdecode(b"m\xe9in.py") in snapshot.record["files"] and snapshot.archive
