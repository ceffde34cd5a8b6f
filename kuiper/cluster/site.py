"""Where a job lives on each of its hosts: reached, with its interpreter and its code, before anything is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kuiper.cluster.host import LOCAL, Address, Host, connect
from kuiper.cluster.snapshot import Code, Snapshot, local_code, pack
from kuiper.errors import HostError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

AT_ONCE = 32
TIMEOUT = 20.0


@dataclass(frozen=True)
class Site:
    """A job's place on one host.

    Attributes:
        run_dir: its run directory there, absolute.
    """

    address: Address
    run_dir: str


@dataclass(frozen=True)
class Ground:
    """A host that is ready for jobs.

    Attributes:
        code: what their processes run.
        runs: the folder of run directories; None on the submitter's own machine, which has log_path.
    """

    address: Address
    code: Code
    runs: PurePosixPath | None = None

    def run_dir(self, run_dir: Path) -> str:
        """Where this host has the job whose run directory on the submitter is `run_dir`."""
        return str(self.runs / run_dir.parent.name / run_dir.name if self.runs else run_dir)


def prepare(spec: Spec, hosts: Iterable[str], say: Callable[[str], None]) -> dict[str, Ground]:
    """Reach every host, at most 32 at once, and bring the code there unless it is there already.

    Raises:
        HostError: some cannot be reached, or have no fit interpreter or no room; names each of them.
    """
    names = list(dict.fromkeys(hosts))
    snapshot = pack(spec.path.parent if spec.allow else None) if any(name != LOCAL for name in names) else None

    def ready(name: str) -> Ground | HostError:
        if snapshot is None or name == LOCAL:
            return Ground(Address(LOCAL), local_code())
        try:
            return _prepared(spec, name, snapshot, say)
        except HostError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        grounds = dict(zip(names, pool.map(ready, names), strict=True))
    problems = [each for each in grounds.values() if isinstance(each, HostError)]
    if problems:
        raise HostError("\n".join(each.message for each in problems), problems[0].remedy)
    return {name: each for name, each in grounds.items() if isinstance(each, Ground)}


def _prepared(spec: Spec, name: str, snapshot: Snapshot, say: Callable[[str], None]) -> Ground:
    host = connect(spec.address(name))
    python = interpreter(host)
    base = PurePosixPath(_ask(host, ["readlink", "-m", "--", expanded(host, spec.exp_path)]))
    code = base / "code" / snapshot.digest
    address = spec.address(name, python=python, base=str(base))
    sent = snapshot.install(connect(address), code)
    say(f"{name}: code {'sent' if sent else 'is there'}, {python}")
    return Ground(address, Code(code, code), base / "runs")


def interpreter(host: Host) -> str:
    """An absolute path: the spec's, else the submitter's own where it exists there, else python3."""
    if host.run(["test", "-x", host.python], TIMEOUT).code == 0:
        return host.python
    if host.python != sys.executable:
        raise HostError(f"{host.name}: there is no interpreter {host.python}", "correct `python` of that host")
    found = host.run(["sh", "-c", "command -v python3"], TIMEOUT).out.strip()
    if not found:
        raise HostError(f"{host.name}: there is no python3", "say which: {host: ..., python: /path/to/python}")
    return found


def expanded(host: Host, path: str) -> str:
    """`path` with ~ and $HOME as on that host; one that is relative begins there too."""
    home = _ask(host, ["printenv", "HOME"])
    for word in ("~", "$HOME", "${HOME}"):
        if path == word or path.startswith(word + "/"):
            path = home + path[len(word):]
    return path if path.startswith("/") else f"{home}/{path}"


def _ask(host: Host, argv: list[str]) -> str:
    done = host.run(argv, TIMEOUT)
    if done.code:
        raise HostError(f"{host.name}: {argv[0]} failed: {done.err.strip()}", "log in by hand and try it")
    return done.out.strip()
