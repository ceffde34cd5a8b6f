"""A run that diverges says so at the first step where it does, in every family; and no other run does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kuiper.aggregation import make
from kuiper.algorithms.federated import FedAvg
from kuiper.algorithms.gossip import ElasticGossip, GossipingSGD
from kuiper.algorithms.synchronous import AllReduce, ParameterServer
from kuiper.attacks.adversary import Adversary
from kuiper.errors import JobFailed
from kuiper.optim import SGD
from kuiper.record import Recorder, load_perf
from kuiper.record.metrics import read_metrics
from tests.laws.test_algorithms import STEPS, Stage
from tests.unit.test_record import HEADER

FEDAVG = partial(FedAvg, clients_per_round=4, overcommit=1.0, local_steps=2)
FAMILIES = {"all_reduce": AllReduce, "parameter_server": ParameterServer, "fedavg": FEDAVG,
            "elastic_gossip": ElasticGossip, "gossiping_sgd": GossipingSGD}
Faults = dict[tuple[int, int], tuple[float, float]]


@dataclass
class Watched(Stage):
    """A job of four nodes whose rank 0 looks for divergence.

    Attributes:
        faults: (node, batch) -> (its loss, what its row is multiplied with).
    """

    on_divergence: str = "go_on"
    faults: Faults | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.job.recorder.close()
        recorder = Recorder(self.folder, "ps", HEADER, self.on_divergence)
        self.job = self.job.__class__(**{**vars(self.job), "recorder": recorder, **self.changes})
        for name in ("gradients", "updates"):
            setattr(self.learner, name, partial(self._faulty, getattr(self.learner, name)))

    def _faulty(self, compute: Callable, theta: Tensor, nodes: np.ndarray, batch: int, *more: object) -> tuple:
        rows, losses = compute(theta, nodes, batch, *more)
        for (node, at), (loss, factor) in (self.faults or {}).items():
            if at == batch and node in nodes:
                index = nodes.tolist().index(node)
                losses[index] = loss
                rows[index] *= factor
        return rows, losses

    def diverged(self) -> list[tuple[int, str]]:
        """Step and reason of each event; all that marks a run agrees with it."""
        lines = read_metrics(self.folder / "metrics.jsonl")
        found = [(line["step"], line["reason"]) for line in lines if line["event"] == "diverged"]
        step = found[0][0] if found else None
        assert load_perf(self.folder / "training_perf")["diverged"] == step
        after = lines.index(next((line for line in lines if line["event"] == "diverged"), lines[-1])) + 1
        assert all(line["diverged"] == step for line in lines[after:] if line["event"] in ("step", "evaluation"))
        return found


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., Watched]:
    return partial(Watched, tmp_path, 4)


@pytest.mark.parametrize("lr", [1e3, 1e38], ids=["huge", "not finite"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_step_is_named_in_every_family(watched: Callable[..., Watched], family: str, lr: float) -> None:
    here = watched(changes={"optimizer": SGD(lr), "steps": 30})
    here.play(FAMILIES[family])
    [(step, reason)] = here.diverged()
    lines = read_metrics(here.folder / "metrics.jsonl")
    first = lines[0]["loss"]  # of the initial model
    losses = [(line["step"], line["loss"]) for line in lines if line["event"] in ("step", "evaluation")]
    bad = [at for at, loss in losses if loss is None or loss > 1000 * max(1, first)]
    assert step == bad[0] and "loss is" in reason or step < bad[0] and "model" in reason


@pytest.mark.parametrize("family", FAMILIES)
def test_stop_fails_the_job_with_step_and_remedy(watched: Callable[..., Watched], family: str) -> None:
    here = watched(on_divergence="stop", changes={"optimizer": SGD(1e38)})
    with pytest.raises(JobFailed, match=r"diverged at step \d: ") as failed:
        here.play(FAMILIES[family])
    assert "optimizer.lr" in failed.value.remedy and failed.value.exit_code == 100
    assert f"diverged at step {here.diverged()[0][0]}: " in failed.value.message


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_byzantine_node_says_of_itself_is_no_divergence(watched: Callable[..., Watched], family: str) -> None:
    """Nor is it the mean over all: its loss is in no line."""
    faults = {(2, batch): (loss, 1.0) for batch, loss in enumerate([np.nan, np.inf, 1e30, np.nan], 1)}
    here = watched(adversary=Adversary(np.array([2]), "rows", lambda rows: rows), faults=faults)
    here.play(FAMILIES[family])
    assert here.diverged() == [] and all(line["loss"] < 10 for line in here.steps())


NAN_LOSS, INF_ROW, NAN_ROW = (np.nan, 1.0), (1.0, np.inf), (1.0, np.nan)


@pytest.mark.parametrize(("family", "faults", "changes", "expected"), [
    ("parameter_server", {(1, 3): NAN_LOSS}, {}, (3, "the training loss is nan")),
    ("all_reduce", {(1, 3): (np.inf, 1.0)}, {}, (3, "the training loss is inf")),
    ("elastic_gossip", {(1, 3): (1e30, 1.0)}, {}, (3, "the training loss is 2.5e+29, more than 1000 times")),
    ("parameter_server", {(1, 3): INF_ROW}, {}, (3, "the model has values")),
    ("fedavg", {(1, 5): NAN_ROW}, {}, (3, "the model has values")),  # local steps 5 and 6 are round 3
    ("all_reduce", {(1, 3): (1.0, 1e30)}, {"row_dtype": torch.float16}, (3, "the model of node 0 and 3 more")),
    ("parameter_server", {(1, 3): (1.0, 1e9)}, {"row_dtype": torch.float16}, (3, "the model has values")),
    # one peer that nobody evaluates or hears, at the last step
    ("elastic_gossip", {(1, STEPS): NAN_ROW}, {}, (STEPS, "the model of node 1 has values")),
    # on_nan: what is dropped spoils nothing
    ("parameter_server", {(1, 3): NAN_LOSS}, {"on_nan": "drop"}, None),
    ("fedavg", {(1, 5): NAN_ROW}, {"on_nan": "drop"}, None),
    ("all_reduce", {(1, 3): NAN_LOSS}, {"on_nan": "drop"}, None),
    ("gossiping_sgd", {(1, 3): NAN_LOSS}, {"on_nan": "drop"}, None),
])  # fmt: skip
def test_one_node_can_make_a_run_diverge(
    watched: Callable[..., Watched], family: str, faults: Faults, changes: dict, expected: tuple[int, str] | None
) -> None:
    make = FAMILIES[family]
    if family == "elastic_gossip":
        make = partial(ElasticGossip, probability=0.0, evaluated_peers=1)
    here = watched(faults=faults, changes=changes)
    here.play(make)
    told = [(step, reason[: len(expected[1])]) for step, reason in here.diverged()] if expected else here.diverged()
    assert told == ([expected] if expected else [])


def test_dropping_every_honest_row_is_no_way_out(watched: Callable[..., Watched]) -> None:
    """Only the attacker's row is left, and the honest nodes' loss is nan."""
    faults = {(node, 3): NAN_LOSS for node in (0, 1, 3)}
    here = watched(adversary=Adversary(np.array([2]), "rows", lambda rows: rows), faults=faults,
                   changes={"on_nan": "drop"})
    here.play(ParameterServer)
    assert here.diverged() == [(3, "the training loss is nan")]


def test_a_rule_that_refuses_the_rows_comes_after_the_word(watched: Callable[..., Watched]) -> None:
    here = watched(faults={(node, 2): (np.nan, np.nan) for node in range(4)},
                   changes={"rule": make("multi_krum", f=0), "averages": False})
    with pytest.raises(JobFailed, match="not finite"):
        here.play(ParameterServer)
    assert here.diverged() == [(2, "the training loss is nan")]


def test_a_model_of_a_byzantine_peer_does_not_count(watched: Callable[..., Watched]) -> None:
    here = watched(adversary=Adversary(np.array([1]), "rows", lambda rows: rows), faults={(1, 2): NAN_ROW})
    here.play(partial(ElasticGossip, probability=0.0))
    assert here.diverged() == []


def test_an_honest_run_says_nothing(watched: Callable[..., Watched]) -> None:
    here = watched()
    here.play(ElasticGossip)
    assert here.diverged() == [] and all("diverged" not in line for line in here.steps())
