"""What would stand in the way of a spec on its hosts, before it is submitted. Nothing there is changed."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from kuiper.cluster.dataset import of_dataset
from kuiper.cluster.fitness import Finding, of_all, of_one
from kuiper.cluster.host import AT_ONCE, LOCAL, connect
from kuiper.cluster.paths import absolute
from kuiper.cluster.preflight import REMEDY, unusable
from kuiper.cluster.survey import TIMEOUT, Facts, survey
from kuiper.errors import HostError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

HERE = "this machine"
LISTENING = 8.0
"""Seconds in which 32 hosts try to connect. Who listens has done so as soon as all have."""
LISTEN = """
import socket, sys, time
both = socket.has_ipv6 and hasattr(socket, "has_dualstack_ipv6") and socket.has_dualstack_ipv6()
listener = socket.socket(socket.AF_INET6 if both else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if both:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(("", int(sys.argv[1])))
listener.listen(64)
listener.settimeout(0.2)
end, awaited = time.time() + float(sys.argv[2]), int(sys.argv[3])
while awaited and time.time() < end:
    try:
        listener.accept()[0].close()
        awaited -= 1
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


def examine(spec: Spec) -> list[Finding]:
    """All findings, host by host.

    Raises:
        SpecError: the spec is wrong.
    """
    from kuiper.config.compose import compose  # Hydra: only those who compose pay for it

    conf = compose(spec.each()[0])["conf"]
    hosts = list(dict.fromkeys(entry.host for entry in (*spec.ps_ip, *spec.worker_ips)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        looked = dict(zip(hosts, pool.map(lambda name: _look(spec, name), hosts), strict=True))
    facts = {name: found for name, found in looked.items() if isinstance(found, dict)}
    findings = [found for found in looked.values() if isinstance(found, Finding)]
    for name, found in facts.items():
        findings += of_one(spec, name, found)
    findings += of_all(facts)
    findings += of_dataset(spec, conf, facts)
    findings += _paths(spec, facts)
    findings += _here(spec)
    return sorted(findings, key=lambda finding: [*hosts, HERE].index(finding.host))


def _look(spec: Spec, name: str) -> Facts | Finding:
    """What a host has, or that it cannot be asked."""
    try:
        folder = spec.exp_path if name != LOCAL else str(Path(spec.log_path).absolute())
        return survey(connect(spec.address(name)), folder, thorough=True)
    except HostError as error:
        return Finding(name, "login", "wrong", error.message, error.remedy)


def _here(spec: Spec) -> Iterator[Finding]:
    """What every submit needs of this machine."""
    wrong = unusable(absolute(spec.log_path) / spec.job_name, len(spec.worker_ips))
    if wrong:
        yield Finding(HERE, "log_path", "wrong", wrong, REMEDY)


def _paths(spec: Spec, facts: dict[str, Facts]) -> Iterator[Finding]:
    """Whether the workers' hosts reach a port of the server's: the first of `ports`, or any."""
    server, ports = spec.ps_ip[0].host, spec.job_conf.get("ports")
    others = [name for name in facts if name != server]
    if server not in facts or not others:
        return
    port = str(ports).partition("-")[0] if ports else str(secrets.choice(range(29600, 29650)))
    seconds = LISTENING * math.ceil(len(others) / (AT_ONCE - 1))
    listen = [facts[server]["path"], "-I", "-c", LISTEN, port, str(seconds), str(len(others))]

    def reach(name: str) -> Finding:
        words = [facts[name]["path"], "-I", "-c", REACH, server, port, str(LISTENING - 3)]
        try:
            done = connect(spec.address(name)).run(words, LISTENING + TIMEOUT)
        except HostError as error:
            return Finding(name, "login", "wrong", error.message, error.remedy)
        if done.code == 0:
            return Finding(name, "server", "ok", f"reaches {server} at port {port}")
        return Finding(name, "server", "wrong", f"does not reach {server} at port {port}: {done.err.strip()}",
                       "open it in the firewalls between, or give a range that is open: job_conf.ports")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        listening = pool.submit(connect(spec.address(server)).run, listen, seconds + TIMEOUT)
        yield from pool.map(reach, others)
        if listening.result().code:
            said = listening.result().err.strip().splitlines()[-1:]
            yield Finding(server, "server", "wrong", f"cannot listen at port {port}: {' '.join(said)}",
                          "free it, or give another range: job_conf.ports")
