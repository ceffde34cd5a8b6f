"""The code that a job runs: a content-addressed copy of it, on this machine as on every other one."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import kuiper
from kuiper.cluster import unpack
from kuiper.cluster.checkout import state
from kuiper.cluster.files import make_folder
from kuiper.cluster.host import Host
from kuiper.cluster.own_modules import own_files
from kuiper.code_digest import MANIFEST, contents_of, digest_of
from kuiper.errors import HostError, KuiperError

ENTRY = PurePosixPath("kuiper", "run.py")
"""What a snapshot has for sure, below its folder."""
SPEC = "spec"
"""Where it has the user's own modules."""
UNPACK_TIMEOUT = 60.0
PACKAGE = Path(kuiper.__file__).resolve().parent
READ_ONLY = 0o444
WHEN = 0
"""Unix seconds: the time that every file of a snapshot bears, so that compiled ones stay valid from one to the next."""
SETTLED = 2.0
"""Seconds after which a file that is edited has another time than before, for Python which compares them."""


@dataclass(frozen=True)
class Code:
    """Where a host finds the code: the folder of a snapshot, which is also where processes start."""

    folder: Path


@dataclass(frozen=True)
class Snapshot:
    """The package, and the user's own modules below spec/.

    Attributes:
        contents: by name in the snapshot, sorted.
        beside: the spec's folder, if it has modules of the user's own.
        git: what the package's checkout says of itself, None where it is no checkout.
    """

    contents: dict[str, bytes] = field(repr=False)
    beside: Path | None = None
    git: Mapping[str, Any] | None = None

    @cached_property
    def digest(self) -> str:
        """Of names and contents; the same code has the same one wherever it was packed."""
        return digest_of(self.contents)

    @cached_property
    def kernels(self) -> str:
        """The digest of those files that Numba compiles, and of all that they include."""
        below = f"{unpack.KERNELS}/"
        return digest_of({name: data for name, data in self.contents.items() if name.startswith(below)})

    @cached_property
    def _files(self) -> dict[str, bytes]:
        """What is in its folder."""
        return {**self.contents, MANIFEST: json.dumps(list(self.contents)).encode()}

    @cached_property
    def archive(self) -> bytes:
        """A tar.gz, the same bytes for the same contents."""
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
            for name, data in self._files.items():
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = len(data), READ_ONLY, WHEN
                tar.addfile(entry, io.BytesIO(data))
        return packed.getvalue()

    @property
    def record(self) -> dict[str, Any]:
        """What a run keeps of the code that it runs: digest, files ({name: digest}), beside and git."""
        files = {name: hashlib.sha256(data).hexdigest()[:20] for name, data in self.contents.items()}
        return {"digest": self.digest, "files": files, "beside": self.beside and str(self.beside), "git": self.git}

    @property
    def entry(self) -> PurePosixPath:
        """A file below kuiper's folder on a host that has this snapshot."""
        return PurePosixPath("code", self.digest) / ENTRY

    def install(self, host: Host, folder: PurePosixPath) -> None:
        """Unpack it in a folder of a host; that it has come to be there meanwhile is as good.

        Raises:
            HostError: it cannot be written there.
        """
        # Hosts may share this folder, and submits: so no two ever use the same archive.
        archive = folder.with_name(f".{folder.name}.{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}.tar.gz")
        host.put(self.archive, archive)
        source = Path(unpack.__file__).read_text()
        words = [host.python, "-I", "-c", source, str(archive), str(folder), self.kernels]
        done = host.run(words, UNPACK_TIMEOUT)
        if done.code:
            raise HostError(f"{host.name}: cannot unpack the code in {folder}: {done.err.strip()[-500:]}",
                            "check exp_path, its space and the interpreter there")

    def install_here(self, folder: Path) -> None:
        """Write it to a folder of this machine, unless it is there, whole.

        Raises:
            KuiperError: it cannot be written there.
        """
        make_folder(folder.parent)
        try:
            if is_whole(folder, self.digest):
                os.utime(folder)  # for `clean`: it is needed again
                return
            made = Path(tempfile.mkdtemp(prefix=f".{os.uname().nodename}-{os.getpid()}-", dir=folder.parent))
            try:
                self._write(made)
                if folder.exists():  # damaged: what a crash of this machine left of it
                    folder.rename(made.with_name(f"{made.name}.damaged"))
                unpack.put_in_place(str(made), str(folder))
            finally:
                shutil.rmtree(made, ignore_errors=True)
                shutil.rmtree(made.with_name(f"{made.name}.damaged"), ignore_errors=True)
        except OSError as error:
            raise KuiperError(f"cannot keep the code in {folder}: {error.strerror or error}",
                              "free space there, or choose a log_path that this user may write to") from error

    def _write(self, folder: Path) -> None:
        folder.chmod(0o755)
        for parent in {(folder / name).parent for name in self.contents}:
            parent.mkdir(parents=True, exist_ok=True)
        unpack.share_kernels(str(folder), self.kernels)
        for name, data in self._files.items():
            path = folder / name
            path.write_bytes(data)
            path.chmod(READ_ONLY)  # a mistake: whoever edits it from a traceback
            os.utime(path, (WHEN, WHEN))
            if name.startswith("kuiper/"):
                with suppress(OSError):
                    _bring_bytecode(PACKAGE.parent / name, path, data)


def _bring_bytecode(source: Path, path: Path, data: bytes) -> None:
    """Copy what Python has compiled of a file, if it belongs to `data` for sure: an edit then compiles one file."""
    compiled = Path(importlib.util.cache_from_source(str(source)))
    made, code, status = compiled.stat().st_mtime, compiled.read_bytes(), source.stat()
    header = code[:4], code[4:8], code[8:12], code[12:16]  # see PEP 552
    expected = (importlib.util.MAGIC_NUMBER, bytes(4), _four_bytes(int(status.st_mtime)), _four_bytes(len(data)))
    if header != expected or made < status.st_mtime + SETTLED or source.read_bytes() != data:
        return
    place = Path(importlib.util.cache_from_source(str(path)))
    if place.is_relative_to(path.parent) and not place.exists():  # else Python keeps it elsewhere
        place.parent.mkdir(exist_ok=True)
        temporary = place.with_name(f"{place.name}.{secrets.token_hex(4)}")  # kernels' are shared
        temporary.write_bytes(code[:8] + _four_bytes(WHEN) + code[12:])
        temporary.replace(place)


def _four_bytes(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "little")


def is_whole(folder: Path, digest: str) -> bool:
    """Whether a folder of this machine has the snapshot of that digest, and nothing of it was changed."""
    return folder.name == digest and digest_of(contents_of(folder)) == digest


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """What became of each file that differs between two records: 'added', 'removed' or 'changed'."""
    before, after = old["files"], new["files"]
    return {name: "added" if name not in before else "removed" if name not in after else "changed"
            for name in sorted({*before, *after}) if before.get(name) != after.get(name)}


def pack(beside: Path | None = None, allow: Sequence[str] = (), apart: Iterable[Path] = ()) -> Snapshot:
    """Of the package that is running, and of the user's own modules.

    Args:
        beside: the spec's folder when it has such modules.
        allow, apart: see own_files.

    Raises:
        SpecError: there is too much of them to be code.
    """
    files = {f"kuiper/{path.relative_to(PACKAGE).as_posix()}": path for path in PACKAGE.rglob("*")
             if path.suffix in (".py", ".yaml") and path.is_file()}
    own = own_files(beside, allow, [*apart, PACKAGE]) if beside is not None else {}
    files |= {f"{SPEC}/{name}": path for name, path in own.items()}
    return Snapshot({name: files[name].read_bytes() for name in sorted(files)}, beside, state(PACKAGE))
