"""Where a job lives on each of its hosts: reached, fit, and with its code, before anything of it is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kuiper.cluster.fitness import Finding, of_all, of_one
from kuiper.cluster.host import LOCAL, Address, connect
from kuiper.cluster.parallel import in_parallel, together
from kuiper.cluster.progress import Say
from kuiper.cluster.snapshot import Code, Snapshot, local_code, pack
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
        code: what their processes run.
        runs: the folder of run directories; None on the submitter's own machine, which has log_path.
    """

    address: Address
    code: Code
    runs: PurePosixPath | None = None

    def run_dir(self, run_dir: Path) -> str:
        """Where this host has the job whose run directory on the submitter is `run_dir`."""
        return str(self.runs / run_dir.parent.name / run_dir.name if self.runs else run_dir)


def prepare(spec: Spec, hosts: Iterable[str], say: Say) -> dict[str, Ground]:
    """Reach every host, at most 32 at once, and bring the code there unless it is there already.

    Raises:
        HostError: some cannot be reached, or are not fit for the spec; names each of them.
    """
    names = list(dict.fromkeys(hosts))
    away = any(name != LOCAL for name in names)
    on_gpus = spec.mode == "cluster" and any(entry.gpus for entry in spec.worker_ips)
    if not away and not on_gpus:  # it is this interpreter that will run it
        return {LOCAL: Ground(Address(LOCAL), local_code())}
    snapshot = pack(spec.path.parent if spec.allow else None) if away else None

    def ready(name: str) -> tuple[Facts, Ground]:
        facts = _looked_at(spec, name, snapshot, say)
        refuse_wrong(of_one(spec, name, facts))
        return facts, _prepared(spec, name, facts, snapshot, say)

    found = dict(zip(names, in_parallel(ready, names), strict=True))
    refuse_wrong(of_all({name: facts for name, (facts, _) in found.items()}))
    return {name: ground for name, (_, ground) in found.items()}


def refuse_wrong(findings: Iterable[Finding]) -> None:
    """Raises HostError with those that would make a run fail."""
    wrong = [each for each in findings if each.verdict == "wrong"]
    if wrong:
        raise together([HostError(f"{each.host}: {each.detail}", each.remedy) for each in wrong])


def _looked_at(spec: Spec, name: str, snapshot: Snapshot | None, say: Say) -> Facts:
    host = connect(spec.address(name))
    host.reach()
    say("reached", name)
    if name == LOCAL or snapshot is None:
        facts = survey(host, str(Path(spec.log_path).absolute()))
    else:
        facts = survey(host, spec.exp_path, file=str(snapshot.entry))
    say(f"python {facts['python']}, torch {facts['torch']}", name)
    return facts


def _prepared(spec: Spec, name: str, facts: Facts, snapshot: Snapshot | None, say: Say) -> Ground:
    if name == LOCAL or snapshot is None:
        return Ground(Address(LOCAL), local_code())
    base = PurePosixPath(facts["base"])
    code = base / "code" / snapshot.digest
    address = spec.address(name, python=facts["path"], base=str(base))
    if not facts["there"]:
        snapshot.install(connect(address), code)
    say("code is there" if facts["there"] else f"code sent, {len(snapshot.archive) >> 10} kB", name)
    return Ground(address, Code(code, code), base / "runs")
