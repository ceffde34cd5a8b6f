"""The code that a job runs: in place on this machine, a content-addressed copy on every other one."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sysconfig
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import kuiper
from kuiper.cluster.host import Host
from kuiper.errors import HostError, SpecError

MOST_BYTES = 50 << 20
"""Of the files beside a spec: more is a data set that lies there, not code."""
ENTRY = PurePosixPath("kuiper", "run.py")
"""What a snapshot has for sure, below its folder."""
UNPACK_TIMEOUT = 60.0
UNPACK = """
import os, shutil, sys, tarfile, tempfile
archive, folder = sys.argv[1:]
try:
    made = tempfile.mkdtemp(prefix=".", dir=os.path.dirname(folder))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(made)
        os.rename(made, folder)
    except OSError as error:
        shutil.rmtree(made)
        if not os.path.isdir(folder):  # else another submit was faster
            sys.exit(str(error))
finally:
    os.unlink(archive)
"""


@dataclass(frozen=True)
class Code:
    """Where a host finds the code.

    Attributes:
        folder: that processes start in.
        python_path: for PYTHONPATH; None where the interpreter finds the package by itself.
    """

    folder: Path
    python_path: Path | None


def local_code() -> Code:
    """For this machine: the checkout or the installed package that is running, where it lies."""
    folder = Path(kuiper.__file__).resolve().parent.parent
    if folder in (Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")):
        return Code(Path.cwd(), None)
    return Code(folder, folder)


@dataclass(frozen=True)
class Snapshot:
    """The package, and what lies beside the spec below spec/.

    Attributes:
        contents: by name in the snapshot, sorted.
    """

    contents: dict[str, bytes] = field(repr=False)

    @cached_property
    def digest(self) -> str:
        """Of names and contents; the same code has the same one wherever it was packed."""
        digest = hashlib.sha256()
        for name, data in self.contents.items():
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        return digest.hexdigest()[:20]

    @cached_property
    def archive(self) -> bytes:
        """A tar.gz, the same bytes for the same contents."""
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
            for name, data in self.contents.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
        return packed.getvalue()

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of the code that it runs: {"digest", "files": {name: digest}}."""
        files = {name: hashlib.sha256(data).hexdigest()[:20] for name, data in self.contents.items()}
        return {"digest": self.digest, "files": files}

    @property
    def entry(self) -> PurePosixPath:
        """A file below kuiper's folder on a host that has this snapshot."""
        return PurePosixPath("code", self.digest) / ENTRY

    def install(self, host: Host, folder: PurePosixPath) -> None:
        """Unpack it in a folder of a host.

        Raises:
            HostError: it cannot be written there.
        """
        archive = folder.with_name(f"{folder.name}.tar.gz")
        host.put(self.archive, archive)
        done = host.run([host.python, "-I", "-c", UNPACK, str(archive), str(folder)], UNPACK_TIMEOUT)
        if done.code:
            raise HostError(f"{host.name}: cannot unpack the code in {folder}: {done.err.strip()[-500:]}",
                            "check exp_path, its space and the interpreter there")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """What became of each file that differs between two records: 'added', 'removed' or 'changed'."""
    before, after = old["files"], new["files"]
    return {name: "added" if name not in before else "removed" if name not in after else "changed"
            for name in sorted({*before, *after}) if before.get(name) != after.get(name)}


def pack(beside: Path | None, to_send: bool = True) -> Snapshot:
    """Of the package that is running and of a spec's folder.

    Args:
        beside: the spec's folder when it has modules of the user's own; tracked or not by git, but not
            ignored.
        to_send: to other hosts. If not, a folder that holds more than code is left out instead of refused.

    Raises:
        SpecError: the folder holds more than code.
    """
    package = Path(kuiper.__file__).resolve().parent
    files = {f"kuiper/{path.relative_to(package).as_posix()}": path for path in package.rglob("*")
             if path.suffix in (".py", ".yaml") and path.is_file()}
    own = _not_ignored(beside) if beside is not None else []
    size = sum(path.stat().st_size for path in own)
    if size <= MOST_BYTES:
        files |= {f"spec/{path.relative_to(beside).as_posix()}": path for path in own}
    elif to_send:
        raise SpecError(f"the spec's folder {beside} has {size >> 20} MiB to send along, at most "
                        f"{MOST_BYTES >> 20} are", "let git ignore what is no code, or move the spec to a folder "
                                                  "of its own with the modules that `allow` names")
    return Snapshot({name: files[name].read_bytes() for name in sorted(files)})


def _not_ignored(folder: Path) -> list[Path]:
    """Files below a folder that git would not ignore; outside a repository, those that are not hidden."""
    listed = subprocess.run(["git", "-C", str(folder), "ls-files", "-coz", "--exclude-standard", "--", "."],
                            capture_output=True, check=False)
    if listed.returncode == 0:
        paths = [folder / name.decode(errors="surrogateescape") for name in listed.stdout.split(b"\0") if name]
    else:
        paths = [path for path in folder.rglob("*")
                 if not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)]
    return [path for path in paths if path.is_file()]
