"""A worker that holds a valid certificate and lies: run in place of `kuiper.run`, one lie per rank."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from kuiper.config.build import Builder
from kuiper.link import wire
from kuiper.link.base import Channel
from kuiper.link.handshake import RECEIVES, SENDS, Door, Hello
from kuiper.link.holding import pack
from kuiper.link.wire import Header


def lie(rank: int, node: int, gradient: Channel) -> bytes:
    """What this rank sends once it has joined."""
    row = torch.zeros(1, gradient.width)

    def frame(step: int, node: int) -> bytes:
        return wire.encode(gradient, step, np.array([node]), row, np.zeros((1, 1))) + row.numpy().tobytes()

    return {
        2: np.random.default_rng(0).bytes(65536),  # noise
        3: frame(1, 0),  # another's row
        4: Header(gradient.number, 1, 1, 1, 1, 2**63).pack(),  # more than any memory
        5: frame(1000, node),  # a step that nobody asked for
        6: frame(0, node) * 100_000,  # late rows, as many as it can
    }[rank]


def main() -> None:
    run_dir, rank, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    names = [process["name"] for process in config["processes"]]
    door = Door(config["job"]["run_id"], names, run_dir / names[rank] / "tls")
    endpoint = json.loads((run_dir / "ps" / "endpoint.json").read_text())
    builder = Builder(config)
    builder.dataset()
    data = pack(builder.digests)
    out, into = (
        door.dial(0, endpoint["host"], endpoint["port"], Hello(rank, 0, door.run, 0, direction, data=data), 60)
        for direction in (SENDS, RECEIVES))
    into.settimeout(30)
    try:
        out.sendall(lie(rank, config["processes"][rank]["nodes"][0],
                        Channel("gradient", 2, width=width, columns=("loss",))))
        while into.recv(65536):
            pass
    except OSError:
        pass  # cut off, as it should be
    time.sleep(0.5)


if __name__ == "__main__":
    main()
