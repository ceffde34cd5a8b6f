"""Where a job lives on each of its hosts: reached, with its interpreter and its code, before anything is made."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

from kuiper.cluster.host import LOCAL, Address, Host, connect
from kuiper.cluster.snapshot import Code, Snapshot, local_code, pack
from kuiper.errors import HostError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

AT_ONCE = 32
TIMEOUT = 20.0
HOME = "$HOME", "${HOME}"
T = TypeVar("T")


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

    @classmethod
    def at(cls, address: Address, digest: str) -> Ground:
        """Where everything is on a host, for code of that digest."""
        if address.host == LOCAL:
            return cls(Address(LOCAL), local_code())
        base = PurePosixPath(address.base)
        code = base / "code" / digest
        return cls(address, Code(code, code), base / "runs")

    def site(self, run_dir: Path, job_name: str, run_id: str) -> Site:
        """The place of one job, whose run directory on the submitter is `run_dir`."""
        return Site(self.address, str(self.runs / job_name / run_id if self.runs else run_dir))


def code_of(spec: Spec, hosts: Iterable[str]) -> Snapshot:
    """What jobs of a spec run on these hosts."""
    return pack(spec.path.parent if spec.allow else None, to_send=any(name != LOCAL for name in hosts))


def assumed(spec: Spec, name: str) -> Address:
    """What `located` will find on a host, as far as it is known without asking it."""
    if name == LOCAL:
        return Address(LOCAL)
    known = spec.exp_path.startswith(("/", "~", *HOME))
    return spec.address(name, base=spec.exp_path if known else f"~/{spec.exp_path}")


def located(spec: Spec, name: str) -> Address:
    """A host's address with its interpreter and kuiper's folder there.

    Raises:
        HostError: it cannot be reached, or there is no such interpreter.
    """
    if name == LOCAL:
        return Address(LOCAL)
    host = connect(spec.address(name))
    python = interpreter(host)
    base = _ask(host, ["readlink", "-m", "--", expanded(host, spec.exp_path)])
    return spec.address(name, python=python, base=base)


def prepare(spec: Spec, hosts: Iterable[str], snapshot: Snapshot,
            say: Callable[[str], None]) -> dict[str, Ground]:
    """Reach every host and bring the code there unless it is there already.

    Raises:
        HostError: some cannot be reached, or have no fit interpreter or no room; names each of them.
    """

    def ready(name: str) -> Ground:
        ground = Ground.at(located(spec, name), snapshot.digest)
        if name != LOCAL:
            sent = snapshot.install(connect(ground.address), ground.code.folder)
            say(f"{name}: code {'sent' if sent else 'is there'}, {ground.address.python}")
        return ground

    return of_all(hosts, ready)


def of_all(hosts: Iterable[str], work: Callable[[str], T]) -> dict[str, T]:
    """What `work` gives for each host, at most 32 at once.

    Raises:
        HostError: with all that failed.
    """

    def attempt(name: str) -> T | HostError:
        try:
            return work(name)
        except HostError as error:
            return error

    names = list(dict.fromkeys(hosts))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(attempt, names))
    problems = [each for each in found if isinstance(each, HostError)]
    if problems:
        raise HostError("\n".join(each.message for each in problems), problems[0].remedy)
    return {name: each for name, each in zip(names, found, strict=True) if not isinstance(each, HostError)}


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
    for word in ("~", *HOME):
        if path == word or path.startswith(word + "/"):
            path = home + path[len(word):]
    return path if path.startswith("/") else f"{home}/{path}"


def _ask(host: Host, argv: list[str]) -> str:
    done = host.run(argv, TIMEOUT)
    if done.code:
        raise HostError(f"{host.name}: {argv[0]} failed: {done.err.strip()}", "log in by hand and try it")
    return done.out.strip()
