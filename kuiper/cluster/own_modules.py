"""The user's own code: which of the files beside a spec a job runs.

Code is every Python file in the spec's folder and below it, all of a package there (a folder with __init__.py),
what lies in `groups/`, and any other file that one of these modules names in a string. It is not: files that git
ignores or that are hidden, virtual environments, and what lies below a log_path or in a run directory. So a
result, a picture, data or another spec in the same folder changes nothing.
"""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kuiper.errors import SpecError

MOST_BYTES = 50 << 20
"""Of own code: more is data that lies among it."""
SUFFIXES = ".py", ".so"
GROUPS = "groups"


def own_files(folder: Path, allow: Sequence[str], apart: Iterable[Path] = ()) -> dict[str, Path]:
    """The files beside a spec that are code, by their names below its folder.

    Args:
        allow: the modules that the spec names; they are code even where git ignores them.
        apart: folders that hold none, such as log_path.

    Raises:
        SpecError: they are too large to be code; names the largest.
    """
    apart = {os.path.realpath(path) for path in apart}
    paths = set(_listed(folder, apart))
    for name in {prefix.split(".")[0] for prefix in allow}:
        for path in (folder / f"{name}.py", folder / name):
            if path.exists() and not any(path == one or path in one.parents for one in paths):
                paths |= {path} if path.is_file() else set(_walked(path, apart))
    modules = {path for path in paths if path.suffix in SUFFIXES}
    packages = {path.parent for path in modules if path.name == "__init__.py" and path.parent != folder}
    code = modules | {path for path in paths if packages.intersection(path.parents)}
    code |= {path for path in paths if path.suffix in (".yaml", ".yml") and folder / GROUPS in path.parents}
    if rest := paths - code:
        named = {name for path in code if path.suffix == ".py" for name in _named(path)}
        code |= {path for path in rest if path.name in named}
    _refuse_large(folder, code)
    return {path.relative_to(folder).as_posix(): path for path in code}


def _listed(folder: Path, apart: set[str]) -> Iterator[Path]:
    """Files below a folder that git would not ignore; all of them where git has no say."""
    command = ["git", "-C", str(folder), "ls-files", "-coz", "--exclude-standard", "--", "."]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:  # there is no git
        yield from _walked(folder, apart)
        return
    names = [os.fsdecode(name) for name in done.stdout.split(b"\0") if name] if done.returncode == 0 else []
    if not names:  # no repository, or it ignores the whole folder
        yield from _walked(folder, apart)
        return
    known: dict[Path, bool] = {folder: True}

    def enters(path: Path) -> bool:
        if path not in known:
            known[path] = enters(path.parent) and _is_code(path, apart)
        return known[path]

    for path in (folder / name for name in names):
        if path.name.startswith(".") or not enters(path.parent):
            continue
        if path.is_dir():  # a link, a submodule or a repository of its own
            yield from _walked(path, apart) if _is_code(path, apart) else ()
        elif path.is_file():
            yield path


def _walked(folder: Path, apart: set[str], above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Files below a folder that are not hidden; links are followed, but not in a circle."""
    place = os.path.realpath(folder)
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name) if place not in above else ():
        path = Path(entry.path)
        if entry.is_dir():
            yield from _walked(path, apart, (*above, place)) if _is_code(path, apart) else ()
        elif entry.is_file() and not entry.name.startswith("."):
            yield path


def _is_code(folder: Path, apart: set[str]) -> bool:
    """Whether a folder may hold code: no hidden one, log_path, run directory or virtual environment."""
    if folder.name.startswith(".") or folder.name == "__pycache__" or os.path.realpath(folder) in apart:
        return False
    return not any((folder / mark).exists() for mark in ("pyvenv.cfg", "job.json"))


def _named(module: Path) -> set[str]:
    """Names of files that a module has in its strings, be they with a folder before them or not.

    A full path is of a file that stays where it is.
    """
    try:
        tree = ast.parse(module.read_bytes())
    except (SyntaxError, ValueError):  # the job will say so
        return set()
    strings = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {value.rpartition("/")[2] for value in strings if not value.startswith(("/", "~"))}


def _refuse_large(folder: Path, code: set[Path]) -> None:
    sizes = {path: path.stat().st_size for path in code}
    if sum(sizes.values()) <= MOST_BYTES:
        return
    largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
    said = ", ".join(f"{path.relative_to(folder)} ({sizes[path] / (1 << 20):.0f} MiB)" for path in largest)
    raise SpecError(
        f"the code beside the spec in {folder} has {sum(sizes.values()) >> 20} MiB, and at most {MOST_BYTES >> 20} "
        f"can be kept with a run; the largest files are {said}",
        "move what is data out of the modules' packages and have them read it by its full path, let git ignore it, "
        "or move the spec to a folder of its own with the modules that `allow` names")
