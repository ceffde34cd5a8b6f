"""One process of a job: builds its part from the configuration and runs its role."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kuiper.algorithms.base import Algorithm, Job
from kuiper.attacks.adversary import Adversary
from kuiper.code_digest import running
from kuiper.config.build import Builder
from kuiper.learner.pool import PooledLearner
from kuiper.link.attendance import Losses
from kuiper.link.collective import CollectiveLink, announcements
from kuiper.link.local import Switchboard
from kuiper.link.mesh import Mesh
from kuiper.link.remote import CONSULT, RemoteLink, reduce_channels
from kuiper.link.virtual import VirtualHub
from kuiper.pool import Pool
from kuiper.record import Recorder, environment
from kuiper.record.atomic import write_json
from kuiper.record.keeper import KEPT, Keeper
from kuiper.run_data import RunData


LEAVE_SECONDS = 60.0


def take_leave(config: Mapping[str, Any], run_dir: Path, rank: int) -> None:
    """Join the mesh in the place of a process that has failed for good, only to say so.

    It joins as the last attempt that there could be, so that nobody waits for another.

    Raises:
        HostError: rank 0 does not let it in: it has seen that process, and its end.
    """
    about, names = config["job"], [process["name"] for process in config["processes"]]
    tls = run_dir / names[rank] / "tls" if config["conf"]["security"] == "tls" else None
    endpoint = json.loads((run_dir / "ps" / "endpoint.json").read_text())
    mesh = Mesh(rank, names, (), [()] * len(names), Nobody(), about["run_id"], tls, about["retry"], about["retry"])
    mesh.join(endpoint["host"], endpoint["port"], LEAVE_SECONDS)
    mesh.close(failed=True)


class Nobody:
    """The inbox of who takes leave: it wants no frame."""

    def place(self, sender: int, header: Any, nodes: np.ndarray, columns: np.ndarray | None) -> None:
        return None

    def arrived(self, *frame: Any) -> None:
        pass

    def joined(self, rank: int, attempt: int) -> None:
        pass

    def gone(self, rank: int, reason: str) -> None:
        pass

    def barred(self, rank: int, reason: str) -> None:
        pass


class Process:
    """Rank `rank` of a job.

    Args:
        config: the resolved configuration.
        listener: a bound socket for a job of several processes.
        resume: go on from the newest checkpoint that all processes have.
        attempt: how often the agent has restarted this process.
        pool: processes that compute for this one.
        queued: on each host the job waits for its turn, which may come to rank 0 later than here.
    """

    def __init__(self, config: Mapping[str, Any], run_dir: Path, rank: int,
                 listener: socket.socket | None = None, resume: bool = False, attempt: int = 0,
                 pool: Pool | None = None, queued: bool = False) -> None:
        self.config = config
        self.conf = config["conf"]
        self.plan = config["processes"]
        self.run_dir = run_dir
        self.rank = rank
        self.listener = listener
        self.blocks = [np.array(p["nodes"], np.int64) for p in self.plan]
        self.blocks[0] = np.array([self.conf["num_workers"]])  # the hub's
        self.resume = resume
        self.attempt = attempt
        self.pool = pool
        self.queued = queued
        self.folder = run_dir / self.plan[rank]["name"]
        found = environment(running(), config["job"].get("git"))
        write_json((run_dir if rank == 0 else self.folder) / "environment.json", found)
        self.unit = "round" if self.conf["rounds"] else "step"
        self.recorder = Recorder(self.folder, self.plan[rank]["name"], self.header() if rank == 0 else None,
                                 self.conf.get("on_divergence", "go_on"), self.unit)  # older runs do not have it
        self.keeper = Keeper(self.folder / "checkpoint", self.conf["checkpoint_interval"],
                             self.recorder.log.warning, self.unit)
        self.data = RunData(config, run_dir, rank)

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
        torch.autograd.set_multithreading_enabled(False)  # backward() has one device, and no others to look for
        if self.rank == 0:
            self.recorder.track(conf["tracker"], self.config)
        device = "cpu" if self.plan[self.rank]["device"] == "cpu" else "cuda"  # the agent shows it one GPU
        builder = Builder(self.config)
        adversary = builder.adversary()
        learner = builder.learner(adversary, device)
        self.data.hold(builder.digests)
        if self.pool:
            pool = self.pool
            optimizer = builder.optimizer(learner)
            learner = PooledLearner(learner, optimizer, pool.memories, pool.deal, pool.sockets)
        job = builder.job(adversary, learner, self.recorder, self.keeper)
        if not self.resume:
            self.start(job)
        job.learner.gradients(job.theta, job.nodes[:1], batch=1)  # the first call is slow: not on the job's clock
        if self.rank == 0:
            builder.algorithm(job, records=False).rehearse()
        gc.freeze()  # what is here stays: the collector need not look through it again and again
        role = self.simulate if self.config["job"]["mode"] == "simulate" else self.deploy
        asyncio.run(role(builder, job, adversary))
        self.recorder.end(job.steps)

    def terminate(self, leave: Callable[[], None]) -> None:
        """Asked to end: a simulation that keeps checkpoints first writes one, when its step is over.

        Processes of a mesh would have to agree on a step first: they leave at once.
        """
        if self.config["job"]["mode"] == "simulate" and self.conf["checkpoint_interval"]:
            self.keeper.ask(leave)
        else:
            leave()

    async def simulate(self, builder: Builder, job: Job, adversary: Adversary) -> None:
        """All nodes in this process, over the local link."""
        self.data.keep()
        hub, nodes = Switchboard(builder.n, adversary, builder.clock()).links()
        server, workers = (builder.algorithm(job, records) for records in (True, False))
        job.keeper.roles = frozenset({"serve", "work"} if server.stateful else {"serve"})
        if self.resume:
            self.go_on(job, next(iter(job.keeper.undamaged()), 0))

        async def serve() -> None:
            await server.serve(hub)
            await hub.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
            group.create_task(workers.work(nodes))

    async def deploy(self, builder: Builder, job: Job, adversary: Adversary) -> None:
        """This process's nodes, over the mesh, or over collectives that it watches."""
        algorithm = builder.algorithm(job, records=True)
        job.keeper.roles = frozenset({"serve"} if self.rank == 0 else {"work"} if algorithm.stateful else ())
        link = self.link(builder, job, algorithm, adversary)
        self.connect(link, algorithm)
        try:
            if self.resume:
                self.go_on(job, await self.agree(link, job, algorithm.stateful))
            await (algorithm.serve(link) if self.rank == 0 else algorithm.work(link))
        except BaseException:
            await link.close(failed=True)
            raise
        await link.close()

    def link(self, builder: Builder, job: Job, algorithm: Algorithm, adversary: Adversary) -> RemoteLink:
        """What this process is linked to the others by; it has met nobody yet."""
        conf, about = self.conf, self.config["job"]
        channels = (*algorithm.channels, *CONSULT)
        common = (adversary, self.notify, job.theta.device)
        losses = Losses(about["tolerate"], about["retry"], float(conf["join_timeout"]), self.ended)
        if conf["transport"] == "collective":
            channels = announcements(channels)
            link = CollectiveLink(self.rank, self.blocks, channels, *common,
                                  processes=self.plan, peers=algorithm.peers)
        elif self.rank == 0 and conf["clock"] == "virtual":
            link = VirtualHub(self.rank, self.blocks, channels, *common, losses,
                              clock=builder.clock(), idle=algorithm.stateful)
        else:
            if algorithm.peers:
                channels += reduce_channels(job.learner.size, len(self.blocks) - 1, job.row_dtype)
            link = RemoteLink(self.rank, self.blocks, channels, *common, losses)
        tls = self.folder / "tls" if conf["security"] == "tls" else None
        link.mesh = Mesh(self.rank, [process["name"] for process in self.plan], channels, self.blocks, link,
                         about["run_id"], tls, self.attempt, about["retry"], self.data.holding)
        return link

    def start(self, job: Job) -> None:
        """The first line of the record."""
        conf = self.conf
        self.recorder.start(
            steps=job.steps, unit=self.unit, algorithm=conf["algorithm"]["_name_"],
            model=conf["model"]["_name_"], dataset=conf["dataset"]["_name_"],
            parameters=job.learner.parameters, processes=len(self.plan),
            num_workers=len(job.nodes), byzantine=job.byzantine.tolist(), data=self.data.digests)

    def go_on(self, job: Job, step: int) -> None:
        """Take up the state after `step`; the roles begin with it. Step 0: begin again."""
        saved = job.keeper.resume(step)
        if step:
            self.recorder.resume(step, saved.get("serve", {}).get("record"))
        else:
            self.recorder.log.warning("no checkpoint can be used: from the beginning")
            self.recorder.metrics.cut(0)
            self.start(job)

    async def agree(self, link: RemoteLink, job: Job, stateful: bool) -> int:
        """The newest step that every process has undamaged, of those that rank 0 has; 0 when there is none.

        A process that had no part in a step need not have it: one that was gone, or too slow for the quorum.
        """
        keeper = job.keeper
        mine = keeper.undamaged()

        def choose(offers: dict[int, list[float]]) -> list[float]:
            for step in mine:
                saved = keeper.load(step)[0]["serve"]
                lacking = [
                    self.plan[rank]["name"] for rank, steps in offers.items()
                    if stateful and step not in steps and np.isin(self.blocks[rank], saved["present"]).any()]
                if not lacking:
                    return [step, max(saved["times"])]
                self.recorder.log.warning("%s %d is not whole at %s", self.unit, step, ", ".join(lacking))
            return [0, 0.0]

        told = (mine + [-1] * KEPT)[:KEPT]
        step, elapsed, *_ = await link.consult(1, told, choose)
        link.set_times(np.full(len(link.nodes), elapsed))
        return int(step)

    def connect(self, link: RemoteLink, algorithm: Algorithm) -> None:
        """Find the others. Who does not come in time is gone; the gathers decide whether that matters.

        Raises:
            HostError: rank 0 cannot be reached.
            DifferentData: one holds another data set than rank 0.
        """
        timeout, mesh = float(self.conf["join_timeout"]), link.mesh
        if self.listener is not None:
            mesh.accept(self.listener)
        if self.rank == 0:
            here = mesh.wait_joined(timeout, self.ended)
            self.data.require_same(mesh.different)
            self.data.keep()
            for rank in set(range(1, len(self.plan))) - here:
                link.gone(rank, self.ended(rank) or f"did not join within {timeout:g} s")
        else:
            endpoint = json.loads((self.run_dir / "ps" / "endpoint.json").read_text())
            mesh.join(endpoint["host"], endpoint["port"], timeout, self.queued)
        if algorithm.peers:
            mesh.connect_all(timeout)
        link.start()

    def ended(self, rank: int) -> str:
        """How a process has ended for good, as its agent wrote; '' of one that has not, or is on another host."""
        try:
            said = json.loads((self.run_dir / self.plan[rank]["name"] / "exit.json").read_bytes())
        except (OSError, ValueError):
            return ""
        return f"ended by signal {said['signal']}" if said["signal"] else f"ended with exit code {said['code']}"

    def notify(self, event: str, **values: Any) -> None:
        """Something that a person should know: in the log and among the metrics."""
        said = ((self.unit if name == "step" else name, value) for name, value in values.items())
        self.recorder.log.warning("%s: %s", event, ", ".join(f"{name} {value}" for name, value in said))
        self.recorder.metrics.event(event, **values)
