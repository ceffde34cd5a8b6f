"""Bytes a second of a synchronous step with empty compute: one server, local workers, one node each.

    python evals/speed/mesh.py [--workers 4 8] [--floats 1000000 25000000] [--seconds 8]

The model goes to every worker and a row comes back from each, over the mesh without and with TLS and
over `transport: collective` (gloo); a memcpy of the same bytes stands beside them. All are open at once,
in the same processes, and take turns step by step, so that what else the machine does falls on all alike.
A second table has rows only, for a model of one float: bytes into the server. Last, workers are killed.
Prints tables and writes them to mesh.md beside this file, with the machine, and draws mesh.png.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import resource
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from kuiper.attacks.adversary import Adversary
from kuiper.link import credentials
from kuiper.link.base import Channel
from kuiper.link.collective import CollectiveLink, announcements
from kuiper.link.mesh import Mesh
from kuiper.link.remote import RemoteLink

HERE = Path(__file__).parent
RUN = "20260101-000000-0000"
TRANSPORTS = ("mesh", "mesh, TLS", "collective, gloo")
KILLS = 10
TIMEOUT = 300.0
LEAST_STEPS = 7
WARM_UP = 2
"""The first steps take memory."""


class Load(NamedTuple):
    """What a step moves: a model of `model` floats to each worker, a row of `row` floats from each."""

    workers: int
    model: int
    row: int

    @property
    def gigabytes(self) -> float:
        return 4e-9 * self.workers * (self.row + (self.model if self.model > 1 else 0))

    def channels(self) -> tuple[Channel, Channel]:
        return Channel("model", 1, self.model, shared=True), Channel("gradient", 2, self.row, columns=("loss",))


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


def begin(links: dict[str, RemoteLink], load: Load, folder: Path) -> list[multiprocessing.Process]:
    """Start the workers; returns when all have joined every link."""
    ports = {transport: one.mesh.listen()[1] for transport, one in links.items()}
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=worker, args=(rank, load, folder, ports), daemon=True)
                 for rank in range(1, load.workers + 1)]
    for process in processes:
        process.start()
    for one in links.values():
        assert len(one.mesh.wait_joined(TIMEOUT)) == load.workers
        one.start()
    return processes


def measure(load: Load, seconds: float, folder: Path) -> dict[str, list[float]]:
    """Seconds of each step, by transport."""
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

    async def take_turns() -> dict[str, list[float]]:
        ways = {transport: bound(one) for transport, one in links.items()} | {"memcpy": memcpy}
        taken: dict[str, list[float]] = {name: [] for name in ways}
        number, ends = 0, time.perf_counter() + seconds
        while time.perf_counter() < ends or number < WARM_UP + LEAST_STEPS:
            number += 1
            for name, way in ways.items():
                began = time.perf_counter()
                await way(number)
                taken[name].append(time.perf_counter() - began)
        for one in links.values():
            await one.close()
        return {name: times[WARM_UP:] for name, times in taken.items()}

    taken = asyncio.run(take_turns())
    for process in processes:
        process.join(TIMEOUT)
    return taken


def notice(load: Load, folder: Path) -> list[float]:
    """Seconds from a SIGKILL, somewhere in a step, until the server's link knows; one worker after the other."""
    known: dict[int, float] = {}
    loop = asyncio.new_event_loop()
    changed = asyncio.Event()

    def notify(event: str, *, rank: int, **values: object) -> None:
        known[rank] = time.perf_counter()
        loop.call_soon_threadsafe(changed.set)

    one = link("mesh, TLS", 0, load, folder, notify)
    processes = begin({"mesh, TLS": one}, load, folder)
    model, gradient = load.channels()
    theta, everyone = torch.zeros(load.model), np.arange(load.workers)

    async def kill_each() -> list[float]:
        taken, number, usual = [], 0, 0.0
        for rank, process in enumerate(processes, start=1):
            for killing in (False, True):
                number += 1
                began = time.perf_counter()
                await one.publish(model, number, theta, everyone[one.live(everyone)], gradient)
                gathering = asyncio.create_task(one.gather(gradient, number, minimum=0))
                if killing:
                    await asyncio.sleep(usual * rank / len(processes))
                    changed.clear()
                    killed = time.perf_counter()
                    os.kill(process.pid, signal.SIGKILL)
                    await asyncio.wait_for(changed.wait(), TIMEOUT)
                    taken.append(known[rank] - killed)
                await gathering
                usual = time.perf_counter() - began
        await one.close()
        return taken

    taken = loop.run_until_complete(kill_each())
    loop.close()
    for process in processes:
        process.join(TIMEOUT)
    return taken


def table(found: dict[Load, dict[str, list[float]]]) -> list[str]:
    lines = ["| workers | floats | transport | GB/s, median | best | times gloo | ms a step | steps |",
             "|" + "---|" * 8]
    for load, taken in found.items():
        gloo = statistics.median(taken[TRANSPORTS[-1]])
        for name, times in taken.items():
            middle = statistics.median(times)
            rates = f"{load.gigabytes / middle:.2f} | {load.gigabytes / min(times):.2f} | {gloo / middle:.2f}"
            lines.append(f"| {load.workers} | {load.row:,} | {name} | {rates} | {1e3 * middle:.1f} | {len(times)} |")
    return lines


def draw(panels: dict[str, dict[Load, dict[str, list[float]]]]) -> None:
    """Bars of the median, GB/s; their labels are multiples of gloo's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, every = pyplot.subplots(len(panels), figsize=(8, 3.2 * len(panels)), layout="constrained", squeeze=False)
    colours = ("#1f6fb4", "#a5c8ec", "#7c8797", "#dfe3e8")
    for axes, (title, found) in zip(every[:, 0], panels.items(), strict=True):
        for place, (name, colour) in enumerate(zip((*TRANSPORTS, "memcpy"), colours, strict=True)):
            middles = [statistics.median(taken[name]) for taken in found.values()]
            gloo = [statistics.median(taken[TRANSPORTS[-1]]) for taken in found.values()]
            bars = axes.bar([at + 0.2 * (place - 1.5) for at in range(len(found))],
                            [load.gigabytes / middle for load, middle in zip(found, middles, strict=True)],
                            0.19, label=name, color=colour)
            axes.bar_label(bars, [f"{reference / middle:.2f}" for reference, middle in zip(gloo, middles)], fontsize=8)
        axes.set_xticks(range(len(found)), [f"{load.workers} workers\n{load.row:,} floats" for load in found])
        axes.set_ylabel("GB/s")
        axes.set_title(f"{title} (labels: times gloo)", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    every[0, 0].legend(ncols=4, fontsize=8, frameon=False, loc="upper center")
    figure.savefig(HERE / "mesh.png", dpi=130)


def report(both: dict, rows: dict, noticed: Sequence[float], floats: int, load: float) -> str:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    each = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    busy = f"load average {load:.1f} at the start" + (": other work ran beside it" if load > 0.5 else "")
    return "\n".join([
        "Model out and row in, counted together:", "", *table(both), "",
        "Rows only, into the server:", "", *table(rows), "",
        f"A worker killed with SIGKILL somewhere in a step of {len(noticed)} workers over TLS, {floats:,} floats, is noticed "
        f"after {1e3 * statistics.median(noticed):.1f} ms (median of {len(noticed)}; worst {1e3 * max(noticed):.1f} ms).", "",
        f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}; {busy}. Memory at its peak, all "
        f"three transports open: {peak:.1f} GB in the server, {each:.1f} GB in the largest worker.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--floats", type=int, nargs="+", default=[1_000_000, 25_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--seconds", type=float, default=8, help="for each line of four, at least")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    sizes = [(workers, floats) for floats in arguments.floats for workers in arguments.workers]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for process, files in credentials.issue(RUN, names(max(KILLS, *arguments.workers)), 3600).items():
            (folder / process).mkdir()
            for file, content in files.items():
                (folder / process / file).write_bytes(content)
        both, rows = {}, {}
        for workers, floats in sizes:
            for found, one in ((both, Load(workers, floats, floats)), (rows, Load(workers, 1, floats))):
                found[one] = measure(one, arguments.seconds, folder)
                print(*table({one: found[one]})[2:], sep="\n", flush=True)
        largest = max(arguments.floats)
        noticed = notice(Load(KILLS, largest, largest), folder)
    text = report(both, rows, noticed, largest, load)
    print("", text, sep="\n")
    (HERE / "mesh.md").write_text(text)
    draw({"Model out and row in": both, "Rows only, into the server": rows})


if __name__ == "__main__":
    main()
