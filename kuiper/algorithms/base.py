"""What every algorithm has: the parts of its job, its channels, and two coroutines.

`serve` is the hub's role (a server, or the observer of a peer-to-peer job), `work` that of a
block of nodes. Neither knows how many processes there are.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from kuiper.aggregation.apart import Apart
from kuiper.aggregation.cloud import combine
from kuiper.aggregation.rule import Rule
from kuiper.algorithms.non_finite import NonFinitePolicy, finite_models
from kuiper.errors import JobFailed, RecordError
from kuiper.learner import Learner
from kuiper.link import Channel, Gathered, Link
from kuiper.optim import Optimizer, State
from kuiper.record import Recorder
from kuiper.record.keeper import Keeper

RULE, ATTACK = "rule ", "attack "
"""Before the names of a rule's or an attack's state in a checkpoint; it may change shape, or be missing."""


@dataclass(frozen=True)
class Job:
    """The parts of one job, built from its resolved configuration.

    Attributes:
        nodes: (n,) all workers, peers or clients.
        senders: (s,) those that are not silent.
        byzantine: (b,) those that attack; f is how many were declared.
        quorum: rows that a gather waits for; None for all live senders.
        deadline: seconds after which a gather makes do; None for never.
        on_nan: 'stop', 'drop' or None, see `NonFinitePolicy`.
        row_dtype: in which gradients, updates and peers' parameters travel.
        theta: (d,) the model at the start, the same everywhere. Where rows hold BatchNorm's statistics too,
            d is the width of a row, here and in all algorithms.
        rule: (rows (m, d), f, step) -> (d,), with what it keeps between steps; None for an algorithm without.
        averages: whether the rule is the plain mean, which FedAvg may weight.
        trusted: the node whose row the rule trusts, by its place among the rows; None where it trusts none.
        keeper: of this process's checkpoints; by default none are kept.
        attack_state: what an omniscient attack keeps between gathers; replaced entry by entry.
        local_statistics: whether peers keep BatchNorm's statistics to themselves, where rows hold them.
    """

    seed: int
    steps: int
    eval_interval: int
    nodes: np.ndarray
    senders: np.ndarray
    byzantine: np.ndarray
    f: int
    quorum: int | None
    deadline: float | None
    on_nan: str | None
    row_dtype: torch.dtype
    theta: torch.Tensor
    learner: Learner
    rule: Rule | Apart | None
    averages: bool
    trusted: int | None
    optimizer: Optimizer
    schedule: Callable[[int, int], float]
    selector: Any
    recorder: Recorder
    keeper: Keeper = field(default_factory=Keeper)
    local_statistics: bool = False
    attack_state: State = field(default_factory=dict)


class Algorithm(ABC):
    """A role for the hub and one for a block of nodes.

    Args:
        job: its parts.
        records: whether this role writes a line a step; in a simulation only the hub does.
    """

    peers = False
    unit = "step"
    """What one iteration is called in logs and errors."""

    def __init__(self, job: Job, records: bool = True) -> None:
        self.job = job
        self.records = records
        self.policy = NonFinitePolicy(job.on_nan, job.recorder, self.unit)
        self._counted = np.zeros(len(job.nodes), bool)

    @property
    @abstractmethod
    def channels(self) -> tuple[Channel, ...]:
        """All that the algorithm sends."""

    @property
    def stateful(self) -> bool:
        """Whether nodes have state of their own that a checkpoint must hold."""
        return self.peers

    @abstractmethod
    async def serve(self, link: Link) -> None:
        """The hub, from the first step to the last."""

    @abstractmethod
    async def work(self, link: Link) -> None:
        """A block of nodes, for as long as the hub or the steps last."""

    def rehearse(self) -> None:
        """What the hub does once before the clock starts: a rule's first call imports and compiles."""

    def _rehearse(self, rows: int, f: int) -> None:
        """Aggregate so many rows of zeros; they take no memory, and the rule keeps nothing of it."""
        nothing = self.job.theta.new_zeros(1, dtype=self.job.row_dtype)
        zeros = nothing.expand(rows, self.job.learner.size)
        self.job.rule.copy()(zeros, f, step=0)
        self._mean(zeros, np.ones(rows))

    def steps(self) -> Iterator[int]:
        """The steps that are left."""
        return iter(range(self.job.keeper.step + 1, self.job.steps + 1))

    def begin(self, role: str, link: Link, fresh: State) -> State:
        """The state that a role goes on from: what it kept, or `fresh`, what a newcomer starts with.

        Raises:
            RecordError: what it kept is of another shape, or of other nodes.
        """
        saved = self.job.keeper.saved(role)
        if saved is None:
            return fresh
        values, state = saved
        kept = {name for name in state if name.startswith((RULE, ATTACK))}
        if role == "serve" and self.job.rule is not None:
            self.job.rule.state = self._back(state, RULE)
            self.job.attack_state.update(self._back(state, ATTACK))
        state = {name: each for name, each in state.items() if name not in kept}
        shapes = [{name: each.shape for name, each in one.items()} for one in (state, fresh)]
        if shapes[0] != shapes[1] or values["nodes"] != link.nodes.tolist():
            raise RecordError(f"the checkpoint of {self.unit} {self.job.keeper.step} is not of this job's {role}",
                              "resume with the configuration that it was made with")
        link.set_times(np.array(values["times"]))
        return {name: each.to(fresh[name].device) for name, each in state.items()}

    def keep(self, role: str, link: Link, step: int, state: State, nodes: np.ndarray | None = None) -> bool:
        """Declare a role's state after a step; written when a checkpoint is due.

        Args:
            state: as `begin` takes it; not changed in place from here on. A block's has a row per node.
            nodes: whose rows the step had; a hub says so. The checkpoint names all since the one before it,
                because their state is another than it was there.
        Returns:
            Whether it was due.
        """
        keeper = self.job.keeper
        if nodes is not None:
            self._counted[nodes] = True
        due = keeper.due(role, step)
        if due is None:
            return False
        if role == "serve" and self.job.rule is not None:
            state = state | {f"{RULE}{name}": each for name, each in self.job.rule.state.items()}
            state |= {f"{ATTACK}{name}": each for name, each in self.job.attack_state.items()}
        values = {"nodes": link.nodes.tolist(), "times": link.times().tolist()}
        if nodes is not None:
            values |= {"present": np.flatnonzero(self._counted).tolist(), "record": self.job.recorder.state()}
            self._counted[:] = False
        keeper.give(role, due, values, state)
        return True

    def _back(self, state: State, prefix: str) -> State:
        """What a checkpoint keeps under a prefix."""
        device = self.job.theta.device
        return {name.removeprefix(prefix): each.to(device)
                for name, each in state.items() if name.startswith(prefix)}

    def lr_scale(self, step: int) -> float:
        return self.job.schedule(step - 1, self.job.steps)

    def evaluates(self, step: int) -> bool:
        """At the start, every `eval_interval` steps, and at the end."""
        return step % self.job.eval_interval == 0 or step == self.job.steps

    def record(self, link: Link, step: int, **values: Any) -> None:
        """A line of metrics for this step, with what moved since the last."""
        if self.records:
            self.job.recorder.step(step, clock=link.now(), **link.traffic.take(), **values)

    def record_model(self, link: Link, step: int, theta: torch.Tensor, **values: Any) -> None:
        """The line of a step after which the hub holds the model theta (d,)."""
        self.record(link, step, **values)
        if not finite_models(theta[None]).all():
            self.job.recorder.watch(step, fault="the model has values that are not finite")

    def evaluate_first(self, link: Link, theta: torch.Tensor) -> None:
        """The model at the start of a run."""
        if not self.job.keeper.step:
            self.evaluate(link, 0, theta)

    def evaluate(self, link: Link, step: int, theta: torch.Tensor) -> None:
        with self.job.recorder.phase("evaluate"):
            scores = self.job.learner.evaluate(theta)
        self.job.recorder.evaluation(step, clock=link.now(), **scores, digest=digest(theta))

    def received(self, step: int, gathered: Gathered) -> tuple[Gathered, float | None]:
        """The rows of a gather that are to be used, and the loss of its honest nodes.

        A loss that has diverged is told here: a rule may refuse the rows that come with it.
        """
        usable, loss = self.policy.gathered(step, gathered), self.honest_loss(gathered)
        self.job.recorder.watch(step, loss)
        return usable, loss

    def honest_loss(self, gathered: Gathered) -> float | None:
        """Mean loss over the honest nodes of a gather; None when it has none.

        With `on_nan: drop` a loss that is not finite counts only where no other is there.
        """
        losses = gathered.columns["loss"][self.honest(gathered.nodes)]
        if self.job.on_nan == "drop" and np.isfinite(losses).any():
            losses = losses[np.isfinite(losses)]
        return float(losses.mean()) if len(losses) else None

    def under_attack(self, gathered: Gathered, result: torch.Tensor,
                     weights: np.ndarray | None = None) -> dict[str, float]:
        """What attackers among the senders of a gather made of its aggregate (d,); {} where there are none.

        `deviation` is ||result - mean of the honest rows||, what the definitions of a robust rule bound, and
        `honest_norm` the norm of that mean, both of parameters only; `influence` the part of the result's
        weight that the attackers had, if the rule can tell. Honest rows are read once.

        Args:
            weights: (m,) of the rows, for the honest mean too; None for equal ones.
        """
        honest = self.honest(gathered.nodes)
        if honest.all():
            return {}
        weights = np.ones(len(honest)) if weights is None else weights
        found = {"influence": float(weights[~honest].sum() / weights.sum()) if self.job.averages
                 else self.job.rule.influence(np.flatnonzero(~honest).tolist())}
        if honest.any():
            mean = self._mean(gathered.rows, weights * honest)
            parameters = slice(self.job.learner.parameters)
            found["deviation"] = float((result.double() - mean)[parameters].norm())
            found["honest_norm"] = float(mean[parameters].norm())
        return {name: value for name, value in found.items() if value is not None}

    def judged(self, step: int, gathered: Gathered, f: int) -> torch.Tensor:
        """(d,) what the rule makes of a gather.

        Raises:
            JobFailed: the row that the rule trusts is missing, or not in its place; or the rule fails.
        """
        node, nodes = self.job.trusted, gathered.nodes
        if node is not None and (len(nodes) <= node or nodes[node] != node):
            missing = np.setdiff1d(np.arange(node + 1), nodes).tolist()
            raise JobFailed(f"{self.unit} {step}: the rule trusts row {node}, that of node {node}, and there is none "
                            f"of nodes {missing}", "resume the job with these nodes, or choose a rule that trusts none")
        return self.job.rule(gathered.rows, f, step)

    def _mean(self, rows: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
        """(d,) of rows (m, d); those of weight 0 are not looked at, and may hold anything."""
        return combine(rows, weights[None].astype(float), [weights.sum()])[0]

    def honest(self, nodes: np.ndarray) -> np.ndarray:
        """Mask (m,) of the nodes that do not attack."""
        return ~np.isin(nodes, self.job.byzantine)


def digest(models: torch.Tensor) -> str:
    """A short fingerprint of the bits of one model (d,) or several (m, d)."""
    return hashlib.sha256(models.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
