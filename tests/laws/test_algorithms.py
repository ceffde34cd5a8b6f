"""The four families over the local link: every algorithm does what its box in the paper says."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kuiper import random
from kuiper.aggregation import Rule, average, make
from kuiper.aggregation.apart import Apart as ApartRule
from kuiper.algorithms.base import Algorithm, Job
from kuiper.algorithms.federated import FedAvg
from kuiper.algorithms.gossip import ElasticGossip, GossipingSGD
from kuiper.algorithms.synchronous import AllReduce, ParameterServer
from kuiper.attacks import ipm, sign_flip
from kuiper.attacks.adversary import Adversary
from kuiper.data.synthetic import synthetic
from kuiper.errors import QuorumLost
from kuiper.learner import Batches, FlatModel, Learner
from kuiper.link import Channel, Gathered, Neighbours
from kuiper.link.clock import VirtualClock
from kuiper.link.local import Switchboard
from kuiper.link.profiles import Profiles, uniform
from kuiper.link.wire import frame_bytes
from kuiper.models.mlp import mlp
from kuiper.optim import SGD, Apart, constant
from kuiper.record import Recorder
from kuiper.record.metrics import read_metrics
from kuiper.selection import Random
from kuiper.topology import Exchange
from kuiper.topology.exchange import mutual, pull, random_peers

DATA = synthetic(1, samples=360, test_samples=40, features=5, classes=3)
SEED, STEPS, BATCH, LR = 1, 6, 8, 0.3
HONEST = Adversary(np.empty(0, np.int64))
Staged = Callable[..., "Stage"]


class Watched(Learner):
    """Keeps every model that is evaluated, and whose rows were computed at each step."""

    def __init__(self, *parts: object) -> None:
        super().__init__(*parts)
        self.evaluated: list[Tensor] = []
        self.trained: list[list[int]] = []

    def evaluate(self, theta: Tensor) -> dict[str, float]:
        self.evaluated.append(theta.clone())
        return super().evaluate(theta)

    def gradients(self, thetas: Tensor, nodes: np.ndarray, batch: int) -> tuple[Tensor, np.ndarray]:
        self.trained.append(nodes.tolist())
        return super().gradients(thetas, nodes, batch)

    def updates(self, theta: Tensor, nodes: np.ndarray, batch: int, local_steps: int, *more: object) -> tuple:
        self.trained += [nodes.tolist()] * local_steps
        return super().updates(theta, nodes, batch, local_steps, *more)


@dataclass
class Stage:
    """A job over synthetic data, to be changed by a test and then played."""

    folder: Path
    n: int
    adversary: Adversary = HONEST
    profiles: Profiles | None = None
    shards: list[np.ndarray] | None = None
    changes: dict[str, object] = field(default_factory=dict)
    norm: str = "none"

    def __post_init__(self) -> None:
        order = random.permutation(SEED, "shards", 0, 0, len(DATA.train_y))
        shards = self.shards or np.array_split(order, self.n)
        random.seed_torch(SEED, "initial weights")
        module = mlp(DATA.shape, DATA.classes, hidden=[6], norm=self.norm)
        model = FlatModel(module, "cross_entropy", buffers=True)
        batches = Batches(DATA, shards, BATCH, SEED, self.adversary)
        self.learner = Watched(model, DATA, batches, "sequential")
        nodes = np.arange(self.n)
        self.job = replace(Job(
            seed=SEED, steps=STEPS, eval_interval=1, nodes=nodes,
            senders=np.setdiff1d(nodes, self.adversary.silent), byzantine=self.adversary.byzantine,
            f=len(self.adversary.byzantine), quorum=None, deadline=None,
            on_nan=None, row_dtype=torch.float32, theta=model.theta.clone(),
            learner=self.learner, rule=make("average"), averages=True, trusted=None,
            optimizer=SGD(LR), schedule=constant,
            selector=Random(), recorder=Recorder(self.folder, "ps")), **self.changes)

    def play(self, make: Callable[..., Algorithm]) -> list[Tensor]:
        """The models that were evaluated: one a step, or those of all peers and their average."""
        clock = VirtualClock(self.profiles or uniform(self.n, SEED))
        hub, block = Switchboard(self.n, self.adversary, clock).links()
        server, workers = (make(self.job, records=records) for records in (True, False))

        async def serve() -> None:
            await server.serve(hub)
            await hub.close()

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(serve())
                group.create_task(workers.work(block))

        try:
            asyncio.run(both())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            self.job.recorder.close()
        return self.learner.evaluated

    def play_peers(self, make: Callable[..., Algorithm]) -> list[Tensor]:
        """(n, d) after every step, the start included."""
        initial, *models = self.play(make)
        group = self.n + 1 if self.n > 1 else 1  # all peers, then their average
        after = [torch.stack(models[place : place + self.n]) for place in range(0, len(models), group)]
        assert len(after) == self.job.steps
        return [initial.expand(self.n, -1), *after]

    def steps(self) -> list[dict]:
        return [line for line in read_metrics(self.folder / "metrics.jsonl") if line["event"] == "step"]

    def gradient(self, theta: Tensor, nodes: list[int], batch: int) -> Tensor:
        """Of the mean loss over the batches of `nodes` together, by one process."""
        index = self.learner.batches.indices(np.array(nodes), batch).ravel()
        module = mlp(DATA.shape, DATA.classes, hidden=[6])
        nn.utils.vector_to_parameters(theta.clone(), module.parameters())
        loss = functional.cross_entropy(module(DATA.train_x[index]), DATA.train_y[index])
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(module.parameters()))])

    def gradients(self, theta: Tensor, batch: int) -> Tensor:
        return torch.stack([self.gradient(theta, [node], batch) for node in range(self.n)])


@pytest.fixture
def stage(tmp_path: Path) -> Staged:
    return partial(Stage, tmp_path)


def plain(rule: Callable[[Tensor, int], Tensor]) -> Rule:
    """A function of a user's own as a rule."""
    return Rule({"_name_": "mine"}, build=lambda conf: rule)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)


# -- synchronous ---------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("make", [AllReduce, ParameterServer])
def test_synchronous_is_one_process_at_aggregate_batch(stage: Staged, make: type[Algorithm], n: int) -> None:
    optimizer = SGD(LR, momentum=0.9, nesterov=True, weight_decay=0.01)
    here = stage(n, changes={"optimizer": optimizer, "schedule": lambda step, steps: 1 - step / steps})
    trajectory = here.play(make)
    parameter = here.job.theta.clone().requires_grad_()
    reference = torch.optim.SGD([parameter], LR, momentum=0.9, nesterov=True, weight_decay=0.01)
    for step, theta in enumerate(trajectory):
        close(theta, parameter.detach())
        reference.param_groups[0]["lr"] = LR * (1 - step / STEPS)
        parameter.grad = here.gradient(parameter.detach(), list(range(n)), step + 1)
        reference.step()
    assert len(trajectory) == STEPS + 1


def test_worker_momentum_is_damped_and_stays_at_the_worker(stage: Staged) -> None:
    """m_i <- beta m_i + (1 - beta) g_i, sent in place of g_i."""
    here, beta = stage(3), 0.9
    trajectory = here.play(partial(ParameterServer, worker_momentum=beta))
    theta, momentum = here.job.theta, torch.zeros(3, here.learner.size)
    for step, reached in enumerate(trajectory[1:], 1):
        momentum = beta * momentum + (1 - beta) * here.gradients(theta, step)
        theta = theta - LR * momentum.mean(0)
        close(reached, theta)


def test_crashed_workers_are_not_waited_for(stage: Staged) -> None:
    here = stage(5, adversary=Adversary(np.array([1, 4]), "nothing_sent"))
    trajectory = here.play(ParameterServer)
    theta = here.job.theta
    for step, reached in enumerate(trajectory[1:], 1):
        theta = theta - LR * here.gradient(theta, [0, 2, 3], step)
        close(reached, theta)
    assert len(trajectory) == STEPS + 1
    assert [line["rows"] for line in here.steps()] == [3] * STEPS


def test_more_crashes_than_declared_lose_the_quorum(stage: Staged) -> None:
    here = stage(5, adversary=Adversary(np.array([1, 4]), "nothing_sent"), changes={"f": 1})
    with pytest.raises(QuorumLost, match="gradient, step 1: 3 rows of 3, 4 are needed"):
        here.play(ParameterServer)


@pytest.mark.parametrize("quorum", [4, 2], ids=["n-f", "less"])
def test_a_quorum_of_the_fastest_counts_and_the_rest_never_compute(stage: Staged, quorum: int) -> None:
    speeds = Profiles(np.array([3.0, 1.0, 5.0, 2.0, 4.0]), np.full(5, np.inf), np.zeros(5), np.inf)
    here = stage(5, profiles=speeds, changes={"f": 1, "quorum": quorum})
    here.play(ParameterServer)
    fastest = sorted([1, 3, 0, 4][:quorum])
    assert here.learner.trained == [fastest] * STEPS
    assert [(line["rows"], line["late"]) for line in here.steps()] == [(quorum, 5 - quorum)] * STEPS
    slowest_ms = sorted(speeds.ms_per_sample)[quorum - 1]
    assert here.steps()[-1]["clock"] == pytest.approx(STEPS * 3 * BATCH * slowest_ms / 1000)


def test_an_omniscient_attack_acts_on_the_honest_rows_of_its_gather(stage: Staged) -> None:
    """ipm with eps 1, one of four: the average keeps half of the honest mean."""
    here = stage(4, adversary=Adversary(np.array([2]), "gather", partial(ipm, eps=1.0)))
    trajectory = here.play(ParameterServer)
    for step, (before, after) in enumerate(pairwise(trajectory), 1):
        honest = here.gradient(before, [0, 1, 3], step)
        close(after - before, -LR * honest / 2)
        line = here.steps()[step - 1]
        assert line["honest_norm"] == pytest.approx(float(honest.norm()), rel=1e-5)
        assert line["deviation"] == pytest.approx(float(honest.norm()) / 2, rel=1e-5)
        assert line["influence"] == pytest.approx(0.25)


def test_a_round_under_attack_tells_how_far_it_is_from_the_honest_clients(stage: Staged) -> None:
    """Weighted as the mean is: without its attacker, who sends -1 times its own, it would be theirs."""
    shards = np.split(random.permutation(SEED, "shards", 0, 0, 360), [10, 30, 130])
    here = stage(4, shards=shards, adversary=Adversary(np.array([2]), "rows", sign_flip))
    before, after = here.play(partial(FedAvg, clients_per_round=4, overcommit=1.0, local_steps=1))[:2]
    gradients, samples = here.gradients(before, 1), torch.tensor([10.0, 20, 0, 230])
    honest = -LR * (samples / samples.sum()) @ gradients
    assert here.steps()[0]["honest_norm"] == pytest.approx(float(honest.norm()), rel=1e-4)
    assert here.steps()[0]["deviation"] == pytest.approx(float((after - before - honest).norm()), rel=1e-4)


# -- gossip --------------------------------------------------------------------------------


def only_at_first(step: int, steps: int) -> float:
    """One step apart, so that the models differ, then nothing but mixing."""
    return float(step == 0)


def thesis_step(thetas: Tensor, updates: Tensor, seed: int, step: int, how: dict, pulls: bool) -> Tensor:
    """The rules as the thesis writes them, with sets and loops."""
    chosen = dict(zip(*random_peers(seed, step, np.arange(len(thetas)), **how), strict=True))
    after = thetas + updates
    for i in range(len(thetas)):
        heard = {chosen[i]} if i in chosen else set()
        if not pulls:
            heard |= {k for k, picked in chosen.items() if picked == i}
        for k in heard:
            after[i] -= 0.5 * (thetas[i] - thetas[k])
    return after


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("how", [{"probability": 1.0, "period": 1}, {"probability": 0.6, "period": 2}],
                         ids=["always", "now-and-then"])
@pytest.mark.parametrize("make", [ElasticGossip, GossipingSGD])
def test_gossip_follows_the_thesis(stage: Staged, make: type[Algorithm], how: dict, n: int) -> None:
    """Parameters from before the step, gradient and mixing at once, momentum local."""
    here = stage(n, changes={"optimizer": SGD(LR, momentum=0.9)})
    trajectory = here.play_peers(partial(make, **how))
    momentum = torch.zeros(n, here.learner.size)
    for step, (before, after) in enumerate(pairwise(trajectory), 1):
        gradients = torch.stack([here.gradient(before[i], [i], step) for i in range(n)])
        momentum = 0.9 * momentum + gradients
        close(after, thesis_step(before, -LR * momentum, SEED, step, how, pulls=make is GossipingSGD))


def test_elastic_gossip_keeps_the_mean_and_contracts(stage: Staged) -> None:
    here = stage(7, changes={"schedule": only_at_first, "steps": 12})
    trajectory = [thetas.double() for thetas in here.play_peers(partial(ElasticGossip, alpha=0.2))[1:]]
    spreads = [(thetas - thetas.mean(0)).norm() for thetas in trajectory]
    assert spreads[0] > 0.01 and spreads[-1] < spreads[0] / 2
    for thetas in trajectory:
        torch.testing.assert_close(thetas.mean(0), trajectory[0].mean(0), rtol=0, atol=1e-6)


class Matched(ElasticGossip):
    """0 - 3 and 1 - 2; node 4 has no partner."""

    def exchange(self, step: int) -> Exchange:
        return Exchange.of(np.array([0, 3, 1, 2]), np.array([3, 0, 2, 1]))


def test_elastic_gossip_on_a_matching_is_pairwise_averaging(stage: Staged) -> None:
    trajectory = stage(5, changes={"schedule": only_at_first, "steps": 2}).play_peers(Matched)
    before, after = trajectory[1:]
    for i, partner in ((0, 3), (3, 0), (1, 2), (2, 1)):
        close(after[i], (before[i] + before[partner]) / 2)
    assert torch.equal(after[4], before[4])


def test_few_of_many_peers_are_evaluated(stage: Staged) -> None:
    """Always the same ones; training is not changed."""
    everyone = stage(7).play_peers(ElasticGossip)[1:]
    few = stage(7).play(partial(ElasticGossip, evaluated_peers=2))[1:]
    assert len(few) == 3 * len(everyone)  # two, and their average
    chosen = [i for i in range(7) if any(torch.equal(everyone[0][i], theta) for theta in few[:2])]
    assert len(chosen) == 2
    for step, thetas in enumerate(everyone):
        assert torch.equal(torch.stack(few[3 * step : 3 * step + 2]), thetas[chosen])


def test_a_mutual_pick_counts_once(stage: Staged) -> None:
    """Two nodes always pick each other: counted twice they would swap models, not meet."""
    trajectory = stage(2, changes={"schedule": only_at_first, "steps": 2}).play_peers(ElasticGossip)
    before, after = trajectory[1:]
    assert (before[0] - before[1]).norm() > 0.01
    for theta in after:
        close(theta, before.mean(0))


def test_a_pull_changes_the_chooser_only(stage: Staged) -> None:
    here = stage(6, changes={"schedule": only_at_first, "steps": 8})
    trajectory = here.play_peers(partial(GossipingSGD, probability=0.5))
    stayed = 0
    for step, (before, after) in enumerate(pairwise(trajectory[1:]), 2):
        pickers, picked = random_peers(SEED, step, np.arange(6), 0.5, 1)
        for i, k in zip(pickers, picked, strict=True):
            close(after[i], (before[i] + before[k]) / 2)
        for i in set(range(6)) - set(pickers):
            assert torch.equal(after[i], before[i])
            stayed += i in picked
    assert stayed > 3  # asked, and unchanged


@pytest.mark.parametrize("graph", [pull, mutual])
def test_who_hears_whom_is_a_function_of_seed_and_step(graph: Callable[..., Exchange]) -> None:
    def edges(seed: int, step: int) -> list[tuple[int, int]]:
        exchange = graph(seed, step, np.arange(9), 0.7, 1)
        return list(zip(exchange.receivers.tolist(), exchange.senders.tolist(), strict=True))

    forwards = [edges(1, step) for step in range(30)]
    assert forwards == [edges(1, step) for step in reversed(range(30))][::-1]
    assert forwards != [edges(2, step) for step in range(30)] and forwards[1] != forwards[2]
    for step in range(30):
        assert len(set(edges(1, step))) == len(edges(1, step)) and all(to != by for to, by in edges(1, step))
        if graph is mutual:
            assert {(by, to) for to, by in edges(1, step)} == set(edges(1, step))


@pytest.mark.parametrize("tampered", [False, True])
def test_rows_are_heard_in_node_order_in_any_block(tampered: bool) -> None:
    """Wide rows, of which few fit a turn; node 3 is missing."""
    exchange = mutual(1, 1, np.arange(12), 0.9, 1)
    there = np.setdiff1d(np.arange(12), [3])
    wide = torch.from_numpy(there).float()[:, None].expand(-1, 40_000)

    def tamper(receiver: int, senders: np.ndarray, rows: Tensor) -> Tensor:
        assert rows[:, 0].tolist() == senders.tolist()
        return rows + 100 * receiver

    neighbours = Neighbours(Gathered(there, wide), exchange, tamper if tampered else None)
    for block in (np.arange(12), np.array([2, 5, 7])):
        heard: dict[int, list[float]] = {node: [] for node in block.tolist()}
        for places, rows in neighbours.turns(block):
            for place, row in zip(places.tolist(), rows, strict=True):
                heard[int(block[place])].append(float(row[0]))
        for node in block.tolist():
            senders = exchange.senders[exchange.receivers == node]
            assert heard[node] == [by + 100 * node * tampered for by in senders if by != 3]


def test_period_and_probability_hold_together() -> None:
    n, steps, period, probability = 8, 8000, 4, 0.3
    counts = np.zeros((n, n))
    for step in range(1, steps + 1):
        pickers, picked = random_peers(3, step, np.arange(n), probability, period)
        assert step % period == 0 or not len(pickers)
        np.add.at(counts, (pickers, picked), 1)
    draws = steps // period
    each = counts.sum(1)
    assert np.abs(each - draws * probability).max() < 4.5 * math.sqrt(draws * probability * (1 - probability))
    assert not counts.diagonal().any()
    expected = draws * probability / (n - 1)
    others = counts[~np.eye(n, dtype=bool)]
    chi_square = ((others - expected) ** 2 / expected).sum()  # about 56 when peers are uniform
    assert chi_square < 56 + 4.5 * math.sqrt(2 * 56)


# -- federated -----------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_fedavg_with_one_local_step_is_weighted_sgd(stage: Staged, weighting: str) -> None:
    cuts = [10, 30, 130]
    shards = np.split(random.permutation(SEED, "shards", 0, 0, 360), cuts)
    here = stage(4, shards=shards)
    make = partial(FedAvg, clients_per_round=4, overcommit=1.0, local_steps=1, weighting=weighting)
    trajectory = here.play(make)
    samples = torch.tensor([10.0, 20, 100, 230])
    weights = samples / samples.sum() if weighting == "samples" else torch.full((4,), 0.25)
    for step, (before, after) in enumerate(pairwise(trajectory), 1):
        close(after, before - LR * (weights @ here.gradients(before, step)))


@pytest.mark.parametrize(("k", "overcommit", "asked"), [(10, 1.0, 10), (10, 1.3, 13), (10, 1.25, 13),
                                                        (50, 1.1, 55), (10, 9.0, 60)])
def test_more_are_selected_than_count(stage: Staged, k: int, overcommit: float, asked: int) -> None:
    """ceil(K overcommit), of 60 clients at most; the K fastest of them count, and only those train."""
    ms = 1 + random.uniforms(SEED, "speeds", np.arange(60))
    here = stage(60, profiles=Profiles(ms, np.full(60, np.inf), np.zeros(60), np.inf), changes={"steps": 4})
    here.play(partial(FedAvg, clients_per_round=k, overcommit=overcommit, local_steps=2))
    clock = 0.0
    for step, line in enumerate(here.steps(), 1):
        selected = Random().select(step, asked, np.arange(60), SEED)
        fastest = selected[np.argsort(ms[selected])[:k]]
        assert line["clients"] == sorted(fastest.tolist())
        assert (line["rows"], line["late"]) == (k, asked - k)
        clock += 3 * BATCH * 2 * ms[fastest].max() / 1000
        assert line["clock"] == pytest.approx(clock)
    trained = [node for nodes in here.learner.trained for node in nodes]
    assert len(trained) == 4 * k * 2  # rounds, clients, local steps


def test_f_scales_with_the_cohort(stage: Staged) -> None:
    told: list[tuple[int, int]] = []

    def rule(rows: Tensor, f: int) -> Tensor:
        told.append((len(rows), f))
        return average(rows, f)

    here = stage(12, changes={"rule": plain(rule), "averages": False, "f": 4, "steps": 2})
    here.play(partial(FedAvg, clients_per_round=5, overcommit=1.0, local_steps=1))
    assert told == [(5, 2)] * 2  # 4 of 12 are 1.67 of 5, rounded up


# -- BatchNorm's statistics ------------------------------------------------------------------


@dataclass
class Normalised(Stage):
    """With BatchNorm, whose statistics are part of every row, and what is put on for them."""

    norm: str = "batch"
    local: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        d = self.learner.parameters
        self.job = replace(self.job, optimizer=Apart(self.job.optimizer, d), rule=ApartRule(self.job.rule, d),
                           local_statistics=self.local)

    def statistics(self, theta: Tensor, node: int, batch: int) -> Tensor:
        """Those of theta after one batch of a node in plain torch: means, then variances."""
        linear, norm, _, _ = list(mlp(DATA.shape, DATA.classes, hidden=[6], norm="batch"))[1:]
        nn.utils.vector_to_parameters(theta[: 6 * 6], linear.parameters())
        norm.running_mean, norm.running_var = theta[-12:-6].clone(), theta[-6:].clone()
        norm(linear(DATA.train_x[self.learner.batches.indices(np.array([node]), batch)[0]]))
        return torch.cat([norm.running_mean, norm.running_var])

    def each(self, theta: Tensor, batch: int) -> Tensor:
        return torch.stack([self.statistics(theta, node, batch) for node in range(self.n)])


@pytest.fixture
def normalised(tmp_path: Path) -> Staged:
    return partial(Normalised, tmp_path)


@pytest.mark.parametrize("make", [AllReduce, partial(ParameterServer, worker_momentum=0.9),
                                  partial(FedAvg, clients_per_round=4, overcommit=1.0, local_steps=1)],
                         ids=["all_reduce", "parameter_server", "fedavg"])
def test_statistics_of_all_are_the_mean_of_each(normalised: Staged, make: Callable[..., Algorithm]) -> None:
    """Whatever the learning rate, the momentum of server and workers, and weight decay."""
    here = normalised(4, changes={"optimizer": SGD(LR, momentum=0.9, weight_decay=0.1)})
    for step, (before, after) in enumerate(pairwise(here.play(make)), 1):
        close(after[-12:], here.each(before, step).mean(0))


def test_a_rule_judges_statistics_by_themselves(normalised: Staged) -> None:
    """The median of changes, coordinate by coordinate; distances are not theirs to decide."""
    asked: list[int] = []

    def rule(rows: Tensor, f: int) -> Tensor:
        asked.append(rows.shape[1])
        return rows.median(0).values

    here = normalised(3, changes={"rule": plain(rule), "averages": False})
    for step, (before, after) in enumerate(pairwise(here.play(ParameterServer)), 1):
        close(after[-12:], here.each(before, step).median(0).values)
    assert asked == [here.learner.parameters, 12] * STEPS


@pytest.mark.parametrize("local", [False, True], ids=["aggregate", "local"])
def test_gossip_mixes_statistics_or_leaves_them(normalised: Staged, local: bool) -> None:
    here = normalised(5, local=local)
    trajectory = here.play_peers(ElasticGossip)
    how = {"probability": 1.0, "period": 1}
    mixed = torch.zeros(5, 12)
    for step, (before, after) in enumerate(pairwise(trajectory), 1):
        alone = torch.stack([here.statistics(before[node], node, step) for node in range(5)])
        met = thesis_step(before[:, -12:], alone - before[:, -12:], SEED, step, how, pulls=False)
        close(after[:, -12:], alone if local else met)
        mixed += met - alone
    assert mixed.norm() > 0.01
    sent = Channel("parameters", 1, width=here.learner.size - 12 * local)
    assert here.steps()[0]["bytes_out"] % frame_bytes(sent, 1, 1) == 0
