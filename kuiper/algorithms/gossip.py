"""The elastic-gossip thesis (arXiv 1812.02407): elastic gossip, and gossiping SGD by pull.

Messages carry the parameters from before the step; gradient and gossip updates are
simultaneous: theta_i <- theta_i + u_i + mixing, u_i the increment of the local optimiser.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch

from kuiper.algorithms.base import Job
from kuiper.algorithms.peers import PeerAlgorithm
from kuiper.link import Channel, Link
from kuiper.selection import Random
from kuiper.topology import Exchange, mutual, pull

KEPT = 3
"""Steps whose rows wait for a peer that does not read, where nobody waits for it either."""

Turns = Iterator[tuple[torch.Tensor, torch.Tensor]]


class Gossip(PeerAlgorithm):
    """Local steps mixed with what a few random peers hold.

    Args:
        probability: of the coin with which a node takes part in a step.
        period: nodes take part only in steps that it divides.
        evaluated_peers: how many honest nodes are evaluated, drawn once by seed; None for all of them. An
            evaluation is a pass over the test set for each, and their mean, worst and average are reported.
    """

    def __init__(self, job: Job, *, probability: float = 1.0, period: int = 1,
                 evaluated_peers: int | None = None, **base: Any) -> None:
        super().__init__(job, **base)
        self.probability = probability
        self.period = period
        honest = super().observed(0)
        self._observed = Random().select(0, evaluated_peers or len(honest), honest, job.seed)

    def observed(self, step: int) -> np.ndarray:
        return self._observed

    @cached_property
    def mixed(self) -> slice:
        """Columns that peers send and mix: all, but for statistics that each keeps to itself."""
        learner = self.job.learner
        return slice(learner.parameters if self.job.local_statistics else learner.size)

    @cached_property
    def parameters(self) -> Channel:
        return Channel("parameters", 1, width=self.mixed.stop, dtype=self.job.row_dtype)

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self.parameters, self.report, self.snapshot)

    @abstractmethod
    def exchange(self, step: int) -> Exchange:
        """Who hears whom at a step."""

    @abstractmethod
    def mix(self, thetas: torch.Tensor, turns: Turns) -> torch.Tensor:
        """What the rows heard, as `Neighbours.turns` gives them, add to the rows of a block (k, d)."""

    async def work(self, link: Link) -> None:
        job, phase = self.job, self.job.recorder.phase
        thetas = job.theta.repeat(len(link.nodes), 1)
        state = self.begin("work", link, {"thetas": thetas, **job.optimizer.init(thetas)})
        thetas = state.pop("thetas")
        link.expect(self.parameters, lambda step: self.exchange(step).between(job.nodes, link.nodes))
        keep = None if job.deadline is None else KEPT
        for step in self.steps():
            exchange = self.exchange(step)
            with phase("communicate"):
                rows = thetas[:, self.mixed]
                await link.send(self.parameters, step, link.nodes, rows, to=exchange, keep=keep)
            with phase("compute"):
                rows, losses = job.learner.gradients(thetas, link.nodes, batch=step)
                rows[torch.from_numpy(~self.policy.passed(step, link.nodes, rows, losses))] = 0
                link.charge(job.learner.batch_size)
                moved, state = job.optimizer.step(thetas, rows, state, self.lr_scale(step))
            with phase("wait"):
                neighbours = await link.neighbours(self.parameters, step, exchange, job.deadline)
            with phase("aggregate"):
                moved[:, self.mixed].add_(self.mix(thetas[:, self.mixed], neighbours.turns(link.nodes)))
            thetas = moved
            await self.tell(link, step, thetas, losses, {"thetas": thetas, **state})


class ElasticGossip(Gossip):
    """theta_i += u_i - alpha sum over k in K_i of (theta_i - theta_k).

    K_i is the chosen peer and all requesters; a mutual pick counts once. Mixing is
    I - alpha L with L the Laplacian of the step's exchange graph: it keeps the mean, and
    contracts while alpha lambda_max(L) < 2.
    """

    def __init__(self, job: Job, *, alpha: float = 0.5, **gossip: Any) -> None:
        super().__init__(job, **gossip)
        self.alpha = alpha
        if self.records and alpha * len(job.nodes) >= 2 and len(job.nodes) > 2:
            job.recorder.log.warning(
                "alpha %g can expand: if all %d nodes pick one peer, lambda_max(L) is %d and "
                "alpha lambda_max(L) is not below 2", alpha, len(job.nodes), len(job.nodes))

    def exchange(self, step: int) -> Exchange:
        return mutual(self.job.seed, step, self.job.nodes, self.probability, self.period)

    def mix(self, thetas: torch.Tensor, turns: Turns) -> torch.Tensor:
        pull_of_all = torch.zeros_like(thetas)
        for places, rows in turns:
            pull_of_all.index_add_(0, places, thetas.index_select(0, places) - rows)
        return pull_of_all.mul_(-self.alpha)


class GossipingSGD(Gossip):
    """Pull: theta_i += u_i - (theta_i - theta_k) / 2 for the chosen peer k; being asked changes nothing."""

    def exchange(self, step: int) -> Exchange:
        return pull(self.job.seed, step, self.job.nodes, self.probability, self.period)

    def mix(self, thetas: torch.Tensor, turns: Turns) -> torch.Tensor:
        pull_of_one = torch.zeros_like(thetas)
        for places, rows in turns:  # a node hears one other
            pull_of_one.index_add_(0, places, rows - thetas.index_select(0, places))
        return pull_of_one.div_(2)
