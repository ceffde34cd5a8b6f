"""What a job needs of this machine, looked at before anything of it is made."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster.paths import absolute
from kuiper.config.schema import InvalidSpec, Problem, shown
from kuiper.errors import ConflictError, SpecError
from kuiper.places import data_folder, in_full

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

HERE = ("localhost",)
ROOM, ROOM_A_PROCESS = 1 << 20, 1 << 16
"""Bytes without which a run is not begun: what a start writes, and then some steps."""
REMEDY = "free space there, or choose a log_path that this user may write to"


def preflight(spec: Spec, config: Mapping[str, Any]) -> None:
    """Look for a folder that can be written to, and for the dataset's files.

    Args:
        config: what the spec resolved to.

    Raises:
        InvalidSpec: log_path cannot be used, or the dataset is not there.
    """
    problems = [*log_path_problems(spec, len(config["processes"])), *_dataset(spec, config)]
    if problems:
        raise InvalidSpec(problems)


def crowding(config: Mapping[str, Any]) -> list[str]:
    """Sentences about more computing at once than this machine has cores."""
    conf, cores = config["conf"], len(os.sched_getaffinity(0))
    threads, pool = conf["threads"], conf.get("pool")
    if threads > cores:
        return [f"threads is {threads}, and this machine has {cores} cores: fewer threads are faster"]
    if config["job"]["mode"] == "simulate":
        if (pool or 1) * threads > cores:
            by = f" with {threads} threads each" if threads > 1 else ""
            return [f"pool is {pool}{by}, and this machine has {cores} cores: it is fastest with one core for each, "
                    f"`pool: {cores // threads}`"]
        return []
    here = sum(process["host"] in HERE and process["device"] == "cpu" and bool(process["nodes"])
               for process in config["processes"])
    if here * threads > cores:
        by = f" of {threads} threads each" if threads > 1 else ""
        return [f"{here} processes{by} compute on this machine, which has {cores} cores: they take turns, and times "
                "are not those of a cluster"]
    return []


def check_ports(config: Mapping[str, Any], jobs: int = 1) -> None:
    """Whether every process of this machine that listens would find a port of its own.

    Args:
        jobs: like this one, in a queue; each keeps its ports while it waits.

    Raises:
        ConflictError: `ports` has too few free ones.
    """
    conf, processes = config["conf"], config["processes"]
    if conf["ports"] is None or len(processes) == 1:
        return
    listen = processes if conf["algorithm"]["_peers_"] else processes[:1]
    needed = jobs * sum(process["host"] in HERE for process in listen)
    first, _, last = conf["ports"].partition("-")
    free = 0
    for port in range(int(first), int(last) + 1):
        free += _is_free(port)
        if free >= needed:
            return
    raise ConflictError(
        f"job_conf.ports is {conf['ports']}, and {free} of them can be bound on this machine, "
        f"where {needed} are needed",
        "end what listens there, or give another range; without `ports` any free one is taken",
    )


def _is_free(port: int) -> bool:
    both = socket.has_dualstack_ipv6()  # as the agent will listen
    with socket.socket(socket.AF_INET6 if both else socket.AF_INET, socket.SOCK_STREAM) as probe:
        if both:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:  # taken, or below 1024 and not for this user
            return False
    return True


def unusable(folder: Path, processes: int) -> str:
    """Why a run cannot be kept in a folder, which need not be there yet; '' when it can.

    Args:
        processes: of the run; each needs room for its keys, its log and its last words.
    """
    while not os.path.lexists(folder):
        folder = folder.parent
    if not os.path.isdir(folder):
        return f"{folder} is not a folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written to: it is read-only, or not this user's"
    free, least = shutil.disk_usage(folder).free, ROOM + processes * ROOM_A_PROCESS
    return f"{folder} has {free >> 10} kB free, less than {least >> 10}" if free < least else ""


def log_path_problems(spec: Spec, processes: int) -> Iterator[Problem]:
    """Why a run of so many processes cannot be kept below log_path."""
    wrong = unusable(absolute(spec.log_path) / spec.job_name, processes)
    if wrong:
        yield Problem(spec.where("log_path"), "log_path", f"is {spec.log_path!r}, and {wrong}", REMEDY)


def _dataset(spec: Spec, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Only when all who would read it run here."""
    dataset, names_root = config["conf"]["dataset"], bool(os.environ.get("KUIPER_DATA"))
    if dataset.get("download") or any(process["host"] not in HERE for process in config["processes"]):
        return
    for parameter, paths in dataset.get("_files_", {}).items():
        given, where = dataset[parameter], spec.where("job_conf", "dataset")
        if spec.setup_commands and (not names_root if given is None else given.startswith("~")):
            continue  # the commands may say where it is: export KUIPER_DATA=..., or HOME=...
        try:
            folder = data_folder(given) if parameter == "root" else in_full(parameter, given)
        except SpecError as error:
            yield Problem(where, "", error.message, error.remedy)
            continue
        if not any(os.path.exists(folder / path) for path in paths):
            looked = " or ".join(str(folder / path) for path in paths)
            remedy = f"write `dataset: {{{dataset['_name_']}: {{{parameter}: ...}}}}`"
            remedy += ", or export KUIPER_DATA=..." * (given is None)
            remedy += ", or write `download: true`" * ("download" in dataset)
            wrong = f"is {shown(given)}, and there is no {looked}"
            yield Problem(where, f"job_conf.dataset.{parameter}", wrong, remedy)
