"""What mesh.py measured, as tables and as a picture."""

from __future__ import annotations

import os
import platform
import ssl
import statistics
from pathlib import Path
from typing import NamedTuple

import torch

from kuiper.link.base import Channel

TRANSPORTS = ("mesh", "mesh, TLS", "collective, gloo")
COLOURS = dict(zip((*TRANSPORTS, "memcpy"), ("#1f6fb4", "#a5c8ec", "#7c8797", "#dfe3e8"), strict=True))


class Load(NamedTuple):
    """What a step moves: a model of `model` floats to each worker, a row of `row` floats from each."""

    workers: int
    model: int
    row: int

    @property
    def gigabytes(self) -> float:
        return 4e-9 * self.workers * (self.row + (self.model if self.model > 1 else 0))

    def channels(self) -> tuple[Channel, Channel]:
        return (Channel("model", 1, self.model, shared=True),
                Channel("gradient", 2, self.row, columns=("loss",)))


class Measured(NamedTuple):
    """Seconds of each step by transport; memory at the most, GB, of the server and of all workers."""

    seconds: dict[str, list[float]]
    server: float
    workers: float

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def to_gloo(self, name: str) -> float:
        """The speed, gloo's being 1."""
        return self.median(TRANSPORTS[-1]) / self.median(name)


def table(found: dict[Load, Measured]) -> list[str]:
    lines = ["| workers | floats | transport | GB/s, median | best | times gloo | ms a step | steps |",
             "|" + "---|" * 8]
    for load, measured in found.items():
        for name, times in measured.seconds.items():
            middle = measured.median(name)
            cells = (load.workers, f"{load.row:,}", name, f"{load.gigabytes / middle:.2f}",
                     f"{load.gigabytes / min(times):.2f}", f"{measured.to_gloo(name):.2f}",
                     f"{1e3 * middle:.1f}", len(times))
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def draw(panels: dict[str, dict[Load, Measured]], path: Path) -> None:
    """Bars of the median, GB/s; their labels are multiples of gloo's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, every = pyplot.subplots(len(panels), figsize=(8, 3.2 * len(panels)), layout="constrained")
    for axes, (title, found) in zip(every, panels.items(), strict=True):
        for place, (name, colour) in enumerate(COLOURS.items()):
            rates = [load.gigabytes / measured.median(name) for load, measured in found.items()]
            bars = axes.bar([at + 0.2 * (place - 1.5) for at in range(len(found))], rates, 0.19, label=name,
                            color=colour)
            axes.bar_label(bars, [f"{measured.to_gloo(name):.2f}" for measured in found.values()], fontsize=8)
        labels = [f"{one.workers} workers\n{one.row:,} floats" for one in found]
        axes.set_xticks(range(len(found)), labels)
        axes.set_ylabel("GB/s")
        axes.set_title(f"{title}: median (labels: times gloo)", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    every[0].legend(ncols=4, fontsize=8, frameon=False, loc="upper center")
    figure.savefig(path, dpi=130)


def report(both: dict[Load, Measured], rows: dict[Load, Measured], killed: dict[str, list[float]],
           kill: Load, busy: float) -> str:
    """Markdown.

    Args:
        both: model out and row in.
        rows: rows only.
        killed: seconds until a kill was noticed, by when it was.
        kill: what moved then.
        busy: load average before all.
    """
    every = [*both.values(), *rows.values()]
    lines = ["Model out and row in, counted together:", "", *table(both), ""]
    lines += ["Rows only, into the server:", "", *table(rows), ""]
    lines += [f"SIGKILL of a worker of {kill.workers}, {kill.row:,} floats, TLS; the server knows after:", ""]
    for when, times in killed.items():
        middle, worst = 1e3 * statistics.median(times), 1e3 * max(times)
        lines.append(f"- {when}: {middle:.1f} ms, worst of {len(times)} {worst:.1f} ms")
    versions = f"{' '.join(ssl.OPENSSL_VERSION.split()[:2])}, torch {torch.__version__}"
    beside = ": other work ran beside it" if busy > 0.5 else ""
    server, workers = max(one.server for one in every), max(one.workers for one in every)
    lines += ["", f"{os.cpu_count()} cores, {platform.machine()}, {versions}; load average {busy:.1f} at the "
              f"start{beside}.", "Memory at the most, all three transports open: "
              f"{server:.1f} GB in the server, {workers:.1f} GB in all workers."]
    return "\n".join(lines) + "\n"
