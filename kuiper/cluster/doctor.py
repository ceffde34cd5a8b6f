"""What would stand in the way of a spec on its hosts, before it is submitted. Changes nothing."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster import probe
from kuiper.cluster.host import AT_ONCE, LOCAL, Host, connect
from kuiper.cluster.site import TIMEOUT, expanded, interpreter
from kuiper.errors import HostError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

LEAST_PYTHON = (3, 11)
ROOM = 1 << 30
SKEW = 2.0
LISTENING = 8.0
LISTEN = """
import socket, sys, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("", int(sys.argv[1])))
listener.listen(64)
listener.settimeout(0.2)
end = time.time() + float(sys.argv[2])
while time.time() < end:
    try:
        listener.accept()[0].close()
    except OSError:
        pass
"""
REACH = """
import socket, sys, time
end = time.time() + float(sys.argv[3])
while True:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
        break
    except OSError as error:
        if time.time() > end:
            sys.exit(str(error))
    time.sleep(0.2)
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at on one host.

    Attributes:
        verdict: 'ok', 'warning' (it works, perhaps not as hoped) or 'wrong' (a submit would fail).
    """

    host: str
    subject: str
    verdict: str
    detail: str
    remedy: str = ""


def examine(spec: Spec) -> list[Finding]:
    """All findings, host by host."""
    hosts = list(dict.fromkeys(entry.host for entry in (*spec.ps_ip, *spec.worker_ips)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        looked = dict(zip(hosts, pool.map(lambda name: _look(spec, name), hosts), strict=True))
    facts = {name: found for name, found in looked.items() if isinstance(found, dict)}
    findings = [found for found in looked.values() if isinstance(found, Finding)]
    for name, found in facts.items():
        findings += _of_one(spec, name, found)
    findings += _of_all(facts)
    findings += _paths(spec, facts)
    return sorted(findings, key=lambda finding: hosts.index(finding.host))


def _look(spec: Spec, name: str) -> dict[str, Any] | Finding:
    """What the probe reports of a host, or that it cannot be asked."""
    try:
        host = connect(spec.address(name))
        python, folder = host.python, str(Path(spec.log_path).absolute())
        if name != LOCAL:
            python, folder = interpreter(host), expanded(host, spec.exp_path)
        before = time.time()
        done = host.run([python, "-I", "-c", Path(probe.__file__).read_text(), folder], probe.SECONDS + TIMEOUT)
        if done.code:
            return Finding(name, "python", "wrong", f"{python}: {done.err.strip()[-200:]}", "give another `python`")
        report = json.loads(done.out)
        return {**report, "path": python, "skew": report["time"] - time.time(), "asked": time.time() - before}
    except HostError as error:
        return Finding(name, "login", "wrong", error.message, error.remedy)


def _of_one(spec: Spec, name: str, found: dict[str, Any]) -> Iterator[Finding]:
    yield Finding(name, "login", "ok", f"{spec.address(name).user or 'this user'}, {found['cores']} cores, "
                                       f"{found['machine']}")
    version = tuple(int(part) for part in found["python"].split(".")[:2])
    fit = version >= LEAST_PYTHON
    yield Finding(name, "python", "ok" if fit else "wrong", f"{found['path']} is {found['python']}",
                  "" if fit else f"kuiper needs {'.'.join(map(str, LEAST_PYTHON))}: give another `python`")
    if found["torch"]:
        yield Finding(name, "torch", "ok", f"{found['torch']}, {found['capability']}, {len(found['gpus'])} GPUs")
    else:
        yield Finding(name, "torch", "wrong", f"cannot be imported: {' '.join(found['why'])}",
                      f"{found['path']} -m pip install kuiper's requirements, or give another `python`")
    wanted = sorted({gpu for entry in spec.worker_ips if entry.host == name for gpu in entry.gpus})
    missing = [gpu for gpu in wanted if gpu >= len(found.get("gpus", ()))]
    if missing:
        yield Finding(name, "gpus", "wrong", f"there is no GPU {missing}: it has {len(found.get('gpus', ()))}",
                      "correct worker_ips")
    for gpu in set(wanted) - set(missing):
        free, total = found["gpus"][gpu]
        if free < total / 2:
            yield Finding(name, "gpus", "warning", f"of GPU {gpu}, {free >> 20} of {total >> 20} MiB are free")
    if found["place"]:
        yield Finding(name, "disk", "wrong", found["place"], "correct exp_path (log_path on localhost)")
    else:
        plenty = found["free"] >= ROOM
        yield Finding(name, "disk", "ok" if plenty else "warning", f"{found['free'] / 1e9:.1f} GB free")
    if found["runs"]:
        yield Finding(name, "runs", "warning", f"processes of {', '.join(found['runs'])} are alive",
                      "stop them, if they are no longer wanted")
    if abs(found["skew"]) > SKEW + found["asked"]:
        yield Finding(name, "clock", "warning", f"is {found['skew']:+.1f} s from this machine's",
                      "logs of several hosts are merged by time: set the clocks with NTP")


def _of_all(facts: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """What must be alike for the same bits everywhere."""
    for subject in ("torch", "capability"):
        values = Counter(found[subject] for found in facts.values() if found.get(subject))
        usual = values.most_common(1)[0][0] if values else None
        for name, found in facts.items():
            if found.get(subject) and found[subject] != usual:
                verdict = "wrong" if subject == "torch" else "warning"
                yield Finding(name, subject, verdict, f"is {found[subject]}, elsewhere {usual}",
                              "install the same torch everywhere" if subject == "torch" else
                              "bits may differ between processors; export ATEN_CPU_CAPABILITY=default to align them")


def _paths(spec: Spec, facts: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Whether the workers' hosts reach a port of the server's: the first of `ports`, or any."""
    server, ports = spec.ps_ip[0].host, spec.job_conf.get("ports")
    others = [name for name in facts if name != server]
    if server not in facts or not others:
        return
    port = str(ports).partition("-")[0] if ports else str(secrets.choice(range(29600, 29650)))
    listen = [facts[server]["path"], "-I", "-c", LISTEN, port, str(LISTENING)]

    def reach(name: str) -> Finding:
        words = [facts[name]["path"], "-I", "-c", REACH, server, port, str(LISTENING - 3)]
        done = connect(spec.address(name)).run(words, LISTENING + TIMEOUT)
        if done.code == 0:
            return Finding(name, "server", "ok", f"reaches {server} at port {port}")
        return Finding(name, "server", "wrong", f"does not reach {server} at port {port}: {done.err.strip()}",
                       "open it in the firewalls between, or give a range that is open: job_conf.ports")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        listening = pool.submit(connect(spec.address(server)).run, listen, LISTENING + TIMEOUT)
        yield from pool.map(reach, others)
        if listening.result().code:
            said = listening.result().err.strip().splitlines()[-1:]
            yield Finding(server, "server", "wrong", f"cannot listen at port {port}: {' '.join(said)}",
                          "free it, or give another range: job_conf.ports")
