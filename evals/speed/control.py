"""How fast the control plane is: verbs, a submit step by step, bytes to each host, a stop, and 64 hosts.

    python -m evals.speed.control            two minutes; writes control.md beside it

Hosts are sshds on 127.0.0.2 and on, so that all of them share this machine's cores with the submitter.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.idle import DEAF, IDLE, counted, submit_idle, write_spec
from tests.cluster.lab import Lab

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOSTS, MANY = 8, 64
GRACE = 2.0
SETTLED = 8.0
"""Seconds after which all processes have imported torch, so that a stop is not measured against that."""
LIMITS = {"list": 0.4, "status": 0.4, "logs": 0.4, "stop": 0.4, "check": 1.5}
STEPS = {"reached": "reached", "python": "python and torch found", "code": "code there", "staged": "staged",
         "ps": "server started", "worker": "workers started", "RUNNING": "RUNNING"}


# ---------------------------------------------------------------- in a process of its own


def submit(conf: str, does: str = "") -> None:
    """Submit a spec and print as JSON when each host came how far, in seconds since this process began."""
    said: list[tuple[float, str, str]] = []

    def say(line: str, host: str = "") -> None:
        said.append((age(), host, line))

    if does:
        submit_idle(Path(conf), does, say)
    else:
        from kuiper.cluster.launch import submit as submit_job
        from kuiper.cluster.spec import load

        submit_job(load(conf), say=say)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"said": said, "cpu": usage.ru_utime + usage.ru_stime, "bytes": bytes_of_connections()}))


def age() -> float:
    """Seconds since this process began, its interpreter's start included."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def bytes_of_connections() -> dict[str, int]:
    """What each connection of this process has carried, both ways, with 52 bytes of headers a segment."""
    words = ["ss", "-Htinp", "state", "established"]
    lines = iter(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines())
    found = {}
    for line, numbers in zip(lines, lines, strict=True):
        if f"pid={os.getpid()}," not in line:
            continue
        counts = dict(word.split(":", 1) for word in numbers.split() if ":" in word)
        total = [int(counts.get(name, 0)) for name in ("bytes_sent", "bytes_received", "segs_out", "segs_in")]
        found[line.split()[3].rpartition(":")[0]] = total[0] + total[1] + 52 * (total[2] + total[3])
    return found


# ---------------------------------------------------------------- measuring


def run(*words: str, code: int = 0) -> tuple[float, float, str]:
    """Wall and CPU seconds of a command, and what it printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def busy() -> float:
    """CPU seconds that this machine has worked, all of its cores."""
    numbers = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return (sum(map(int, numbers[:8])) - int(numbers[3]) - int(numbers[4])) / os.sysconf("SC_CLK_TCK")


def verbs(spec: Path) -> list[str]:
    """Start-up: each verb five times, as a person runs it; the job is one that has ended here."""
    local = {"job_name": "here", "ps_ip": "localhost", "worker_ips": ["localhost:1"],
             "log_path": str(spec.parent / "logs"), "job_conf": {
                 "algorithm": "parameter_server", "num_workers": 2, "model": "softmax",
                 "dataset": "digits", "steps": 2}}
    path = spec.with_name("here.yml")
    path.write_text(yaml.safe_dump(local))
    run("manager.py", "submit", str(path), "--follow", "-q")
    words = {"list": ["list"], "check": ["check", str(spec)],
             **{name: [name, "here"] for name in ("status", "logs", "stop")}}
    rows = ["| verb | seconds, median of 5 | CPU | limit |", "|---|---|---|---|"]
    for name, arguments in words.items():
        run("manager.py", *arguments)
        taken = [run("manager.py", *arguments)[:2] for _ in range(5)]
        wall, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
        rows.append(f"| `{name}` | {wall:.2f} | {cpu:.2f} | {LIMITS[name]} |")
    return rows


def timeline(said: list[tuple[float, str, str]]) -> list[str]:
    """When the first and the last host had come to each step."""
    rows = ["| step | first host | last host |", "|---|---|---|"]
    for word, title in STEPS.items():
        times = [when for when, host, line in said if host and line.startswith(word)]
        rows.append(f"| {title} | {min(times):.2f} | {max(times):.2f} |")
    return rows


def submitted(path: Path, *does: str) -> tuple[dict[str, Any], float, float]:
    """What a submit in a process of its own says, and the CPU seconds and wall seconds that it took."""
    before = busy()
    wall, _, said = run("-m", "evals.speed.control", "submit", str(path), *does)
    return json.loads(said), wall, busy() - before


def stopped(name: str, lab: Lab) -> tuple[float, float, int]:
    """Wall and CPU seconds of a stop, and the most connections at once."""
    before = busy()
    with counted(lab) as most:
        wall, _, _ = run("manager.py", "stop", name, "-q")
    return wall, busy() - before, most()


def most_of(submit: dict[str, Any]) -> float:
    """kB of the host that most bytes went to and came from."""
    return max(submit["bytes"].values()) / 1e3


def main() -> int:
    if sys.argv[1:2] == ["submit"]:
        submit(*sys.argv[2:])
        return 0
    with tempfile.TemporaryDirectory(prefix="kuiper-control-") as folder:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        lab = Lab.up(Path(folder, "lab"), MANY)
        try:
            text = measure(lab)
        finally:
            lab.down()
    (HERE / "control.md").write_text(text)
    print(text)
    return 0


def measure(lab: Lab) -> str:
    """All of it, as Markdown."""
    known = Path(os.environ["XDG_STATE_HOME"], "kuiper", "known_hosts")
    known.parent.mkdir(parents=True)
    known.write_text(lab.known_hosts())
    few = write_spec(lab, "few", HOSTS, limits={"grace": f"{GRACE}s"})
    many = write_spec(lab, "many", MANY)
    load = os.getloadavg()[0]
    lines = [f"Measured on {os.cpu_count()} cores, load {load:.1f} before it began. "
             "Every host is an sshd on these cores, and so is the submitter.", "", *verbs(few), ""]

    first, _, _ = submitted(few)
    stopped("few", lab)
    again, _, cpu = submitted(few)
    running = max(when for when, host, line in again["said"] if host and line.startswith("RUNNING"))
    time.sleep(SETTLED)
    obeyed = stopped("few", lab)
    submitted(few, DEAF)
    deaf = stopped("few", lab)
    lines += [
        f"Seconds since the command began, {HOSTS} hosts that have the code:", "",
        *timeline(again["said"]), "",
        f"RUNNING after {running:.2f} s (limit 3), {again['cpu']:.2f} s of CPU the submitter's and {cpu:.1f} "
        f"the whole machine's, where processes import torch meanwhile.", "",
        f"Bytes to and from a host, headers included: {most_of(first):.0f} kB with the code, then "
        f"{most_of(again):.0f} kB at the most (limit 100).", "",
        f"`stop` of {HOSTS} hosts with a grace of {GRACE:g} s: {obeyed[0]:.2f} s where processes end at "
        f"once, {deaf[0]:.2f} s where they ignore SIGTERM (limit {GRACE + 3:g}).", "",
    ]

    submitted(many, IDLE)
    stopped("many", lab)
    with counted(lab) as most:
        said, wall, cpu = submitted(many, IDLE)
    down = stopped("many", lab)
    lines += [
        f"{MANY} hosts with idle processes: {wall:.1f} s to RUNNING, {said['cpu']:.1f} s of CPU the "
        f"submitter's and {cpu:.1f} the machine's, at most {most()} connections at once; `stop` "
        f"{down[0]:.1f} s, {down[2]} connections.", "", *timeline(said["said"]), "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
