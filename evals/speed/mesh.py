"""Bytes a second of a synchronous step with empty compute: one server, local workers, one node each.

    python evals/speed/mesh.py [--workers 4 8] [--floats 1000000 25000000] [--seconds 8]

The model goes to every worker and a row comes back from each, over the mesh without and with TLS and
over `transport: collective` (gloo); a memcpy of the same bytes stands beside them. All are open at once,
in the same processes, and take turns step by step, so that what else the machine does falls on all alike.
A second table has rows only, for a model of one float: bytes into the server. Then workers are killed.
Prints tables, writes them to mesh.md beside this file, with the machine, and draws mesh.png.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from mesh_report import TRANSPORTS, Load, Measured, draw, report, table

from kuiper.attacks.adversary import Adversary
from kuiper.link import credentials
from kuiper.link.collective import CollectiveLink, announcements
from kuiper.link.mesh import Mesh
from kuiper.link.remote import RemoteLink

HERE = Path(__file__).parent
RUN = "20260101-000000-0000"
KILL_ALL = 3
"""How many times the workers are killed, one after the other."""
TIMEOUT = 300.0
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["kuiper.link.collective"])  # torch is imported once for all workers
LEAST_STEPS = 7
WARM_UP = 2
"""The first steps take memory."""
os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # as in a job's processes; read when the first large tensor is made


def names(workers: int) -> list[str]:
    return ["ps", *(f"worker_{rank}" for rank in range(1, workers + 1))]


def link(transport: str, rank: int, load: Load, folder: Path,
         notify: Callable[..., None] = lambda event, **values: None) -> RemoteLink:
    """A link with its mesh, which has met nobody yet."""
    blocks = [np.array([load.workers]), *(np.array([node]) for node in range(load.workers))]
    common = (Adversary(np.empty(0, np.int64)), notify, torch.device("cpu"))
    declared = load.channels()
    if transport.startswith("collective"):
        declared = announcements(declared)
        here = [{"host": "localhost", "device": "cpu"}] * len(blocks)
        made = CollectiveLink(rank, blocks, declared, *common, processes=here, peers=False)
    else:
        made = RemoteLink(rank, blocks, declared, *common)
    tls = folder / names(load.workers)[rank] if transport.endswith("TLS") else None
    made.mesh = Mesh(rank, names(load.workers), declared, blocks, made, RUN, tls)
    return made


def worker(rank: int, load: Load, folder: Path, ports: dict[str, int]) -> None:
    """Answers every request over every transport until the server leaves."""
    torch.set_num_threads(1)
    model, gradient = load.channels()
    rows, loss = torch.full((1, load.row), float(rank)), {"loss": np.zeros(1)}

    async def answer(one: RemoteLink) -> None:
        async for request in one.requests(model, 1):
            await one.send(gradient, request.step, request.nodes, rows, loss)
        await one.close()

    async def answer_all() -> None:
        await asyncio.gather(*(answer(one) for one in links))

    links = [link(transport, rank, load, folder) for transport in ports]
    for one, port in zip(links, ports.values(), strict=True):
        one.mesh.join("127.0.0.1", port, TIMEOUT)
        one.start()
    asyncio.run(answer_all())
    os._exit(0)


def begin(links: dict[str, RemoteLink], load: Load, folder: Path) -> list[BaseProcess]:
    """Start the workers; returns when all have joined every link."""
    ports = {transport: one.mesh.listen()[1] for transport, one in links.items()}
    processes = [START.Process(target=worker, args=(rank, load, folder, ports), daemon=True)
                 for rank in range(1, load.workers + 1)]
    for process in processes:
        process.start()
    for one in links.values():
        assert len(one.mesh.wait_joined(TIMEOUT)) == load.workers
        one.start()
    return processes


def peak(process: int | str) -> float:
    """The most memory that a process has had, GB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) * 1024 / 1e9


def measure(load: Load, seconds: float, folder: Path) -> Measured:
    """Let the transports take turns for so many seconds."""
    gc.collect()  # links and what they hold know each other: their memory is not free before
    links = {transport: link(transport, 0, load, folder) for transport in TRANSPORTS}
    processes = begin(links, load, folder)
    model, gradient = load.channels()
    theta = torch.zeros(load.model)
    source, matrix = torch.ones(load.workers, load.row), torch.empty(load.workers, load.row)

    async def step(one: RemoteLink, number: int) -> None:
        await one.publish(model, number, theta, np.arange(load.workers), gradient)
        rows = (await one.gather(gradient, number)).rows
        assert rows[:, -1].tolist() == [float(rank) for rank in range(1, load.workers + 1)]

    async def memcpy(number: int) -> None:
        for row in range(load.workers):
            if load.model == load.row:
                source[row].copy_(theta)
            matrix[row].copy_(source[row])

    def bound(one: RemoteLink) -> Callable:
        return lambda number: step(one, number)

    async def take_turns() -> Measured:
        ways = {transport: bound(one) for transport, one in links.items()} | {"memcpy": memcpy}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        number, ends = 0, time.perf_counter() + seconds
        while time.perf_counter() < ends or number < WARM_UP + LEAST_STEPS:
            number += 1
            for name, way in ways.items():
                began = time.perf_counter()
                await way(number)
                taken[name].append(time.perf_counter() - began)
        memory = peak("self"), sum(peak(process.pid) for process in processes)
        for one in links.values():
            await one.close()
        return Measured({name: times[WARM_UP:] for name, times in taken.items()}, *memory)

    measured = asyncio.run(take_turns())
    for process in processes:
        process.join(TIMEOUT)
    return measured


def notice(load: Load, moving: bool, folder: Path) -> list[float]:
    """Kill one worker after the other, in the middle of a step or between two.

    Returns:
        Seconds from each SIGKILL until the link of the server knows.
    """
    known: dict[int, float] = {}
    loop, noticed = asyncio.new_event_loop(), asyncio.Event()

    def notify(event: str, *, rank: int, **values: object) -> None:
        known[rank] = time.perf_counter()
        loop.call_soon_threadsafe(noticed.set)

    one = link("mesh, TLS", 0, load, folder, notify)
    processes = begin({"mesh, TLS": one}, load, folder)
    model, gradient = load.channels()
    theta, everyone = torch.zeros(load.model), np.arange(load.workers)

    async def step(number: int) -> None:
        await one.publish(model, number, theta, everyone[one.live(everyone)], gradient)
        await one.gather(gradient, number, minimum=0)

    async def kill_each() -> list[float]:
        await step(1)
        taken = []
        for rank, process in enumerate(processes, start=1):
            began = time.perf_counter()
            await step(2 * rank)
            usual = time.perf_counter() - began
            outstanding = asyncio.create_task(step(2 * rank + 1)) if moving else asyncio.sleep(0)
            await asyncio.sleep(usual * rank / (load.workers + 1))
            noticed.clear()
            killed = time.perf_counter()
            process.kill()
            await asyncio.wait_for(noticed.wait(), TIMEOUT)
            taken.append(known[rank] - killed)
            await outstanding
        await one.close()
        return taken

    taken = loop.run_until_complete(kill_each())
    loop.close()
    return taken


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--floats", type=int, nargs="+", default=[1_000_000, 25_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--seconds", type=float, default=8, help="for each line of both tables")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    busy = os.getloadavg()[0]
    both: dict[Load, Measured] = {}
    rows: dict[Load, Measured] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for process, files in credentials.issue(RUN, names(max(arguments.workers)), 3600).items():
            (folder / process).mkdir()
            for file, content in files.items():
                (folder / process / file).write_bytes(content)
        for floats in arguments.floats:
            for workers in arguments.workers:
                for found, model in (both, floats), (rows, 1):
                    load = Load(workers, model, floats)
                    found[load] = measure(load, arguments.seconds, folder)
                    print(*table({load: found[load]})[2:], sep="\n", flush=True)
        kill = Load(min(arguments.workers), max(arguments.floats), max(arguments.floats))
        killed = {where: [seconds for _ in range(KILL_ALL) for seconds in notice(kill, moving, folder)]
                  for where, moving in (("between two steps", False), ("in the middle of a step", True))}
    text = report(both, rows, killed, kill, busy)
    print("", text, sep="\n")
    (HERE / "mesh.md").write_text(text)
    draw({"Model out and row in": both, "Rows only, into the server": rows}, HERE / "mesh.png")


if __name__ == "__main__":
    main()
