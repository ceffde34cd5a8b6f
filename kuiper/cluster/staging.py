"""What the folders of a run hold before it is started: every file, on every host, as data."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster.host import LOCAL, Address, connect
from kuiper.cluster.parallel import in_parallel
from kuiper.cluster.own_environment import guarded
from kuiper.cluster.paths import RunPaths
from kuiper.cluster.plan import Process
from kuiper.cluster.progress import Say
from kuiper.cluster.site import Ground
from kuiper.cluster.snapshot import SPEC
from kuiper.cluster.start import START_TIMEOUT
from kuiper.cluster.store import Job
from kuiper.errors import ConflictError, JobFailed, SpecError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

YEAR = 365 * 86400.0
LOOPBACK = "127.0.0.1"
KEEP_MEMORY = {  # bytes; else glibc returns a step's activations, and asks for them again page by page
    "MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
PRIVATE = 0o600


@dataclass(frozen=True)
class File:
    """One file on one host."""

    address: Address
    path: Path
    data: bytes = field(repr=False)
    mode: int = 0o644


def put_all(files: list[File], say: Say) -> None:
    """Write them, on all hosts at once.

    Raises:
        HostError, KuiperError: one cannot be written.
    """
    by_host: dict[Address, list[File]] = {}
    for file in files:
        by_host.setdefault(file.address, []).append(file)

    def put(address: Address) -> None:
        host = connect(address)
        for file in by_host[address]:
            host.put(file.data, file.path, file.mode)
        if address.host != LOCAL or len(by_host) == 1:
            say("staged", address.host)

    in_parallel(put, by_host)


def run_files(job: Job, written: Mapping[Path, bytes], config: Mapping[str, Any], code: Mapping[str, Any],
              grounds: Mapping[str, Ground]) -> list[File]:
    """What a run directory has but for its processes' folders.

    Args:
        written: what the user wrote, by its path in the run directory: conf.yml, files of hosts.
        code: the record of the snapshot that it runs.
    """
    from kuiper.config.compose import dump

    here, paths = Address(LOCAL), job.paths
    made = [*(File(here, path, data) for path, data in written.items()),
            File(here, paths.code, json.dumps(code).encode())]
    about = {**config["job"], "code": code.get("digest"), "git": code.get("git")}
    places = {site.address.host: (site.address, RunPaths(Path(site.run_dir)).config) for site in job.sites}
    places.setdefault(LOCAL, (here, paths.config))  # no process is here: it is the same as on the first host
    for host, (address, path) in places.items():
        code_folder = grounds[host if host in grounds else job.sites[0].address.host].code.folder
        resolved = {**config, "job": {**about, "spec_folder": str(code_folder / SPEC)}}
        made.append(File(address, path, dump(resolved).encode()))
    return made


def process_files(job: Job, config: Mapping[str, Any], orders: Mapping[str, Mapping[str, Any]],
                  secrets: Mapping[str, str]) -> list[File]:
    """What the folders of a job's processes have: certificates, values of secrets, and the agents' orders.

    Args:
        orders: agent.json by the process's name.
    """
    first = orders[job.processes[0].name]
    certificates = _certificates(job, config, first["duration"], first["grace"])
    made = []
    for process in job.processes:
        address, own = job.site(process).address, job.at(process)
        made += [File(address, own.tls / name, data, PRIVATE)
                 for name, data in certificates.get(process.name, {}).items()]
        if secrets:
            made.append(File(address, own.secrets, json.dumps(secrets).encode(), PRIVATE))
        made.append(File(address, own.agent, json.dumps(orders[process.name], indent=2).encode()))
    return made


def _certificates(
    job: Job, config: Mapping[str, Any], duration: float | None, grace: float
) -> dict[str, dict[str, bytes]]:
    """Files per process name; none for a simulation or without security.

    They last as long as the job may, or a year where nobody knows: without a limit, or in a queue.
    """
    if config["job"]["mode"] == "simulate" or config["conf"]["security"] != "tls":
        return {}
    from kuiper.link.credentials import issue  # brings cryptography, which other verbs do without

    lifetime = YEAR if duration is None or job.after else duration + grace + START_TIMEOUT
    return issue(job.run_id, [process["name"] for process in config["processes"]], lifetime)


def agent_order(
    spec: Spec, job: Job, config: Mapping[str, Any], process: Process, ground: Ground, argv: list[str]
) -> dict[str, Any]:
    """What agent.json says (see agent.py)."""
    duration = spec.limits.duration
    if duration is not None and process.rank:  # its turn may come long before the server's
        duration += len(job.after) * (duration + spec.limits.grace)
    threads = str(config["conf"]["threads"])
    env = {
        "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
        "GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1",
        # Large tensors in huge pages: a killed process closes its sockets only once its memory is freed, and
        # that takes 100 ms a GB in small ones.
        "THP_MEM_ALLOC_ENABLE": "1",
        **KEEP_MEMORY,
        "CUDA_VISIBLE_DEVICES": process.device.removeprefix("cuda:") if process.device != "cpu" else "",
    }  # fmt: skip
    if platform.machine() in ("x86_64", "AMD64"):  # the same bits whatever the processor of the day
        env["ATEN_CPU_CAPABILITY"] = os.environ.get("ATEN_CPU_CAPABILITY", "avx2")
    env |= {"PYTHONPATH": str(ground.code.folder), "PYTHONSAFEPATH": "1"}
    on_own_machine = config["job"]["mode"] == "simulate" and process.host == LOCAL
    setup = guarded(spec.setup_commands, env) if on_own_machine else spec.setup_commands
    return {
        "run_id": job.run_id, "process": process.name,
        "after": [ground.run_dir(Path(run_dir)) for run_dir in job.after],
        "listen": _listen(job, config, process), "server": _server(job, process),
        "argv": argv, "env": env, "cwd": str(ground.code.folder),
        "setup_commands": setup, "choose_python": not spec.python_of(process.host),
        "duration": duration, "grace": spec.limits.grace,
        "retry": spec.on_failure["retry"] if process.rank else 0,
        "final_codes": [SpecError.exit_code, ConflictError.exit_code, JobFailed.exit_code],
        "secrets": spec.secrets,
        "log_bytes": 64 << 20, "log_keep": 3,
    }  # fmt: skip


def _listen(job: Job, config: Mapping[str, Any], process: Process) -> dict[str, Any] | None:
    """Where a process listens: the server, and each of the peers of an algorithm without one."""
    if len(job.processes) == 1 or process.rank and not config["conf"]["algorithm"]["_peers_"]:
        return None
    local = all(one.host == LOCAL for one in job.processes)
    return {"address": LOOPBACK if local else "", "host": LOOPBACK if local else process.host,
            "ports": config["conf"]["ports"]}


def _server(job: Job, process: Process) -> str | None:
    """Where a process of another host than the server's reads where that listens."""
    server = job.processes[0]
    away = process.host != server.host
    return str(RunPaths(job.at(process).folder.parent).process(server.name).endpoint) if away else None
