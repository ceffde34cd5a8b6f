"""One table of attacks: known answers, and the laws that all obey."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from kuiper import aggregation, attacks, registry
from kuiper.attacks import (
    alie,
    corrupt_inputs,
    dissensus,
    drop,
    inf,
    ipm,
    label_flip,
    mimic,
    min_max,
    min_sum,
    nan,
    random_row,
    reverse,
    sign_flip,
    zero,
)
from kuiper.attacks.adversary import Adversary
from kuiper.attacks.alie import largest_hidden_z
from kuiper.attacks.optimal import maximum
from kuiper.errors import JobFailed, SpecError


@dataclass(frozen=True)
class Row:
    """An attack as a spec writes it, and what it acts on."""

    name: str
    acts_on: str
    spec: Any = None

    def make(self, n: int, f: int) -> attacks.Attack:
        return attacks.make(self.spec or self.name, n, f, aggregation.make("trimmed_mean", f=f))


ATTACKS = [
    Row("none", "none"),
    Row("crash", "nothing_sent"),
    Row("label_flip", "labels"),
    Row("corrupt_inputs", "inputs"),
    *(Row(name, "rows") for name in ("sign_flip", "reverse", "random", "drop", "nan", "inf", "zero")),
    Row("random-gaussian", "rows", {"random": {"distribution": "gaussian"}}),
    *(Row(name, "gather") for name in ("ipm", "empire", "mimic", "min_max", "min_sum")),
    Row("alie", "gather", {"alie": {"z": 1.5}}),
    Row("little", "gather", {"little": {"z": 1.5}}),
    Row("mimic-warm-up", "gather", {"mimic": {"warm_up": 3}}),
    Row("min_max-unit", "gather", {"min_max": {"direction": "unit"}}),
    Row("min_sum-sign", "gather", {"min_sum": {"direction": "sign"}}),
    Row("optimal_ipm", "gather"),
    Row("optimal_alie", "gather"),
    Row("dissensus", "neighbours"),
]
SENDING = [row for row in ATTACKS if row.acts_on in ("rows", "gather", "neighbours")]


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("row", SENDING, ids=lambda row: row.name)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_every_attack_that_sends(row: Row, dtype: torch.dtype) -> None:
    """Shape, dtype, honest rows untouched; the same again for the same step; from any memory layout."""
    honest, own = normal(0, 7, 1001, dtype=dtype), normal(1, 4, 1001, dtype=dtype)
    kept = honest.clone(), own.clone()
    sent = row.make(11, 4)(honest, own, step=3)
    assert sent.shape == (4, 1001) and sent.dtype == dtype
    assert torch.equal(honest, kept[0]) and torch.equal(own, kept[1])
    again = row.make(11, 4)(honest.T.contiguous().T, own, step=3)
    assert torch.equal(again.nan_to_num(), sent.nan_to_num())


def test_draws_are_of_the_node_and_the_step() -> None:
    rows, nodes = torch.ones(4, 50), np.arange(4)
    adversary = Adversary(np.array([1, 2, 3]), "rows", drop, seed=5)
    together = adversary.leaving(nodes, rows, 7)
    assert torch.equal(adversary.leaving(nodes[2:], rows[2:], 7), together[2:])
    assert torch.equal(together[0], rows[0]) and not torch.equal(together[1], together[2])
    assert not torch.equal(adversary.leaving(nodes, rows, 8), together)


ANCHORS = [(17, 8, 1.22064), (25, 5, 0.25335), (25, 11, 1.06757), (17, 4, 0.29338)]


@pytest.mark.parametrize(("n", "f", "z"), ANCHORS)
def test_alie_takes_z_from_n_and_f(n: int, f: int, z: float) -> None:
    assert largest_hidden_z(n, f) == pytest.approx(z, abs=5e-6)
    honest = normal(n, n - f, 30)
    expected = honest.mean(0) - largest_hidden_z(n, f) * honest.std(0, correction=1)
    torch.testing.assert_close(alie(honest, f), expected.expand(f, -1))


def test_alie_known_answers() -> None:
    honest = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert alie(honest, 1, z=2.0)[0].tolist() == pytest.approx([2 - 2 * 2**0.5, 0])
    assert torch.equal(alie(honest[:1], 3, z=2.0), honest[:1].expand(3, -1))  # one honest row: sigma = 0
    with pytest.warns(UserWarning, match="z = 0 <= 0 at n = 20, f = 2"):
        assert largest_hidden_z(20, 2) == 0
    for n, f in ((2, 1), (1, 0), (4, 3)):
        with pytest.raises(SpecError, match=f"n = {n}, f = {f}"):
            largest_hidden_z(n, f)


def test_own_attacks_known_answers() -> None:
    rows = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
    assert ipm(rows, 2, eps=10).tolist() == [[-20.0, -10.0]] * 2
    assert sign_flip(rows).tolist() == [[-1.0, 2.0], [-3.0, -4.0]]
    assert reverse(rows, c=3).tolist() == [[-3.0, 6.0], [-9.0, -12.0]]
    assert label_flip(torch.tensor([[0, 9], [3, 4]]), 10).tolist() == [[9, 0], [6, 5]]
    assert all(value.isnan().all() for value in nan(rows)) and zero(rows).tolist() == [[0, 0]] * 2
    assert (inf(rows) == math.inf).all()
    dropped = drop(torch.ones(1, 10_000), p=0.3)
    assert dropped.unique().tolist() == [0, 1] and dropped.mean() == pytest.approx(0.7, abs=0.02)
    assert random_row(dropped).min() >= 0 and random_row(dropped).mean() == pytest.approx(0.5, abs=0.02)
    noise = random_row(dropped, distribution="gaussian", scale=3.0)
    assert (noise.mean(), noise.std()) == (pytest.approx(0, abs=0.1), pytest.approx(3, abs=0.1))


def test_what_byzantine_servers_publish() -> None:
    """The attackers' own rows are the models that they would publish."""
    models, own = normal(0, 5, 100), normal(1, 2, 100)
    assert torch.equal(attacks.make("reverse", 7, 2)(models, own), -100 * own)
    dropped = attacks.make("drop", 7, 2)(models, own)
    assert torch.equal(dropped, own * (dropped != 0)) and 20 < (dropped == 0).sum() < 100
    noise = attacks.make("random", 7, 2)(models, own)
    assert noise.min() >= 0 and noise.max() < 1 and not torch.equal(noise[0], noise[1])


def test_corrupt_inputs_leaves_the_samples_of_each_node_in_another_order() -> None:
    inputs = torch.arange(24.0).view(2, 6, 2)
    corrupted = corrupt_inputs(inputs) / -1e12
    assert not torch.equal(corrupted, inputs)
    torch.testing.assert_close(corrupted.sort(1).values, inputs)


def test_mimic_finds_the_row_that_sticks_out() -> None:
    assert torch.equal(mimic(torch.eye(3), 2, target=4), torch.eye(3)[[1, 1]])
    state: dict[str, torch.Tensor] = {}
    for step in range(6):
        rows = 0.1 * normal(step, 8, 20)
        rows[5, 3] += 4
        sent = mimic(rows, 1, warm_up=4, state=state)
    assert torch.equal(sent[0], rows[5]) and state["calls"] == 4


@pytest.mark.parametrize("direction", ["std", "unit", "sign"])
def test_min_max_and_min_sum_go_to_the_edge(direction: str) -> None:
    honest = normal(0, 9, 30) + 1
    squared = (honest[:, None] - honest).square().sum(2)
    far = (min_max(honest, 1, direction=direction)[0] - honest).square().sum(1)
    assert far.max() == pytest.approx(float(squared.max()))
    total = (min_sum(honest, 1, direction=direction)[0] - honest).square().sum(1)
    assert total.sum() == pytest.approx(float(squared.sum(1).max()))


def test_dissensus_undoes_the_pull_of_honest_neighbours() -> None:
    honest = normal(0, 4, 6)
    sent = dissensus(honest, 2)
    pull = torch.cat([honest[1:], sent]) - honest[0]
    torch.testing.assert_close(pull.sum(0), torch.zeros(6, dtype=torch.float64))


SLOW = {"auto_gm", "clipped_clustering", "ctma", "geometric_median", "mda", "mva", "smea"}
"""Rules that take long: fewer calls of them."""


@pytest.mark.parametrize("spec", aggregation.names())
def test_optimal_attacks_reach_the_optimum_of_a_dense_grid(spec: str) -> None:
    """Of both signs, for every rule, which keeps its state."""
    points, shapes = (201, [(11, 3, 8)]) if spec in SLOW else (801, [(11, 3, 40), (15, 3, 8)])
    for seed, (n, f, d) in enumerate(shapes):
        honest, rule = normal(seed, n - f, d) + 0.3, aggregation.make(spec, f=f)
        if n < registry.least(rule.conf, f):
            continue
        rule(normal(seed + 9, n, d))
        kept, mu, sigma = dict(rule.state), honest.mean(0), honest.std(0)

        def moved(row: torch.Tensor, honest: Any = honest, rule: Any = rule, f: int = f) -> float:
            rows = torch.cat([honest, row.expand(f, -1)])
            return float((rule.copy()(rows) - honest.mean(0)).norm())

        factors = np.linspace(-10, 10, points)
        optimum = {"optimal_ipm": max(moved(-factor * mu) for factor in factors),
                   "optimal_alie": max(moved(mu - factor * sigma) for factor in factors)}
        for name, best in optimum.items():
            assert moved(attacks.make(name, n, f, rule=rule)(honest)[0]) >= 0.98 * best
        assert all(rule.state[key] is kept[key] for key in kept)


@pytest.mark.parametrize("evaluations", [8, 64, 257])
def test_the_search_is_bounded_and_climbs_to_the_edge_of_a_cliff(evaluations: int) -> None:
    asked: list[float] = []
    found = maximum(lambda factor: asked.append(factor) or (-factor if -3.21 < factor < 0 else 1.0),
                    10.0, evaluations, 1.0)
    assert len(asked) <= evaluations and all(abs(factor) <= 10 for factor in asked)
    assert evaluations < 64 or -3.21 < found < 0.99 * -3.21


KNOWING = [name for name, conf in registry.table("attack").items() if "knowledge" in conf]


@pytest.mark.parametrize("name", KNOWING)
def test_an_attacker_that_knows_only_its_own_batches(name: str) -> None:
    """Each makes its row of its own; the others' are not looked at, nor is what the rule keeps."""
    own, honest, rule = normal(0, 3, 8, 30), normal(1, 8, 30), aggregation.make("centered_clipping", f=3)
    attack = attacks.make({name: {"knowledge": "own"}}, 11, 3, rule)
    sent = attack(honest, own)
    rule(normal(2, 11, 30))
    assert torch.equal(attack(normal(3, 8, 30), own), sent) and not torch.equal(sent[0], sent[1])
    omniscient = attacks.make(name, 11, 3, aggregation.make("centered_clipping", f=3))
    torch.testing.assert_close(torch.stack([omniscient(each)[0] for each in own]), sent)
    with pytest.raises(SpecError, match="needs rows"):
        attack(honest)


@pytest.mark.parametrize("name", ["ipm", "alie", "mimic", "min_max", "optimal_ipm"])
def test_no_honest_row_is_refused(name: str) -> None:
    parameters = {"rule": aggregation.make("median", f=0)} if name == "optimal_ipm" else {}
    with pytest.raises(JobFailed, match="no honest row"):
        getattr(attacks, name)(torch.zeros(0, 3), 2, **parameters)


def test_every_yaml_is_in_the_table() -> None:
    assert set(attacks.names()) <= {row.name for row in ATTACKS}
    for row in ATTACKS:
        conf = registry.table("attack")[registry.split(row.spec or row.name)[0]]
        assert conf["_acts_on_"] == row.acts_on
        given = registry.of_target(conf)
        if "_target_" not in conf:
            assert not given
            continue
        module, _, name = conf["_target_"].rpartition(".")
        parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
        taken = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert given.keys() == taken.keys() - {"generator", "state", "rule", "n"}
        if name == conf["_name_"]:
            assert {key: taken[key] for key in given} == given
        assert not any(isinstance(value, float) and math.isnan(value) for value in given.values())
