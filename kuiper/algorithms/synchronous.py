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

    @property
    def stateful(self) -> bool:
        return self.beta > 0

    def rehearse(self) -> None:
        self._rehearse(self.job.quorum or len(self.job.senders), self.job.f)

    async def serve(self, link: Link) -> None:
        job, phase = self.job, self.job.recorder.phase
        state = self.begin("serve", link, {"theta": job.theta, **job.optimizer.init(job.theta)})
        theta = state.pop("theta")
        minimum = min(len(job.nodes) - job.f, job.quorum or len(job.nodes))
        self.evaluate_first(link, theta)
        for step in self.steps():
            with phase("communicate"):
                await link.publish(self.model, step, theta, job.senders, reply=self.gradient)
            with phase("wait"):
                gathered = await link.gather(self.gradient, step, job.quorum, job.deadline, minimum)
            with phase("aggregate"):
                rows, loss = self.received(step, gathered)
                direction = self.judged(step, rows, job.f)
                theta, state = job.optimizer.step(theta, direction, state, self.lr_scale(step))
            self.record_model(link, step, theta, loss=loss, **self.under_attack(rows, direction))
            if self.evaluates(step):
                self.evaluate(link, step, theta)
            self.keep("serve", link, step, {"theta": theta, **state}, gathered.nodes)

    async def work(self, link: Link) -> None:
        job, phase = self.job, self.job.recorder.phase
        state = {}
        if self.beta:
            nothing = torch.zeros(len(link.nodes), job.learner.parameters).to(job.theta)
            state = self.begin("work", link, {"momentum": nothing})
        async for request in link.requests(self.model, job.learner.together):
            self.keep("work", link, request.step - 1, state)
            if not len(request.nodes):
                continue
            with phase("compute"):
                rows, losses = job.learner.gradients(request.row, request.nodes, batch=request.step)
                if self.beta:
                    place = np.searchsorted(link.nodes, request.nodes)
                    rows = self.with_momentum(state["momentum"], torch.from_numpy(place), rows)
            with phase("communicate"):
                await link.send(self.gradient, request.step, request.nodes, rows, {"loss": losses})
            self.record(link, request.step, nodes=len(losses), loss=float(losses.mean()))

    def with_momentum(self, momentum: torch.Tensor, place: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Mix rows (m, d) into the block's momentum (k, d) at `place` (m,); what is there now.

        BatchNorm's statistics behind the parameters are averages already, and left as they are.
        """
        parameters, statistics = rows.tensor_split((self.job.learner.parameters,), dim=1)
        momentum[place] = self.beta * momentum[place] + (1 - self.beta) * parameters
        return torch.cat([momentum[place], statistics], dim=1) if statistics.numel() else momentum[place]


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
        state = self.begin("work", link, {"theta": job.theta, **job.optimizer.init(job.theta)})
        theta = state.pop("theta")
        for step in self.steps():
            with phase("compute"):
                rows, losses = job.learner.gradients(theta, link.nodes, batch=step)
                rows[torch.from_numpy(~self.policy.passed(step, link.nodes, rows, losses))] = 0
                link.charge(job.learner.batch_size)
            with phase("communicate"):
                gradient = await link.reduce(step, link.nodes, rows, job.row_dtype)
            theta, state = job.optimizer.step(theta, gradient, state, self.lr_scale(step))
            await self.tell(link, step, theta.expand(len(link.nodes), -1), losses, {"theta": theta, **state})
