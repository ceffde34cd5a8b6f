"""Every number that a run records, on inputs so small that its right value is worked out by hand.

Four nodes with models or gradients of two values. Node 3 is Byzantine: its loss, its model and its row are
always far from the others', so that a mean over all nodes is not one over the honest ones.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kuiper.aggregation import make as make_rule
from kuiper.aggregation.sums import ordered_sum
from kuiper.algorithms.base import Algorithm, Job
from kuiper.algorithms.federated import FedAvg
from kuiper.algorithms.gossip import ElasticGossip
from kuiper.algorithms.synchronous import AllReduce, ParameterServer
from kuiper.attacks.adversary import Adversary
from kuiper.data import Dataset
from kuiper.learner import Batches, FlatModel, Learner
from kuiper.learner.evaluate import evaluate
from kuiper.link import Gathered
from kuiper.link.clock import VirtualClock
from kuiper.link.local import Switchboard
from kuiper.link.profiles import Profiles
from kuiper.optim import SGD, constant
from kuiper.record import Recorder, load_perf, recorder
from kuiper.record.metrics import read_metrics
from kuiper.selection import Random
from kuiper.topology import Exchange
from tests.unit.test_record import HEADER

LOSSES = np.array([1.0, 2.0, 6.0, 100.0])  # honest mean 3
SAMPLES = np.array([1.0, 1.0, 2.0, 4.0])
HEAD, ID, COLUMN, VALUE = 32, 4, 8, 4  # bytes of a frame: header, a node's id, a column, a float32


class Toy:
    """Rows, losses and scores from tables; a model's scores are functions of its first value."""

    size = parameters = 2
    batch_size = 1
    together = 100

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def gradients(self, thetas: Tensor, nodes: np.ndarray, batch: int) -> tuple[Tensor, np.ndarray]:
        return self.rows[torch.from_numpy(nodes)].clone(), LOSSES[nodes].copy()

    def updates(self, theta: Tensor, nodes: np.ndarray, *_: object) -> tuple[Tensor, np.ndarray]:
        return self.gradients(theta, nodes, 0)

    def samples(self, nodes: np.ndarray) -> np.ndarray:
        return SAMPLES[nodes]

    def weighted_sum(self, rows: Tensor, weights: np.ndarray) -> Tensor:
        return ordered_sum(rows, weights.tolist())

    def evaluate(self, theta: Tensor) -> dict[str, float]:
        """Of the first value x: top_1 is 10 |x|, top_5 is 10 |x| + 5, the loss x * x."""
        x = abs(float(theta[0]))
        return {"top_1": 10 * x, "top_5": 10 * x + 5, "loss": x * x}


def play(folder: Path, rows: list[tuple[float, float]], make: Callable[..., Algorithm], steps: int = 1,
         seconds: tuple[float, ...] = (1, 2, 3, 4), **changes: Any) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl of a simulated job whose nodes take so many virtual seconds for a step."""
    nodes, adversary = np.arange(4), Adversary(np.array([3]), "rows", lambda rows: rows)
    profiles = Profiles(np.array(seconds) * 1000 / 3, np.full(4, np.inf), np.zeros(4), np.inf)
    record = Recorder(folder, "ps", HEADER)
    job = Job(**{**dict(
        seed=1, steps=steps, eval_interval=1, nodes=nodes, senders=nodes, byzantine=adversary.byzantine, f=1,
        quorum=None, deadline=None, on_nan=None, row_dtype=torch.float32, theta=torch.zeros(2),
        learner=Toy(torch.tensor(rows)), rule=make_rule("average"), averages=True, trusted=None,
        optimizer=SGD(1.0), schedule=constant, selector=Random(), recorder=record), **changes})
    hub, block = Switchboard(4, adversary, VirtualClock(profiles)).links()

    async def serve() -> None:
        await make(job, records=True).serve(hub)
        await hub.close()

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(serve())
            group.create_task(make(job, records=False).work(block))

    asyncio.run(both())
    record.close()
    return read_metrics(folder / "metrics.jsonl")


def of(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


GRADIENTS = [(1.0, 0.0), (5.0, 0.0), (3.0, 12.0), (-45.0, -16.0)]
"""The honest mean is (3, 4), of norm 5; the mean of all is (-9, -1), 13 away from it."""


def test_a_step_of_a_server(tmp_path: Path) -> None:
    first, second = of(play(tmp_path, GRADIENTS, ParameterServer, steps=2), "step")
    assert (first["step"], second["step"]) == (1, 2)
    assert first["loss"] == 3
    assert (first["honest_norm"], first["deviation"], first["influence"]) == pytest.approx((5, 13, 1 / 4))
    assert (first["rows"], first["late"]) == (4, 0)
    assert first["bytes_out"] == second["bytes_out"] == 4 * (HEAD + ID + 2 * VALUE)
    assert first["bytes_in"] == second["bytes_in"] == 4 * (HEAD + ID + COLUMN + 2 * VALUE)  # with its loss
    assert (first["clock"], second["clock"]) == pytest.approx((3, 6))  # an attacker delays nobody


def test_a_quorum_leaves_the_slowest_out(tmp_path: Path) -> None:
    """Nodes 3, 0 and 2 count; node 1, of 9 s, is late, and its bytes come all the same."""
    [line] = of(play(tmp_path, GRADIENTS, ParameterServer, seconds=(1, 9, 3, 4), quorum=3), "step")
    assert (line["rows"], line["late"], line["clock"]) == (3, 1, 3)
    assert line["bytes_in"] == 4 * (HEAD + ID + COLUMN + 2 * VALUE)
    assert line["loss"] == 3.5  # of 1 and 6
    assert (line["influence"], line["honest_norm"]) == pytest.approx((1 / 3, math.hypot(2, 6)))


def test_a_rules_influence_is_the_attackers_part_of_what_it_selects(tmp_path: Path) -> None:
    """Of 0, 9, 30 and 4 it takes 4, the attacker's, which is 9 away from the honest mean 13."""
    rows = [(0.0, 0.0), (9.0, 0.0), (30.0, 0.0), (4.0, 0.0)]
    rule = {"rule": make_rule({"multi_krum": {"m": 1}}, f=0), "averages": False, "f": 0}
    [line] = of(play(tmp_path, rows, ParameterServer, **rule), "step")
    assert (line["influence"], line["honest_norm"], line["deviation"]) == pytest.approx((1, 13, 9))


def test_a_round_of_clients(tmp_path: Path) -> None:
    """Weights 1, 1, 2 and 4: honest (8 + 4, 16) / 4 = (3, 4); of all (12 - 84, 16 - 24) / 8 = (-9, -1)."""
    updates = [(8.0, 0.0), (0.0, 0.0), (2.0, 8.0), (-21.0, -6.0)]
    make = partial(FedAvg, clients_per_round=4, overcommit=1.0, local_steps=2)
    lines = play(tmp_path, updates, make, steps=2)
    first, second = of(lines, "step")
    assert (first["step"], first["loss"], first["clients"]) == (1, 3, [0, 1, 2, 3])  # a loss counts once a client
    assert (first["honest_norm"], first["deviation"], first["influence"]) == pytest.approx((5, 13, 1 / 2))
    assert first["bytes_out"] == 4 * (HEAD + ID + 2 * VALUE)
    assert first["bytes_in"] == 4 * (HEAD + ID + 2 * COLUMN + 2 * VALUE)  # with its loss and samples
    assert (first["clock"], second["clock"]) == pytest.approx((6, 12))  # 2 local steps of 3 s, the slowest honest


def test_uniform_weights_are_one_a_client(tmp_path: Path) -> None:
    make = partial(FedAvg, clients_per_round=4, overcommit=1.0, local_steps=1, weighting="uniform")
    [line] = of(play(tmp_path, GRADIENTS, make), "step")
    assert (line["honest_norm"], line["deviation"], line["influence"]) == pytest.approx((5, 13, 1 / 4))


class Second:
    """A rule without weights: the row of node 1."""

    state: dict[str, Tensor] = {}

    def __call__(self, rows: Tensor, f: int, step: int) -> Tensor:
        return rows[1]

    def influence(self, byzantine: list[int]) -> None: ...


def test_the_first_evaluation_is_before_and_each_other_after_its_step(tmp_path: Path) -> None:
    """A rule that keeps node 1's row moves x by 5 a step."""
    lines = play(tmp_path, GRADIENTS, ParameterServer, steps=3, eval_interval=2, rule=Second(), averages=False)
    assert [(line["step"], line["top_1"], line["top_5"], line["loss"]) for line in of(lines, "evaluation")] == [
        (0, 0, 5, 0), (2, 100, 105, 100), (3, 150, 155, 225)]
    assert [line["clock"] for line in of(lines, "evaluation")] == pytest.approx([0, 6, 9])
    steps = [line["step"] for line in lines if line["event"] in ("step", "evaluation")]
    assert steps == [0, 1, 2, 2, 3, 3]


class Edge(ElasticGossip):
    """Node 0 hears node 1, node 2 nodes 0 and 1: three rows, none by node 3."""

    def exchange(self, step: int) -> Exchange:
        return Exchange.of(np.array([0, 2, 2]), np.array([1, 0, 1]))


def test_an_evaluation_of_peers(tmp_path: Path) -> None:
    """Honest models after one step are (1, 0), (5, 0) and (3, 12), their average (3, 4)."""
    models = [(-x, -y) for x, y in GRADIENTS]
    lines = play(tmp_path, models, partial(ElasticGossip, probability=0.0))
    _, after = of(lines, "evaluation")
    assert after["top_1"] == pytest.approx((10 + 50 + 30) / 3) and after["top_5"] == pytest.approx(35)
    assert after["loss"] == pytest.approx((1 + 25 + 9) / 3)
    assert after["worst"] == 10 and after["average_model"] == pytest.approx(30)
    squares = [(1 - 3) ** 2 + 4**2, (5 - 3) ** 2 + 4**2, 8**2]
    assert after["consensus_distance"] == pytest.approx(sum(squares) / 3)  # no root, no n - 1
    perf = load_perf(tmp_path / "training_perf")["perf"][1]
    assert (perf["round"], perf["worst"], perf["consensus_distance"]) == (1, 10, pytest.approx(sum(squares) / 3))


def test_the_average_model_is_no_average_of_scores(tmp_path: Path) -> None:
    """Models -2, 4 and 4 score 20, 40 and 40; their average, 2, scores 20."""
    lines = play(tmp_path, [(2.0, 0.0), (-4.0, 0.0), (-4.0, 0.0), (9.0, 0.0)], partial(ElasticGossip, probability=0.0))
    after = of(lines, "evaluation")[-1]
    assert (after["top_1"], after["average_model"]) == pytest.approx((100 / 3, 20))


def test_a_step_of_peers(tmp_path: Path) -> None:
    [line] = of(play(tmp_path, GRADIENTS, Edge, seconds=(1, 2, 3, 8)), "step")
    assert (line["step"], line["loss"], line["rows"], line["late"]) == (1, 3, 3, 0)
    assert line["bytes_in"] == line["bytes_out"] == 3 * (HEAD + ID + 2 * VALUE)
    assert line["clock"] == pytest.approx(8)  # of the peer that is furthest


def test_a_step_of_an_all_reduce(tmp_path: Path) -> None:
    """A ring moves each of 2 values of 4 nodes 3 times, as a gradient and as the mean."""
    [line] = of(play(tmp_path, GRADIENTS, AllReduce, seconds=(1, 2, 3, 8)), "step")
    assert (line["loss"], line["rows"], line["late"], line["clock"]) == (3, 4, 0, pytest.approx(8))
    assert line["bytes_in"] == line["bytes_out"] == 3 * 2 * (VALUE + VALUE)
    rows = of(play(tmp_path, GRADIENTS, AllReduce, row_dtype=torch.float16), "step")[-1]
    assert rows["bytes_out"] == 3 * 2 * (VALUE // 2 + VALUE)


class Observed:
    """What an observer gathers, and what peers send, without a transport."""

    def __init__(self, reports: Gathered, moved: dict[str, int]) -> None:
        self.nodes, self.reports, self.sent = np.array([0, 1]), reports, {}
        self.traffic = SimpleNamespace(take=lambda: moved)

    def expect(self, *_: object) -> None: ...

    def now(self) -> float:
        return 7.0

    async def gather(self, *_: object) -> Gathered:
        return self.reports

    async def send(self, channel: Any, step: int, nodes: np.ndarray, rows: Tensor, columns: Any = None) -> None:
        self.sent[channel.name] = columns


def test_what_peers_report_is_summed_and_each_in_its_column(tmp_path: Path) -> None:
    """Two blocks of one node each; then one block of two nodes, whose traffic is shared out between them."""
    columns = {"loss": [2.0, 4.0], "clock": [5.0, 3.0], "finite": [1.0, 1.0], "bytes_in": [1.0, 2.0],
               "bytes_out": [10.0, 20.0], "rows": [3.0, 4.0], "late": [5.0, 6.0]}
    reports = Gathered(np.array([0, 1]), torch.zeros(2, 0), {name: np.array(each) for name, each in columns.items()})
    link = Observed(reports, {"bytes_in": 6, "bytes_out": 10, "rows": 4, "late": 2})
    record = Recorder(tmp_path, "ps", HEADER)
    job = SimpleNamespace(nodes=np.arange(2), byzantine=np.array([]), recorder=record, on_nan=None, steps=2, seed=1,
                          eval_interval=5, theta=torch.zeros(2), learner=Toy(torch.zeros(2, 2)), trusted=None,
                          rule=None, keeper=SimpleNamespace(step=1, saved=lambda role: None, due=lambda *_: None))
    peers = AllReduce(job)
    peers.evaluates = lambda step: False
    asyncio.run(peers.serve(link))
    [line] = of(read_metrics(tmp_path / "metrics.jsonl"), "step")
    names = ("step", "loss", "clock", "bytes_in", "bytes_out", "rows", "late")
    assert [line[name] for name in names] == [2, 3, 5, 3, 30, 7, 11]

    asyncio.run(peers.tell(link, 2, torch.zeros(2, 2), np.array([2.0, 4.0]), {}))
    sent = {name: each.tolist() for name, each in link.sent["report"].items()}
    assert sent == {"loss": [2, 4], "clock": [7, 7], "finite": [1, 1], "bytes_in": [3, 3], "bytes_out": [5, 5],
                    "rows": [2, 2], "late": [1, 1]}
    line = of(read_metrics(tmp_path / "metrics.jsonl"), "step")[-1]  # the block's own
    assert [line[name] for name in names] == [2, 3, 7, 6, 10, 4, 2]


# -- scores of a model ----------------------------------------------------------------------


PROBABILITIES = torch.tensor([32.0, 16, 8, 4, 3, 1]) / 64


class Says(nn.Module):
    """The same six classes for every sample, whatever the one parameter is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return PROBABILITIES.log().expand(len(x), 6) + 0 * self.weight


def test_scores_are_percent_of_samples_and_a_mean_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five test samples in chunks of two, the last smaller; losses are log 2 (twice), log 4, log 64 and log 64 / 3."""
    monkeypatch.setattr(sys.modules[evaluate.__module__], "_CHUNK", 2)
    test, validation = torch.tensor([0, 0, 4, 5, 1]), torch.tensor([0, 0, 0, 2])
    data = Dataset(torch.zeros(6, 3), torch.arange(6), torch.zeros(5, 3), test, 6,
                   validation_x=torch.zeros(4, 3), validation_y=validation)
    scores = evaluate(FlatModel(Says(), "cross_entropy"), torch.zeros(1), data, trusted=[])
    log2 = math.log(2)
    assert scores == pytest.approx({
        "top_1": 40, "top_5": 80, "loss": (10 * log2 + math.log(64 / 3)) / 5,
        "validation_top_1": 75, "validation_top_5": 100, "validation_loss": 6 / 4 * log2}, rel=1e-6)


class Coin(nn.Module):
    """Logits w and 0, whatever the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.w.expand(len(x)), torch.zeros(len(x))], dim=1)


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_a_clients_loss_is_the_mean_over_its_local_steps(engine: str) -> None:
    """At label 0 the loss is log(1 + exp -w), its gradient -1 / (1 + exp w): with w 0 log 2 and -1/2, so that a
    step of 2 log 3 leads to w = log 3, where they are log 4/3 and -1/4."""
    data = Dataset(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), torch.zeros(1, 3), torch.zeros(1).long(), 2)
    batches = Batches(data, [np.arange(2), np.arange(2, 4)], 2, 1, Adversary(np.empty(0, np.int64)))
    learner = Learner(FlatModel(Coin(), "cross_entropy"), data, batches, engine)
    rows, losses = learner.updates(torch.zeros(1), np.arange(2), 1, 2, SGD(2 * math.log(3)), 1.0)
    assert losses == pytest.approx([math.log(8 / 3) / 2] * 2, rel=1e-6)
    assert rows.flatten().tolist() == pytest.approx([1.5 * math.log(3)] * 2, rel=1e-6)


# -- seconds and totals ---------------------------------------------------------------------


@contextmanager
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock in the recorder's place that stands still until a test moves it."""
    now = [100.0]
    monkeypatch.setattr(recorder.time, "perf_counter", lambda: now[0])
    yield now


def test_phases_share_out_the_seconds_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block inside another interrupts it; what is in none counts nowhere; totals add up."""
    with ticking(monkeypatch) as now, Recorder(tmp_path, "ps", HEADER) as record:
        with record.phase("wait"):
            now[0] += 1
            with record.phase("compute"):
                now[0] += 4
            now[0] += 2
        now[0] += 8
        record.step(1, bytes_in=7, bytes_out=3)
        with record.phase("aggregate"):
            now[0] += 16
        with record.phase("communicate"):
            now[0] += 32
        with record.phase("wait"):
            now[0] += 64
        record.step(2, bytes_in=70, bytes_out=30)
        with record.phase("evaluate"):
            now[0] += 128
        record.evaluation(2, 9.0, 50.0, 60.0, 1.5)
        record.step(3)
    first, second, third = of(read_metrics(tmp_path / "metrics.jsonl"), "step")
    phases = ("compute", "wait", "aggregate", "communicate", "evaluate")
    assert [[line[name] for name in phases] for line in (first, second, third)] == [
        [4, 3, 0, 0, 0], [0, 64, 16, 32, 0], [0, 0, 0, 0, 128]]
    perf = load_perf(tmp_path / "training_perf")["perf"][2]
    assert perf["phases"] == {"compute": 4, "wait": 67, "aggregate": 16, "communicate": 32, "evaluate": 0}
    assert (perf["bytes_in"], perf["bytes_out"], perf["wall"], perf["clock"]) == (77, 33, 255, 9)
    assert (perf["top_1: "], perf["top_5: "], perf["loss"]) == (50, 60, 1.5)


def test_a_resumed_run_goes_on_from_its_totals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ticking(monkeypatch) as now:
        with Recorder(tmp_path, "ps", HEADER) as record:
            now[0] += 10
            record.step(1, bytes_in=7, bytes_out=3)
            state = record.state()
        now[0] += 1000  # it was down
        with Recorder(tmp_path, "ps", HEADER) as record:
            record.resume(1, state)
            now[0] += 5
            record.step(2, bytes_in=1, bytes_out=2)
            record.evaluation(2, 9.0, 50.0, 60.0, 1.5)
    perf = load_perf(tmp_path / "training_perf")["perf"][2]
    assert (perf["bytes_in"], perf["bytes_out"], perf["wall"]) == (8, 5, 15)
