"""One process of a job: builds its part from the configuration and runs its role."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kuiper.algorithms.base import Algorithm, Job
from kuiper.attacks.adversary import Adversary
from kuiper.config.build import Builder
from kuiper.learner.pool import PooledLearner
from kuiper.link.local import Switchboard
from kuiper.link.mesh import Mesh
from kuiper.link.remote import RemoteLink, reduce_channels
from kuiper.pool import Pool
from kuiper.record import Recorder, environment
from kuiper.record.atomic import write_json


class Process:
    """Rank `rank` of a job.

    Args:
        config: the resolved configuration.
        listener: a bound socket for a job of several processes.
        pool: processes that compute for this one.
    """

    def __init__(self, config: Mapping[str, Any], run_dir: Path, rank: int, listener: socket.socket | None,
                 pool: Pool | None = None) -> None:
        self.config = config
        self.conf = config["conf"]
        self.plan = config["processes"]
        self.run_dir = run_dir
        self.rank = rank
        self.listener = listener
        self.pool = pool
        self.folder = run_dir / self.plan[rank]["name"]
        write_json((run_dir if rank == 0 else self.folder) / "environment.json", environment(Path(__file__).parent))
        self.recorder = Recorder(self.folder, self.plan[rank]["name"], self.header() if rank == 0 else None)

    def header(self) -> dict[str, Any]:
        """What training_perf says of the job."""
        job, conf = self.config["job"], self.conf
        return {"data_set": conf["dataset"]["_name_"], "model": conf["model"]["_name_"],
                "sample_mode": conf["selector"]["_name_"], "gradient_policy": conf["algorithm"]["_name_"],
                "task": job["task"], "job_name": job["job_name"], "run_id": job["run_id"],
                "seed": conf["seed"], "config": conf}

    def run(self) -> None:
        """From building to the last step.

        Raises:
            KuiperError: what was wrong, with what to do about it.
        """
        conf = self.conf
        torch.set_num_threads(conf["threads"])
        device = "cpu" if self.plan[self.rank]["device"] == "cpu" else "cuda"  # the agent shows it one GPU
        builder = Builder(self.config)
        adversary = builder.adversary()
        learner = builder.learner(adversary, device)
        if self.pool:
            pool = self.pool
            learner = PooledLearner(learner, builder.make("optimizer"), pool.memories, pool.deal, pool.sockets)
        job = builder.job(adversary, learner, self.recorder)
        self.recorder.start(
            steps=job.steps, unit="round" if conf["rounds"] else "step", algorithm=conf["algorithm"]["_name_"],
            model=conf["model"]["_name_"], dataset=conf["dataset"]["_name_"], parameters=job.learner.size,
            processes=len(self.plan), num_workers=builder.n, byzantine=adversary.byzantine.tolist())
        job.learner.gradients(job.theta, job.nodes[:1], batch=1)  # the first call is slow: not on the job's clock
        role = self.simulate if self.config["job"]["mode"] == "simulate" else self.deploy
        asyncio.run(role(builder, job, adversary))
        self.recorder.end(job.steps)

    async def simulate(self, builder: Builder, job: Job, adversary: Adversary) -> None:
        """All nodes in this process, over the local link."""
        hub, nodes = Switchboard(builder.n, adversary, builder.clock()).links()
        server, workers = (builder.algorithm(job, records) for records in (True, False))

        async def serve() -> None:
            await server.serve(hub)
            await hub.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
            group.create_task(workers.work(nodes))

    async def deploy(self, builder: Builder, job: Job, adversary: Adversary) -> None:
        """This process's nodes, over the mesh."""
        algorithm = builder.algorithm(job, records=True)
        blocks = [np.array([builder.n]), *(np.array(p["nodes"], np.int64) for p in self.plan[1:])]
        channels = algorithm.channels
        if algorithm.peers:
            channels += reduce_channels(job.learner.size, len(blocks) - 1)
        link = RemoteLink(self.rank, blocks, channels, adversary, self.notify, job.theta.device,
                          self.config["job"]["tolerate"])
        tls = self.folder / "tls" if self.conf["security"] == "tls" else None
        link.mesh = Mesh(self.rank, [p["name"] for p in self.plan], channels, blocks, link,
                         self.config["job"]["run_id"], tls)
        self.connect(link, algorithm)
        try:
            await (algorithm.serve(link) if self.rank == 0 else algorithm.work(link))
        finally:
            await link.close()

    def connect(self, link: RemoteLink, algorithm: Algorithm) -> None:
        """Find the others. Who does not come in time is gone; the gathers decide whether that matters.

        Raises:
            HostError: rank 0 cannot be reached.
        """
        timeout, mesh = float(self.conf["join_timeout"]), link.mesh
        if self.listener is not None:
            mesh.accept(self.listener)
        if self.rank == 0:
            here = mesh.wait_joined(timeout)
            for rank in set(range(1, len(self.plan))) - here:
                link.gone(rank, f"did not join within {timeout:g} s")
        else:
            endpoint = json.loads((self.run_dir / "ps" / "endpoint.json").read_text())
            mesh.join(endpoint["host"], endpoint["port"], timeout)
        if algorithm.peers:
            mesh.connect_all(timeout)
        link.start()

    def notify(self, event: str, **values: Any) -> None:
        """Something that a person should know: in the log and among the metrics."""
        self.recorder.log.warning("%s: %s", event, ", ".join(f"{k} {v}" for k, v in values.items()))
        self.recorder.metrics.event(event, **values)
