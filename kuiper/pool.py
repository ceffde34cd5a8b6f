"""Processes that compute for another one: `python -m kuiper.pool`, started by `Pool`.

They are started before anything slow is imported, so that they load while their parent does.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

MEMORIES = 5  # samples, the call, and three matrices of rows


class Pool:
    """`count` processes that build the learner of process `rank` and wait for work.

    They end when this process does, however it ends, and carry the run's marker like it.

    Attributes:
        memories, deal, sockets: what `kuiper.learner.pool.PooledLearner` takes.
        processes: in the order of `sockets`.
    """

    def __init__(self, run_dir: Path, rank: int, count: int) -> None:
        self.memories = [os.memfd_create(f"kuiper-{number}") for number in range(MEMORIES)]
        taken, self.deal = os.pipe()
        self.sockets: list[socket.socket] = []
        self.processes: list[subprocess.Popen] = []
        for _ in range(count):
            here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            inherited = [*self.memories, taken, there.fileno()]
            words = [sys.executable, "-m", "kuiper.pool", str(run_dir), str(rank), *map(str, inherited)]
            self.processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=inherited))
            there.close()
            self.sockets.append(here)
        os.close(taken)


def main() -> None:
    run_dir, rank, *numbers = sys.argv[1:]
    *memories, deal, parent = (int(number) for number in numbers)
    link = socket.socket(fileno=parent)
    try:
        work(yaml.safe_load((Path(run_dir) / "config.yaml").read_text()), int(rank), memories, deal, link)
    except Exception as error:
        remedy = getattr(error, "remedy", "") or "see the traceback in the log"
        said = {"message": f"{type(error).__name__}: {getattr(error, 'message', error)}"[:10_000], "remedy": remedy}
        link.send(json.dumps(said).encode())
        raise


def work(config: dict[str, Any], rank: int, memories: list[int], deal: int, parent: socket.socket) -> None:
    import numpy as np
    import torch

    from kuiper.config.build import Builder
    from kuiper.learner import pool

    torch.set_num_threads(config["conf"]["threads"])
    builder = Builder(config)
    device = "cpu" if config["processes"][rank]["device"] == "cpu" else "cuda"
    learner = builder.learner(builder.adversary(), device, pool.samples(parent, memories))
    learner.gradients(learner.model.theta.clone(), np.arange(1), 1)  # the first call is slow
    gc.freeze()
    pool.serve(learner, builder.optimizer(learner), memories, deal, parent)


if __name__ == "__main__":
    main()
