"""Where a job lives on each of its hosts: reached, fit, and with its code, before anything of it is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kuiper.cluster.fitness import Finding, of_all, of_one
from kuiper.cluster.host import LOCAL, Address, connect
from kuiper.cluster.parallel import in_parallel, together
from kuiper.cluster.progress import Say, silent
from kuiper.cluster.paths import absolute, code_folder
from kuiper.cluster.snapshot import Code, Snapshot, pack
from kuiper.cluster.survey import Facts, survey
from kuiper.errors import HostError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec


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
        code: where what their processes run is.
        runs: the folder of run directories; None on the submitter's own machine, which has log_path.
    """

    address: Address
    code: Code
    runs: PurePosixPath | None = None

    @classmethod
    def at(cls, address: Address, digest: str, log_path: str) -> Ground:
        """Where everything is on a host, for code of that digest."""
        if address.host == LOCAL:
            return cls(Address(LOCAL), Code(code_folder(absolute(log_path)) / digest))
        base = PurePosixPath(address.base)
        return cls(address, Code(Path(base / "code" / digest)), base / "runs")

    def run_dir(self, run_dir: Path) -> str:
        """Where this host has the job whose run directory on the submitter is `run_dir`."""
        return str(self.runs / run_dir.parent.name / run_dir.name if self.runs else run_dir)


def code_of(spec: Spec) -> Snapshot:
    """What jobs of a spec run.

    Raises:
        SpecError: modules of the user's own come with too much data.
    """
    return pack(spec.path.absolute().parent if spec.allow else None, spec.allow, [absolute(spec.log_path)])


def prepare(spec: Spec, hosts: Iterable[str], snapshot: Snapshot, say: Say) -> dict[str, Ground]:
    """Reach every host, at most 32 at once, and bring the code there unless it is there already.

    Raises:
        HostError: some cannot be reached, or are not fit for the spec; names each of them.
        KuiperError: there is no room for the code here.
    """
    names = list(dict.fromkeys(hosts))
    on_gpus = spec.mode == "cluster" and any(entry.gpus for entry in spec.worker_ips)
    if names == [LOCAL] and not on_gpus:  # it is this interpreter that will run it
        here = Ground.at(Address(LOCAL), snapshot.digest, spec.log_path)
        snapshot.install_here(here.code.folder)
        return {LOCAL: here}

    def ready(name: str) -> tuple[Facts, Ground]:
        facts, ground = look_at(spec, name, snapshot, say)
        if name == LOCAL:
            snapshot.install_here(ground.code.folder)
        else:
            if not facts["there"]:
                snapshot.install(connect(ground.address), PurePosixPath(ground.code.folder))
            say("code is there" if facts["there"] else f"code sent, {len(snapshot.archive) >> 10} kB", name)
        return facts, ground

    found = dict(zip(names, in_parallel(ready, names), strict=True))
    refuse_wrong(of_all({name: facts for name, (facts, _) in found.items()}))
    return {name: ground for name, (_, ground) in found.items()}


def assumed(spec: Spec, name: str) -> Address:
    """What will be found out of a host's address, as far as it is known without asking it."""
    if name == LOCAL:
        return Address(LOCAL)
    known = spec.exp_path.startswith(("/", "~", "$HOME", "${HOME}"))
    return spec.address(name, base=spec.exp_path if known else f"~/{spec.exp_path}")


def look_at(spec: Spec, name: str, snapshot: Snapshot, say: Say = silent) -> tuple[Facts, Ground]:
    """What a host has, and where on it everything will be; changes nothing there.

    Raises:
        HostError: it cannot be reached, or is not fit for the spec.
    """
    host = connect(spec.address(name))
    host.reach()
    say("reached", name)
    folder = str(Path(spec.log_path).absolute()) if name == LOCAL else spec.exp_path
    facts = survey(spec, host, folder, file=str(snapshot.entry))
    say(f"python {facts['python']}, torch {facts['torch']}", name)
    refuse_wrong(of_one(spec, name, facts))
    found = {"python": facts["path"], "base": facts["base"]}
    address = Address(LOCAL) if name == LOCAL else spec.address(name, **found)
    return facts, Ground.at(address, snapshot.digest, spec.log_path)


def refuse_wrong(findings: Iterable[Finding]) -> None:
    """Raises HostError with those that would make a run fail."""
    wrong = [each for each in findings if each.verdict == "wrong"]
    if wrong:
        raise together([HostError(f"{each.host}: {each.detail}", each.remedy) for each in wrong])
