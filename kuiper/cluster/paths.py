"""Where everything of a run is. No other file of the control plane puts a path together."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kuiper.errors import SpecError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


def check_job_name(name: str) -> str:
    """`name`, which becomes a folder and a word on the command line.

    Raises:
        SpecError: it has anything but letters, digits, dots, dashes and underscores, or does not begin
            with a letter or digit, or is longer than 100 characters.
    """
    if not _NAME.match(name):
        raise SpecError(
            f"job_name {name!r} is not a name",
            "use at most 100 letters, digits, '.', '-' and '_', and begin with a letter or digit",
        )
    return name


@dataclass(frozen=True)
class ProcessPaths:
    """The folder of one process; the same on the submitter and on the process's host."""

    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def training_perf(self) -> Path:
        return self.folder / "training_perf"

    @property
    def endpoint(self) -> Path:
        return self.folder / "endpoint.json"

    @property
    def agent(self) -> Path:
        return self.folder / "agent.json"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets.json"

    @property
    def tls(self) -> Path:
        return self.folder / "tls"


@dataclass(frozen=True)
class RunPaths:
    """A run directory, <log_path>/<job_name>/<run_id>."""

    folder: Path

    @classmethod
    def of(cls, log_path: str | Path, job_name: str, run_id: str) -> RunPaths:
        return cls(absolute(log_path) / check_job_name(job_name) / run_id)

    @property
    def spec(self) -> Path:
        return self.folder / "spec.yml"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    def host_file(self, name: str) -> Path:
        """The file that was given for the "servers" or the "workers"."""
        return self.folder / name

    @property
    def code(self) -> Path:
        """What code it runs: names and digests."""
        return self.folder / "code.json"

    @property
    def environment(self) -> Path:
        return self.folder / "environment.json"

    @property
    def job(self) -> Path:
        """The submitter's ledger of this run."""
        return self.folder / "job.json"

    def process(self, name: str) -> ProcessPaths:
        return ProcessPaths(self.folder / name)


def code_folder(log_path: Path) -> Path:
    """Where the runs of a log_path have the code that they run on this machine, a folder for each digest."""
    return log_path / ".code"


def absolute(path: str | Path) -> Path:
    """`path` with ~ expanded, seen from the current folder."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def state_folder() -> Path:
    """Where this user's registry and locks are: $XDG_STATE_HOME/kuiper or ~/.local/state/kuiper."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "kuiper"


def known_hosts() -> Path:
    """The host keys that `trust` accepted, beside those of ~/.ssh/known_hosts."""
    return state_folder() / "known_hosts"
