"""Synchronous training: a parameter server with any rule and quorum, and all-reduce."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from kuiper.algorithms.base import Algorithm, Job
from kuiper.algorithms.peers import PeerAlgorithm
from kuiper.link import Channel, Link


class ParameterServer(Algorithm):
    """Model out, gradients in, the rule, one optimiser step (AggregaThor's protocol).

    With quorum q the server waits for the fastest q rows; a late row is dropped and counted.

    Args:
        worker_momentum: beta of m <- beta m + (1 - beta) g, kept at the worker and sent
            instead of g; 0 sends plain gradients.
    """

    def __init__(self, job: Job, *, worker_momentum: float = 0.0, **base: Any) -> None:
        super().__init__(job, **base)
        self.beta = worker_momentum
        self.momentum: torch.Tensor | None = None

    @cached_property
    def model(self) -> Channel:
        return Channel("model", 1, width=self.job.learner.size, shared=True)

    @cached_property
    def gradient(self) -> Channel:
        learner = self.job.learner
        return Channel("gradient", 2, width=learner.size, dtype=self.job.row_dtype, columns=("loss",),
                       work=learner.batch_size)

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self.model, self.gradient)

    async def serve(self, link: Link) -> None:
        job, phase = self.job, self.job.recorder.phase
        theta = job.theta
        state = job.optimizer.init(theta)
        minimum = min(len(job.nodes) - job.f, job.quorum or len(job.nodes))
        self.evaluate(link, 0, theta)
        for step in self.steps():
            with phase("communicate"):
                await link.publish(self.model, step, theta, job.senders, reply=self.gradient)
            with phase("wait"):
                rows = await link.gather(self.gradient, step, job.quorum, job.deadline, minimum)
            with phase("aggregate"):
                rows = self.screen.gathered(step, rows)
                direction = job.rule(rows.rows, job.f)
                theta, state = job.optimizer.step(theta, direction, state, self.lr_scale(step))
            self.record(link, step, loss=self.honest_loss(rows))
            if self.evaluates(step):
                self.evaluate(link, step, theta)

    async def work(self, link: Link) -> None:
        job, phase = self.job, self.job.recorder.phase
        async for request in link.requests(self.model, job.learner.together):
            with phase("compute"):
                rows, losses = job.learner.gradients(request.row, request.nodes, batch=request.step)
                rows = self.with_momentum(link.nodes, request.nodes, rows)
            with phase("communicate"):
                await link.send(self.gradient, request.step, request.nodes, rows, {"loss": losses})
            self.record(link, request.step, nodes=len(losses), loss=float(losses.mean()))

    def with_momentum(self, block: np.ndarray, nodes: np.ndarray, rows: torch.Tensor) -> torch.Tensor:
        if not self.beta:
            return rows
        if self.momentum is None:
            self.momentum = torch.zeros(len(block), rows.shape[1], device=rows.device)
        place = torch.from_numpy(np.searchsorted(block, nodes))
        self.momentum[place] = self.beta * self.momentum[place] + (1 - self.beta) * rows
        return self.momentum[place]


class AllReduce(PeerAlgorithm):
    """g <- mean of all gradients, then every peer takes the same optimiser step.

    The same as one process at the aggregate batch; all peers hold the same model.
    """

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self.report, self.snapshot)

    def observed(self, step: int) -> np.ndarray:
        return self.job.nodes[:1]

    async def work(self, link: Link) -> None:
        job, phase = self.job, self.job.recorder.phase
        theta = job.theta
        state = job.optimizer.init(theta)
        for step in self.steps():
            with phase("compute"):
                rows, losses = job.learner.gradients(theta, link.nodes, batch=step)
                rows[torch.from_numpy(~self.screen.passed(step, link.nodes, rows, losses))] = 0
                link.charge(job.learner.batch_size)
            with phase("communicate"):
                gradient = await link.reduce(step, link.nodes, rows, job.row_dtype)
            theta, state = job.optimizer.step(theta, gradient, state, self.lr_scale(step))
            await self.tell(link, step, theta.expand(len(link.nodes), -1), losses)
