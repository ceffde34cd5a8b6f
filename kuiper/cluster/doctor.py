"""Find what would stand in the way of a spec on its hosts: what `submit` does there first is done, and undone."""

from __future__ import annotations

import math
import secrets
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kuiper.cluster.dataset import of_dataset
from kuiper.cluster.fitness import Finding, of_all, of_one
from kuiper.cluster.host import AT_ONCE, LOCAL, connect
from kuiper.cluster.hostnames import not_reached
from kuiper.cluster.launch import REMOVE, secret_values
from kuiper.cluster.paths import absolute
from kuiper.cluster.preflight import REMEDY, unusable
from kuiper.cluster.site import code_of
from kuiper.cluster.snapshot import Snapshot
from kuiper.cluster.survey import TIMEOUT, Facts, survey
from kuiper.errors import HostError, SpecError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

HERE = "this machine"
LISTENING = 60.0
"""Seconds that a port is listened at for each 32 hosts, at most: it ends when they have tried."""
TRYING = 5.0
"""Seconds in which a host tries to connect, from when it has been reached."""
LISTEN = """
import os, socket, sys, time
both = socket.has_ipv6 and hasattr(socket, "has_dualstack_ipv6") and socket.has_dualstack_ipv6()
listener = socket.socket(socket.AF_INET6 if both else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if both:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
listener.bind(("", int(sys.argv[1])))
listener.listen(64)
listener.settimeout(0.2)
if pid := os.fork():
    print(pid, flush=True)
    os._exit(0)
os.setsid()
for number in range(3):
    os.dup2(os.open(os.devnull, os.O_RDWR), number)
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


def examine(spec: Spec) -> list[Finding]:
    """All findings, host by host.

    Raises:
        SpecError: the spec is wrong.
    """
    from kuiper.config.compose import compose  # Hydra: only those who compose pay for it

    conf = compose(spec.each()[0])["conf"]
    hosts = list(dict.fromkeys(entry.host for entry in (*spec.ps_ip, *spec.worker_ips)))
    snapshot = code_of(spec)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        looked = dict(zip(hosts, pool.map(lambda name: _look(spec, snapshot, name), hosts), strict=True))
    facts = {name: seen for name, (seen, _) in looked.items() if seen is not None}
    findings = [one for _, found in looked.values() for one in found]
    findings += of_all(facts)
    findings += of_dataset(spec, conf, facts)
    findings += _paths(spec, facts)
    findings += _here(spec)
    return sorted(findings, key=lambda finding: [*hosts, HERE].index(finding.host))


def _look(spec: Spec, snapshot: Snapshot, name: str) -> tuple[Facts | None, list[Finding]]:
    """What a host has, and what of it can be said now: what `submit` does to a host first is done and undone."""
    host, code, trial, found = connect(spec.address(name)), None, None, []
    folder = spec.exp_path if name != LOCAL else str(Path(spec.log_path).absolute())
    try:
        facts = survey(spec, host, folder)
        if not facts["place"]:
            base = facts["base"] if name != LOCAL else tempfile.gettempdir()  # log_path need not be there yet
            trial = PurePosixPath(base, f".doctor-{secrets.token_hex(4)}")
            found, code = _installed(spec, snapshot, facts, name, trial)
        facts = survey(spec, host, folder, thorough=True, code=str(code or ""))
        if not code:
            facts.pop("kuiper", None)
        return facts, [*of_one(spec, name, facts), *found]
    except HostError as error:
        return None, [Finding(name, "login", "wrong", error.message.removeprefix(f"{name}: "), error.remedy)]
    finally:
        if trial is not None:
            with suppress(HostError):
                host.run(["sh", "-c", REMOVE, "sh", str(trial)], TIMEOUT)


def _installed(spec: Spec, snapshot: Snapshot, facts: Facts, name: str,
               trial: PurePosixPath) -> tuple[list[Finding], PurePosixPath | None]:
    """The code, in a folder that is removed again."""
    try:
        snapshot.install(connect(spec.address(name, python=facts["path"])), trial / "code")
    except HostError as error:
        return [Finding(name, "code", "wrong", error.message.removeprefix(f"{name}: "), error.remedy)], None
    return [], trial / "code"


def _here(spec: Spec) -> Iterator[Finding]:
    """What every submit needs of this machine."""
    wrong = unusable(absolute(spec.log_path) / spec.job_name, len(spec.worker_ips))
    if wrong:
        yield Finding(HERE, "log_path", "wrong", wrong, REMEDY)
    try:
        secret_values(spec.secrets)
    except SpecError as error:
        yield Finding(HERE, "secrets", "wrong", error.message, error.remedy)


def _paths(spec: Spec, facts: dict[str, Facts]) -> Iterator[Finding]:
    """Whether the workers' hosts reach a port of the server's: the first of `ports`, or any."""
    server, ports = spec.ps_ip[0].host, spec.job_conf.get("ports")
    others = [name for name in facts if name != server]
    if server not in facts or not others:
        return
    port = str(ports).partition("-")[0] if ports else str(secrets.choice(range(29600, 29650)))
    seconds = LISTENING * math.ceil(len(others) / AT_ONCE)
    host = connect(spec.address(server))

    def reach(name: str) -> Finding:
        words = [facts[name]["path"], "-I", "-c", REACH, server, port, str(TRYING)]
        try:
            done = connect(spec.address(name)).run(words, TRYING + TIMEOUT)
        except HostError as error:
            return Finding(name, "login", "wrong", error.message, error.remedy)
        if done.code == 0:
            return Finding(name, "server", "ok", f"reaches {server} at port {port}")
        return Finding(name, "server", "wrong", f"does not reach {server} at port {port}: {done.err.strip()}",
                       not_reached(server, done.err))

    try:
        listening = host.run([facts[server]["path"], "-I", "-c", LISTEN, port, str(seconds)], TIMEOUT)
    except HostError as error:
        yield Finding(server, "login", "wrong", error.message, error.remedy)
        return
    if listening.code:
        said = listening.err.strip().splitlines()[-1:]
        yield Finding(server, "server", "wrong", f"cannot listen at port {port}: {' '.join(said)}",
                      "free it, or give another range: job_conf.ports")
        return
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            yield from pool.map(reach, others)
    finally:
        with suppress(HostError):
            host.run(["kill", listening.out.split()[-1]], TIMEOUT)
