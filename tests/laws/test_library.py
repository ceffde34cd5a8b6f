"""Arguments of every rule and attack as a library: accepted with one meaning, or refused with what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kuiper import aggregation, attacks, registry
from kuiper.errors import SpecError

from tests.laws.rules import RULES, each, normal

N, F, D = 23, 2, 6
ROWS = normal(0, N, D)
REFUSED = {
    "int64": (ROWS.mul(9).long(), "int64"), "bool": (ROWS > 0, "bool"), "complex": (ROWS + 0j, "complex"),
    "numpy": (ROWS.numpy(), "numpy"), "list": (ROWS.tolist(), "list"), "tensors": (list(ROWS), "list"),
    "none": (None, "nothing"), "one": (ROWS[0], "shape"), "three": (ROWS[None], "shape"),
    "scalar": (ROWS[0, 0], "shape"),
    "sparse": (ROWS.to_sparse(), "dense"), "meta": (ROWS.to("meta"), "meta"),
    "float8": (ROWS.to(torch.float8_e5m2), "float8"),
}  # fmt: skip
PUBLIC = [name for name in aggregation.__all__ if name not in ("Rule", "make", "names", "pre_names", "upper_bound")]
ATTACKS = [name for name in attacks.names() if registry.table("attack")[name]["_acts_on_"] in
           ("gather", "rows", "neighbours")]


def attack_of(name: str, n: int = N, f: int = F, **parameters) -> attacks.Attack:
    return attacks.make({name: parameters}, n, f, aggregation.make("median", f=f))


def function(name: str):
    parameters = {"base": aggregation.median} if name == "ctma" else {}
    parameters |= {"generator": np.random.default_rng(0)} if name in ("dnc", "bucketing") else {}
    return lambda rows, f: getattr(aggregation, name)(rows, f, **parameters)


@pytest.mark.parametrize("kind", REFUSED)
def test_rows_of_another_kind_are_refused_by_every_rule_and_attack(kind: str) -> None:
    rows, said = REFUSED[kind]
    calls = {row.name: row.rule(F) for row in RULES}
    calls |= {name: lambda rows, name=name: function(name)(rows, F) for name in PUBLIC}
    calls |= {f"attack {name}": attack_of(name) for name in ATTACKS}
    for name, call in calls.items():
        with pytest.raises(SpecError, match=said) as error:
            call(rows)
        assert error.value.remedy, name


@each()
def test_rows_that_require_a_gradient_count_by_their_values(row) -> None:
    rows = ROWS.clone().requires_grad_()
    result = row.rule(F)(rows)
    assert not result.requires_grad and torch.equal(result, row.rule(F)(ROWS))


@pytest.mark.parametrize("name", PUBLIC)
def test_functions_take_rows_that_require_a_gradient_and_whole_f(name: str) -> None:
    expected = function(name)(ROWS, F)
    for f in (F, np.int64(F), float(F), torch.tensor(F)):
        result = function(name)(ROWS.clone().requires_grad_(), f)
        assert not result.requires_grad and torch.equal(result, expected)


@each()
def test_any_strides_any_float_type_and_no_entries(row) -> None:
    rule, turned = row.rule(F), ROWS.t().contiguous().t()
    assert not turned.is_contiguous() and torch.equal(rule(turned, step=1), row.rule(F)(ROWS, step=1))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert row.rule(F)(ROWS.to(dtype)).dtype == dtype
    assert row.rule(F)(ROWS[:, :0]).shape == (0,)
    with pytest.raises(SpecError, match="0 reach it|needs"):
        row.rule(F)(ROWS[:0])


@pytest.mark.parametrize(
    "f", [True, np.True_, torch.tensor(True), 1.5, float("nan"), float("inf"), "2", [2], -1, -1.0, 2j])
def test_f_is_a_whole_number(f) -> None:
    for name in ("average", "krum", {"ctma": {"base": "median"}}):
        with pytest.raises(SpecError, match="f "):
            aggregation.make(name, f=f)
        with pytest.raises(SpecError, match="f "):
            aggregation.make(name, f=F)(ROWS, f=f)
    with pytest.raises(SpecError, match="f "):
        aggregation.median(ROWS, f)
    with pytest.raises(SpecError, match="f "):
        attacks.make("ipm", n=N, f=f)


def test_f_is_needed_where_the_bound_of_a_part_has_it() -> None:
    free = {"average", "average_finite"}
    for name in aggregation.names():
        if name in free:
            assert aggregation.make(name).f == 0
            continue
        with pytest.raises(SpecError, match=r"needs f") as error:
            aggregation.make(name)
        assert "f=1" in error.value.remedy
    with pytest.raises(SpecError, match="nnm needs f"):
        aggregation.make("average", pre=["bucketing", "nnm"])
    assert aggregation.make("average", pre="clip").f == 0
    assert aggregation.make("krum", f=5.0).f == 5


@pytest.mark.parametrize(
    ("make", "said", "remedy"),
    [(lambda: aggregation.make("multi_crum", f=1), "multi_crum", "'multi_krum'"),
     (lambda: aggregation.make({"multi_krum": {"M": 2}}, f=1), "'M'", "m"),
     (lambda: aggregation.make({"multi_krum": {"varient": "paper"}}, f=1), "varient", "'variant'"),
     (lambda: aggregation.make({"multi_krum": {"variant": "papr"}}, f=1), "papr", "'paper'"),
     (lambda: aggregation.make({"multi_krum": {"m": 2.5}}, f=1), "2.5", "default"),
     (lambda: aggregation.make({"multi_krum": {"m": 0}}, f=1), "at least 1", "1"),
     (lambda: aggregation.make({"condense": {"p": 1.5}}, f=1), "from 0 to 1", "1"),
     (lambda: aggregation.make({"average": {"m": 1}}), "no parameter", "none"),
     (lambda: aggregation.make({"ctma": {"base": "medan"}}, f=1), "medan", "'median'"),
     (lambda: aggregation.make("median", f=1, pre="nmm"), "nmm", "'nnm'"),
     (lambda: attacks.make("aliee", n=5, f=1), "aliee", "'alie'"),
     (lambda: attacks.make({"ipm": {"epps": 1}}, n=5, f=1), "epps", "'eps'"),
     (lambda: attacks.make({"ipm": {"eps": "much"}}, n=5, f=1), "much", "default"),
     (lambda: attacks.make({"ipm": {"eps": float("nan")}}, n=5, f=1), "nan", "default")],
)  # fmt: skip
def test_names_and_values_are_refused_with_the_nearest(make, said: str, remedy: str) -> None:
    with pytest.raises(SpecError) as error:
        make()
    assert said in error.value.message and remedy in error.value.remedy


@pytest.mark.parametrize(("n", "f"), [(5, 5), (5, 6), (0, 0), (-1, 0), (5.5, 1), (True, 0), ("5", 1)])
def test_attackers_are_fewer_than_nodes(n, f) -> None:
    with pytest.raises(SpecError, match="n|f"):
        attacks.make("ipm", n=n, f=f)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_says_that_it_was_made_for_another_number_of_rows(name: str) -> None:
    attack = attack_of(name)
    for rows in (ROWS, ROWS[: N - F - 1], ROWS[:0]):
        with pytest.raises(SpecError, match=f"n = {N} nodes of which f = {F} attack, {N - F} honest") as error:
            attack(rows)
        assert not len(rows) or f"n={len(rows) + F}" in error.value.remedy
    honest = ROWS[: N - F]
    expected = attack_of(name)(honest, step=1)
    assert expected.shape == (F, D)
    again = attacks.make(name, np.int32(N), float(F), aggregation.make("median", f=F))
    torch.testing.assert_close(again(honest.clone().requires_grad_(), step=1), expected, rtol=0, atol=0, equal_nan=True)


def test_own_rows_are_one_for_each_attacker() -> None:
    for own in (ROWS[:1], ROWS[:F, :2], ROWS[0], ROWS[:F].long(), ROWS[:F].tolist()):
        with pytest.raises(SpecError, match="own"):
            attack_of("sign_flip")(ROWS[: N - F], own)
    for own in (None, ROWS[:F], ROWS[:F].expand(3, F, D), ROWS[:F].expand(4, F, D).transpose(0, 1).long()):
        with pytest.raises(SpecError, match="own"):
            attack_of("alie", knowledge="own")(None, own)


def test_influence_is_of_rows_that_are_there_each_once() -> None:
    rule = aggregation.make("average", f=1)
    rule(torch.ones(4, 3))
    assert rule.influence([2, 2, 3]) == pytest.approx(0.5)
    for row in (4, -1):
        with pytest.raises(SpecError, match=f"had 4 rows, and there is no row {row}"):
            rule.influence([row])
