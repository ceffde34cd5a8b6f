"""What peer-to-peer algorithms share: an observer that evaluates and records.

Its traffic is not the algorithm's: it is charged to nobody, and attacks do not act on it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from kuiper.aggregation.sums import ordered_mean
from kuiper.algorithms.base import Algorithm, digest
from kuiper.algorithms.non_finite import finite_models
from kuiper.link import Channel, Link
from kuiper.optim import State

MOVED = ("bytes_in", "bytes_out", "rows", "late")
_NOTHING = np.empty(0, np.int64)


class PeerAlgorithm(Algorithm):
    """Peers report a loss every step and their models when it is time to evaluate."""

    peers = True

    @cached_property
    def report(self) -> Channel:
        return Channel("report", 100, width=0, columns=("loss", "clock", "finite", *MOVED), charged=False)

    @cached_property
    def snapshot(self) -> Channel:
        return Channel("snapshot", 101, width=self.job.learner.size, charged=False)

    def observed(self, step: int) -> np.ndarray:
        """Whose models are evaluated at a step: all honest nodes, unless all hold the same."""
        return self.job.nodes[self.honest(self.job.nodes)]

    async def serve(self, link: Link) -> None:
        job = self.job
        link.expect(self.report, lambda step: job.nodes)
        link.expect(self.snapshot, lambda step: self.observed(step) if self.evaluates(step) else _NOTHING)
        self.begin("serve", link, {})
        self.evaluate_first(link, job.theta)
        for step in self.steps():
            with job.recorder.phase("wait"):
                reports = await link.gather(self.report, step)
            columns = reports.columns
            clock = float(columns["clock"].max())
            if self.records:
                moved = {name: round(columns[name].sum()) for name in MOVED}
                job.recorder.step(step, clock=clock, loss=self.honest_loss(reports), **moved)
                bad = reports.nodes[self.honest(reports.nodes) & (columns["finite"] == 0)]
                if len(bad):
                    more = f" and {len(bad) - 1} more" * (len(bad) > 1)
                    job.recorder.watch(step, fault=f"the model of node {bad[0]}{more} has values that are not finite")
            if self.evaluates(step):
                with job.recorder.phase("wait"):
                    models = await link.gather(self.snapshot, step)
                self.evaluate_peers(clock, step, models.rows)
            if self.keep("serve", link, step, {}, reports.nodes):
                await link.meet(step)

    def evaluate_peers(self, clock: float, step: int, models: torch.Tensor) -> None:
        """Mean and worst over honest peers, and the model that is their average."""
        job = self.job
        with job.recorder.phase("evaluate"):
            each = [job.learner.evaluate(theta) for theta in models]
            average = job.learner.evaluate(ordered_mean(models)) if len(models) > 1 else each[0]
            parameters = models[:, : job.learner.parameters]
            spread = float(((parameters - parameters.double().mean(0)) ** 2).sum(1).mean())
        scores = {key: float(np.mean([score[key] for score in each])) for key in each[0]}
        job.recorder.evaluation(step, clock=clock, **scores, worst=min(s["top_1"] for s in each),
                                average_model=average["top_1"], consensus_distance=spread,
                                digest=digest(models))

    async def tell(self, link: Link, step: int, thetas: torch.Tensor, losses: np.ndarray,
                   state: State) -> None:
        """A block of peers tells the observer how it stands after a step, and keeps its state."""
        moved, k = link.traffic.take(), len(link.nodes)
        columns = {"loss": losses, "clock": np.full(k, link.now()), "finite": finite_models(thetas).astype(float)}
        columns |= {name: np.full(k, moved[name] / k) for name in MOVED}  # the block's, shared out
        if self.records:
            self.job.recorder.step(step, clock=link.now(), loss=float(losses.mean()), **moved)
        await link.send(self.report, step, link.nodes, thetas[:, :0], columns)
        if self.evaluates(step):
            seen = np.isin(link.nodes, self.observed(step))
            if seen.any():
                rows = thetas[torch.from_numpy(np.flatnonzero(seen))]
                await link.send(self.snapshot, step, link.nodes[seen], rows)
        if self.keep("work", link, step, state):
            await link.meet(step)
