"""Bytes a second of a synchronous step with empty compute: one server, local workers, one node each.

    python evals/speed/mesh.py [--floats 1000000 25000000] [--workers 4] [--seconds 20]

The model goes to every worker and a row comes back from each, over the mesh without and with TLS and
over `transport: collective` (gloo); a memcpy of the same bytes stands beside them. All are open at once,
in the same processes, and take turns step by step, so that what else the machine does falls on all alike.
Prints a table and writes it to mesh.md beside this file, with the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from kuiper.attacks.adversary import Adversary
from kuiper.link import credentials
from kuiper.link.base import Channel
from kuiper.link.collective import CollectiveLink, announcements
from kuiper.link.mesh import Mesh
from kuiper.link.remote import RemoteLink

RUN = "20260101-000000-0000"
TRANSPORTS = ("mesh", "mesh, TLS", "collective, gloo")
TIMEOUT = 60.0


def channels(floats: int) -> tuple[Channel, Channel]:
    return (Channel("model", 1, floats, shared=True), Channel("gradient", 2, floats, columns=("loss",)))


def names(workers: int) -> list[str]:
    return ["ps", *(f"worker_{rank}" for rank in range(1, workers + 1))]


def link(transport: str, rank: int, workers: int, floats: int, folder: Path) -> RemoteLink:
    """A link with its mesh, which has met nobody yet."""
    blocks = [np.array([workers]), *(np.array([node]) for node in range(workers))]
    common = (Adversary(np.empty(0, np.int64)), lambda event, **values: None, torch.device("cpu"))
    declared = channels(floats)
    if transport.startswith("collective"):
        declared = announcements(declared)
        here = [{"host": "localhost", "device": "cpu"}] * len(blocks)
        made = CollectiveLink(rank, blocks, declared, *common, processes=here, peers=False)
    else:
        made = RemoteLink(rank, blocks, declared, *common)
    tls = folder / names(workers)[rank] if transport.endswith("TLS") else None
    made.mesh = Mesh(rank, names(workers), declared, blocks, made, RUN, tls)
    return made


def worker(rank: int, workers: int, floats: int, folder: Path, ports: list[int]) -> None:
    torch.set_num_threads(1)
    model, gradient = channels(floats)
    rows, loss = torch.full((1, floats), float(rank)), {"loss": np.zeros(1)}

    async def answer(one: RemoteLink) -> None:
        async for request in one.requests(model, 1):
            await one.send(gradient, request.step, request.nodes, rows, loss)
        await one.close()

    async def answer_all() -> None:
        await asyncio.gather(*(answer(one) for one in links))

    links = [link(transport, rank, workers, floats, folder) for transport in TRANSPORTS]
    for one, port in zip(links, ports, strict=True):
        one.mesh.join("127.0.0.1", port, TIMEOUT)
        one.start()
    asyncio.run(answer_all())
    os._exit(0)


def measure(workers: int, floats: int, seconds: float, folder: Path) -> dict[str, list[float]]:
    """Seconds of each step, by transport."""
    links = [link(transport, 0, workers, floats, folder) for transport in TRANSPORTS]
    ports = [one.mesh.listen()[1] for one in links]
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=worker, args=(rank, workers, floats, folder, ports), daemon=True)
                 for rank in range(1, workers + 1)]
    for process in processes:
        process.start()
    for one in links:
        assert len(one.mesh.wait_joined(TIMEOUT)) == workers
        one.start()
    theta, source = torch.zeros(floats), torch.ones(workers, floats)
    copies, matrix = torch.empty(workers, floats), torch.empty(workers, floats)

    async def step(one: RemoteLink, number: int) -> None:
        model, gradient = channels(floats)
        await one.publish(model, number, theta, np.arange(workers), gradient)
        rows = (await one.gather(gradient, number)).rows
        assert rows[:, -1].tolist() == [float(rank) for rank in range(1, workers + 1)]

    async def memcpy(number: int) -> None:
        for row in range(workers):
            copies[row].copy_(theta)
            matrix[row].copy_(source[row])

    def bound(one: RemoteLink) -> Callable:
        return lambda number: step(one, number)

    async def take_turns() -> dict[str, list[float]]:
        ways = dict(zip(TRANSPORTS, map(bound, links), strict=True)) | {"memcpy": memcpy}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        number, ends = 0, time.perf_counter() + seconds
        while time.perf_counter() < ends or number < 12:
            number += 1
            for name, way in ways.items():
                began = time.perf_counter()
                await way(number)
                taken[name].append(time.perf_counter() - began)
        for one in links:
            await one.close()
        return {name: times[2:] for name, times in taken.items()}  # the first steps take memory

    taken = asyncio.run(take_turns())
    for process in processes:
        process.join(TIMEOUT)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--floats", type=int, nargs="+", default=[1_000_000, 25_000_000])
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20, help="for each size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load, workers = os.getloadavg()[0], arguments.workers
    lines = ["| floats | transport | GB/s, median | best | ms a step | steps |", "|" + "---|" * 6]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for process, files in credentials.issue(RUN, names(workers), 3600).items():
            (folder / process).mkdir()
            for file, content in files.items():
                (folder / process / file).write_bytes(content)
        for floats in arguments.floats:
            moved = 2 * workers * floats * 4 / 1e9
            for transport, times in measure(workers, floats, arguments.seconds, folder).items():
                middle = statistics.median(times)
                rates = f"{moved / middle:.2f} | {moved / min(times):.2f} | {1e3 * middle:.1f}"
                lines.append(f"| {floats:,} | {transport} | {rates} | {len(times)} |")
    busy = f"load average {load:.1f} at the start" + (": other work ran beside it" if load > 0.5 else "")
    lines += ["", f"1 server, {workers} workers, model out and row in counted together; {os.cpu_count()} "
              f"cores, {platform.machine()}, torch {torch.__version__}; {busy}."]
    print("\n".join(lines))
    (Path(__file__).parent / "mesh.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
