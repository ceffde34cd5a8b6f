"""What `submit` would do with a spec, host by host, told by the functions that do it. Changes nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from kuiper.cluster import store
from kuiper.cluster.host import LOCAL, Address, agent_place
from kuiper.cluster.own_environment import unguarded
from kuiper.cluster.launch import composed, drafted, names_of, refuse_second, secret_values, staged
from kuiper.cluster.parallel import in_parallel
from kuiper.cluster.plan import Process, plan
from kuiper.cluster.preflight import check_ports
from kuiper.cluster.site import Ground, assumed, code_of, look_at
from kuiper.cluster.staging import File
from kuiper.cluster.start import start_words
from kuiper.cluster.store import Job

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

RUN_ID = "<run_id>"


def preview(spec: Spec, simulate: bool = False, ask: bool = False) -> list[dict[str, Any]]:
    """The actions of a job, or of the jobs of several seeds in their order, as plain data.

    Args:
        ask: the hosts, what only they know. Otherwise nobody is contacted.

    Returns:
        Per job: job_name, run_dir, mode, after (run directories whose end it waits for), code (digest,
        files), secrets (names), ports, limits, open (what only the submit will know) and hosts. Per host:
        host, user, port, python, base, code (folder, and sent: whether it will be, None: only the host
        knows), agent (sent unless it is there), folders, files (path, mode, bytes), starts (commands, in
        order), processes (name, rank, device, nodes, command, setup_commands, cwd, env), open.

    Raises:
        SpecError, ConflictError: as `submit`.
        HostError: hosts that were asked cannot be reached, or have no such interpreter.
    """
    values = secret_values(spec.secrets)
    configs = [composed(one, simulate, RUN_ID) for one in spec.each()]
    check_ports(configs[0], len(configs))
    for name in names_of(spec) if ask else ():
        refuse_second(name)
    snapshot = code_of(spec)
    names = list(dict.fromkeys(process.host for process in plan(spec, configs[0])))
    if ask:
        looks = dict(zip(names, in_parallel(lambda name: look_at(spec, name, snapshot), names), strict=True))
        grounds = {name: ground for name, (_, ground) in looks.items()}
        there: dict[str, bool | None] = {name: bool(facts["there"]) for name, (facts, _) in looks.items()}
    else:
        grounds = {name: Ground.at(assumed(spec, name), snapshot.digest, spec.log_path) for name in names}
        there = dict.fromkeys(names)
    here = {LOCAL: Ground.at(Address(LOCAL), snapshot.digest, spec.log_path)}  # it has the submitter's run directory
    there[LOCAL] = here[LOCAL].code.folder.exists()
    made = []
    for one, config, job in zip(spec.each(), configs, drafted(spec, configs, grounds), strict=True):
        files = staged(one, config, job, grounds, snapshot, values)
        on = [_on_host(job, plan(one, config), ground, files, there[name])
              for name, ground in (here | grounds).items()]
        made.append({
            "job_name": job.job_name, "run_dir": str(job.run_dir), "mode": job.mode, "after": job.after,
            "code": {"digest": snapshot.digest, "files": len(snapshot.contents)}, "secrets": spec.secrets,
            "ports": config["conf"]["ports"], "open": [] if ask else _unasked(job), "hosts": on,
            "limits": {"duration": spec.limits.duration, "grace": spec.limits.grace},
        })  # fmt: skip
    return made


def _unasked(job: Job) -> list[str]:
    """What the submit looks at first."""
    unfinished = [one for one in store.jobs(job.job_name) if one.final is None]
    return [f"whether {one.job_name} {one.run_id}, not known to have ended, still runs" for one in unfinished]


def _on_host(job: Job, processes: Sequence[Process], ground: Ground, files: Sequence[File],
             there: bool | None) -> dict[str, Any]:
    """`there`: whether the code is, None if that is not known."""
    address, away = ground.address, ground.address.host != LOCAL
    files = [file for file in files if file.address == address]
    own = [process for process in processes if process.host == address.host]
    server = own and own[0].rank == 0
    batches = [own[:1], own[1:]] if server else [own]  # the others are started once the server listens
    paths = [[job.at(store.Process(one.name, one.host)) for one in batch] for batch in batches if batch]
    agent, sent = agent_place(address), None if there is None else not there
    return {
        "host": address.host, "user": address.user, "port": address.port,
        "python": address.python if own else None, "base": address.base or None,
        "code": {"folder": str(ground.code.folder), "sent": sent} if own else None,
        "agent": agent if away else None,
        "folders": sorted({str(file.path.parent) for file in files}),
        "files": [{"path": str(file.path), "mode": f"{file.mode:o}", "bytes": len(file.data)}
                  for file in files],
        "starts": [start_words(address.python, agent, batch) for batch in paths],
        "processes": [_process(job, process, files) for process in own],
        "open": list(_open(address)) if there is None else [],
    }  # fmt: skip


def _process(job: Job, process: Process, files: Sequence[File]) -> dict[str, Any]:
    own = job.at(store.Process(process.name, process.host))
    order = next(json.loads(file.data) for file in files if file.path == own.agent)
    return {
        "name": process.name, "rank": process.rank, "device": process.device, "nodes": process.nodes,
        "command": order["argv"], "setup_commands": unguarded(order["setup_commands"]),
        "cwd": order["cwd"], "env": order["env"],
    }  # fmt: skip


def _open(address: Address) -> Iterator[str]:
    """What only the host knows."""
    otherwise = "; if not, its python3 is taken" * (address.python == sys.executable)
    yield f"whether {address.python} is there{otherwise}"
    if not address.base.startswith("/"):
        yield f"what {address.base.partition('/')[0]} is"
    yield "whether the code is there already, and then it is not sent"
