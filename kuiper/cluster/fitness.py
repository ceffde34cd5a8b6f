"""What of a survey stands in the way of a spec: what `doctor` calls wrong, `submit` refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kuiper.cluster.preflight import ROOM, ROOM_A_PROCESS
from kuiper.cluster.survey import Facts

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

LEAST_PYTHON = (3, 11)
PLENTY = 1 << 30
SKEW, MOST_SKEW = 2.0, 86400.0
"""Seconds between clocks that are worth a word, and those that make a run's certificates invalid."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at on one host.

    Attributes:
        verdict: 'ok', 'warning' (it works, perhaps not as hoped) or 'wrong' (a submit is refused, or fails).
    """

    host: str
    subject: str
    verdict: str
    detail: str
    remedy: str = ""


def of_one(spec: Spec, name: str, facts: Facts) -> Iterator[Finding]:
    """Of one host by itself."""
    who = spec.address(name).user or "this user"
    yield Finding(name, "login", "ok", f"{who}, {facts['cores']} cores, {facts['machine']}")
    fit = tuple(int(part) for part in facts["python"].split(".")[:2]) >= LEAST_PYTHON
    yield Finding(name, "python", "ok" if fit else "wrong", f"{facts['executable']} is {facts['python']}",
                  "" if fit else f"kuiper needs {'.'.join(map(str, LEAST_PYTHON))}: give another `python`")
    yield _torch(name, facts)
    if facts.get("kuiper"):
        yield Finding(name, "packages", "wrong", f"{facts['executable']} cannot import kuiper: {facts['kuiper']}",
                      "install kuiper's requirements there")
    yield from _gpus(spec, name, facts)
    yield _disk(spec, name, facts)
    if facts["runs"]:
        yield Finding(name, "runs", "warning", f"processes of {', '.join(facts['runs'])} are alive",
                      "stop them, if they are no longer wanted")
    if abs(facts["skew"]) > SKEW + facts["asked"]:
        yield Finding(name, "clock", "wrong" if abs(facts["skew"]) > MOST_SKEW else "warning",
                      f"is {facts['skew']:+.1f} s from this machine's",
                      "logs of several hosts are merged by time: set the clocks with NTP")


def _torch(name: str, facts: Facts) -> Finding:
    if facts["torch"]:
        return Finding(name, "torch", "ok", f"{facts['torch']} {facts.get('capability', '')}".rstrip())
    remedy = f"{facts['executable']} -m pip install kuiper's requirements, or say which: "
    remedy += "{host: ..., python: /path/to/python}, or activate an environment in setup_commands"
    return Finding(name, "torch", "wrong", f"{facts['executable']} has none: {facts['why']}", remedy)


def _gpus(spec: Spec, name: str, facts: Facts) -> Iterator[Finding]:
    wanted, there = _wanted(spec, name), facts.get("gpus")
    if there is None or not wanted:
        return
    missing = [gpu for gpu in wanted if gpu >= there]
    if missing:
        which = ", ".join(map(str, missing))
        yield Finding(name, "gpus", "wrong", f"there is no GPU {which}: it has {there}", "correct worker_ips")
    elif (facts["torch"] or "").endswith("+cpu"):
        yield Finding(name, "gpus", "wrong", f"torch {facts['torch']} there cannot use GPUs",
                      "install a CUDA build of it on every host, or ask for no GPUs in worker_ips")
    for gpu, (free, total) in enumerate(facts.get("memory", ())):
        if gpu in wanted and free < total / 2:
            yield Finding(name, "gpus", "warning", f"{free >> 20} of {total >> 20} MiB of GPU {gpu} are free")


def _wanted(spec: Spec, name: str) -> list[int]:
    return sorted({gpu for entry in spec.worker_ips if entry.host == name for gpu in entry.gpus})


def _disk(spec: Spec, name: str, facts: Facts) -> Finding:
    entries = [entry for entry in (*spec.ps_ip, *spec.worker_ips) if entry.host == name]
    least = ROOM + sum(entry.processes for entry in entries) * ROOM_A_PROCESS
    wrong = facts["place"]
    if not wrong and facts["free"] < least:
        wrong = f"{facts['base']} has {facts['free'] >> 10} kB free, less than {least >> 10}"
    if wrong:
        return Finding(name, "disk", "wrong", wrong, "free space, or choose an exp_path (on localhost, a "
                                                     "log_path) that this user may write to")
    return Finding(name, "disk", "ok" if facts["free"] >= PLENTY else "warning",
                   f"{facts['free'] / 1e9:.1f} GB free in {facts['base']}")


def of_all(facts: Mapping[str, Facts]) -> Iterator[Finding]:
    """What must be alike for the same bits everywhere."""
    for subject in ("torch", "capability"):
        values = Counter(found[subject] for found in facts.values() if found.get(subject))
        usual = values.most_common(1)[0][0] if values else None
        for name, found in facts.items():
            if found.get(subject) and found[subject] != usual:
                verdict = "wrong" if subject == "torch" else "warning"
                yield Finding(name, subject, verdict, f"is {found[subject]}, elsewhere {usual}",
                              "install the same torch everywhere" if subject == "torch" else
                              "bits may differ between processors: export ATEN_CPU_CAPABILITY=default")
