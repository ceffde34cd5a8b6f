"""Which process runs where, and which nodes it hosts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec


@dataclass(frozen=True)
class Process:
    """One OS process of a job.

    Attributes:
        rank: 0 is the server (or observer); workers follow.
        name: "ps", "worker_1", ...; also its folder in the run directory.
        host: where it runs.
        device: "cpu" or "cuda:i", i counted on that host.
        nodes: the workers it hosts; none on rank 0, which has the server, node num_workers (and in a
            simulation, all).
        python: its interpreter.
    """

    rank: int
    name: str
    host: str
    device: str
    nodes: list[int]
    python: str


def place(spec: Spec, num_workers: int, simulate: bool) -> list[Process]:
    """The processes of a job, by rank; each hosts a contiguous block of nodes.

    Args:
        spec: its hosts, in the order of worker_ips.
        num_workers: nodes 0..num_workers-1 to share out; blocks differ by at most one node.
        simulate: one process that hosts everything.
    """
    if simulate:
        return [Process(0, "ps", "localhost", "cpu", [], sys.executable)]
    processes = [Process(0, "ps", spec.ps_ip[0].host, "cpu", [], sys.executable)]
    seats = [
        (worker.host, f"cuda:{worker.gpus[index]}" if worker.gpus else "cpu", worker.python or sys.executable)
        for worker in spec.worker_ips
        for index in range(worker.processes)
    ]
    for rank, (host, device, python) in enumerate(seats, start=1):
        first = (rank - 1) * num_workers // len(seats)
        nodes = list(range(first, rank * num_workers // len(seats)))
        processes.append(Process(rank, f"worker_{rank}", host, device, nodes, python))
    return processes


def plan(spec: Spec, config: Mapping[str, Any]) -> list[Process]:
    """The processes of a composed job: those of its resolved configuration, with their interpreters."""
    return place(spec, config["conf"]["num_workers"], config["job"]["mode"] == "simulate")
