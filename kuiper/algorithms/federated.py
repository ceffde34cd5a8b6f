"""Federated averaging (McMahan et al. 2017) with overcommitment (Bonawitz et al. 2019)."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch

from kuiper import registry
from kuiper.algorithms.base import Algorithm, Job
from kuiper.link import Channel, Gathered, Link


class FedAvg(Algorithm):
    """Select ceil(K overcommit) clients, train locally, add the mean update of the first K.

    Args:
        clients_per_round: K, the updates that count.
        overcommit: how many more clients are asked than are needed.
        local_steps: optimiser steps on each client.
        weighting: 'samples' or 'uniform'; only the plain average can weight, any other rule
            takes the updates as they are, with f scaled to the cohort that arrived.
    """

    unit = "round"

    def __init__(self, job: Job, *, clients_per_round: int = 10, overcommit: float = 1.3,
                 local_steps: int = 20, weighting: str = "samples", **base: Any) -> None:
        super().__init__(job, **base)
        self.wanted = clients_per_round
        self.asked = math.ceil(round(clients_per_round * overcommit, 9))  # 50 x 1.1 is 55
        self.local_steps = local_steps
        self.weighting = weighting

    @cached_property
    def model(self) -> Channel:
        return Channel("model", 1, width=self.job.learner.size, shared=True, unit=self.unit)

    @cached_property
    def update(self) -> Channel:
        learner = self.job.learner
        return Channel("update", 2, width=learner.size, dtype=self.job.row_dtype, columns=("loss", "samples"),
                       work=self.local_steps * learner.batch_size, unit=self.unit)

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self.model, self.update)

    def rehearse(self) -> None:
        if not self.job.averages:
            self._rehearse(self.wanted, self._declared(self.wanted))

    async def serve(self, link: Link) -> None:
        job, phase = self.job, self.job.recorder.phase
        theta = self.begin("serve", link, {"theta": job.theta})["theta"]
        self.evaluate_first(link, theta)
        for step in self.steps():
            available = job.senders[link.live(job.senders)]
            clients = job.selector.select(step, self.asked, available, job.seed)
            with phase("communicate"):
                await link.publish(self.model, step, theta, clients, reply=self.update)
            with phase("wait"):
                updates = await link.gather(self.update, step, self.wanted, job.deadline)
            with phase("aggregate"):
                updates, loss = self.received(step, updates)
                weights = self.weights(updates)
                change = self.aggregate(step, updates, weights)
                theta = theta + change
            self.record_model(link, step, theta, loss=loss, clients=updates.nodes.tolist(),
                              **self.under_attack(updates, change, weights))
            if self.evaluates(step):
                self.evaluate(link, step, theta)
            self.keep("serve", link, step, {"theta": theta}, updates.nodes)

    async def work(self, link: Link) -> None:
        job, phase = self.job, self.job.recorder.phase
        async for request in link.requests(self.model, job.learner.together):
            first = (request.step - 1) * self.local_steps + 1
            with phase("compute"):
                rows, losses = job.learner.updates(request.row, request.nodes, first, self.local_steps,
                                                   job.optimizer, self.lr_scale(request.step))
            columns = {"loss": losses, "samples": job.learner.samples(request.nodes)}
            with phase("communicate"):
                await link.send(self.update, request.step, request.nodes, rows, columns)
            self.record(link, request.step, nodes=len(losses), loss=float(losses.mean()))

    def weights(self, updates: Gathered) -> np.ndarray:
        """(m,) what updates count in the mean; equal ones where a rule is applied."""
        by_samples = self.job.averages and self.weighting == "samples"
        return updates.columns["samples"] if by_samples else np.ones(len(updates.nodes))

    def aggregate(self, step: int, updates: Gathered, weights: np.ndarray) -> torch.Tensor:
        """(d,) the mean update, or the rule's."""
        rows = updates.rows
        if not self.job.averages:
            return self.judged(step, updates, self._declared(len(rows)))
        return self.job.learner.weighted_sum(rows, weights / weights.sum()).to(rows.dtype)

    def _declared(self, rows: int) -> int:
        return registry.of_cohort(self.job.f, len(self.job.nodes), rows)
