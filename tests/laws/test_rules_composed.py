"""Every rule of the registry behind every pre-aggregator, and as the base of ctma: edges and bounds."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from kuiper import aggregation, registry
from kuiper.aggregation import Rule, make
from kuiper.errors import SpecError, TooManyByzantine
from tests.laws.rules import normal

PRES: dict[str, Any] = {
    "alone": (), "nnm": "nnm", "arc": "arc", "clip": {"clip": {"c": 1e6}}, "bucketing": "bucketing",
    "two a bucket": {"bucketing": {"s": 2}}, "bucketing, nnm": ["bucketing", "nnm"],
}  # fmt: skip
NO_MEAN = {"centered_clipping", "sign_majority"}
"""Of identical rows they give something else."""
BREAKS = {"average", "average_finite"}

every_rule = pytest.mark.parametrize("name", aggregation.names())


def _composed(name: str, f: int) -> list[tuple[str, Rule]]:
    around = [("ctma", make({"ctma": {"base": name}}, f=f))] if name != "ctma" else []
    known = registry.table("aggregator")[name]
    return [(words, make(name, f=f, pre=pre)) for words, pre in PRES.items()
            if not (known.get("_trusts_") and "bucket" in words)] + around


def _rows(rule: Rule, d: int, seed: int = 0) -> Tensor:
    n = registry.least_rows(rule.pre_confs, rule.conf, rule.f)
    return normal(seed, n, d, dtype=torch.float32)


@every_rule
def test_edges_of_compositions(name: str) -> None:
    """Fewest rows: one column, zeros, equal rows, doubled rows, norms of 1e30 and of 1e-44."""
    for words, rule in _composed(name, f=1):
        rows = _rows(rule, 6)
        n = len(rows)
        for shape in ((n, 1), (n + 1, 5)):
            assert torch.equal(rule.copy()(torch.zeros(shape)), torch.zeros(shape[1])), words
        same = normal(1, 6, dtype=torch.float32)
        if name not in NO_MEAN or words == "ctma":
            torch.testing.assert_close(rule.copy()(same.repeat(n, 1)), same, rtol=1e-6, atol=0)
        for other in (rows[:, :1], rows.repeat(2, 1), 1e30 * rows, 1e-37 * rows, 1e-44 * rows):
            assert rule.copy()(other).isfinite().all(), words


@every_rule
def test_compositions_keep_dtype_and_rows(name: str) -> None:
    """Rows of any float dtype and layout give what the same numbers give in float64, rounded."""
    for words, rule in _composed(name, f=1):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            rows = _rows(rule, 9).to(dtype)
            kept = rows.clone()
            result = rule.copy()(rows, step=1)
            assert torch.equal(rows, kept) and result.dtype == dtype
            assert torch.equal(rule.copy()(rows.T.contiguous().T, step=1), result)
            exact = rule.copy()(rows.double(), step=1)
            slack = 4 * torch.finfo(dtype).eps * float(rows.abs().max())
            torch.testing.assert_close(result.double(), exact, rtol=0, atol=slack, msg=words)


@every_rule
def test_remote_rows_in_compositions(name: str) -> None:
    """f rows that agree, far away or not finite, leave every composition of a robust rule bounded."""
    if name in BREAKS:
        return
    for words, rule in _composed(name, f=2):
        honest = _rows(rule, 20)
        for value in (1e6, -1e30, math.inf, math.nan):
            rows = honest.clone()
            rows[-2:] = value
            result = rule.copy()(rows)
            assert result.isfinite().all() and result.norm() <= 4 * honest.norm(dim=1).max(), (words, value)


@every_rule
def test_a_composition_is_defined_where_the_yaml_says_so(name: str) -> None:
    """No kernel refuses what the bounds of the yamls allow, and what they refuse is refused by name."""
    for words, rule in _composed(name, f=0):
        for n, f in product(range(1, 15), range(6)):
            rows, other = normal(n, n, 3), rule.copy()
            allowed = not registry.refusal(rule.pre_confs, rule.conf, n, f)[0]
            assert allowed == (n >= registry.least_rows(rule.pre_confs, rule.conf, f)), (words, n, f)
            if allowed:
                assert other(rows, f).shape == (3,)
            else:
                with pytest.raises(TooManyByzantine, match=f"f = {f}"):
                    other(rows, f)


@pytest.mark.parametrize("spec", ["condense", "fltrust", {"monna": {"reference": 2}},
                                  {"ctma": {"base": {"ctma": {"base": "monna"}}}}], ids=str)
def test_buckets_hide_the_row_that_a_rule_trusts(spec: Any) -> None:
    for pre in ("bucketing", ["nnm", {"bucketing": {"s": 1}}]):
        with pytest.raises(SpecError, match=r" trusts row [02], and behind bucketing") as caught:
            make(spec, f=1, pre=pre)
        assert "nnm" in caught.value.remedy


@pytest.mark.parametrize("group", ["aggregator", "pre_aggregator"])
def test_functions_refuse_what_their_yaml_refuses(group: str) -> None:
    """A bound is in the yaml, for `check`, and in the function, which stands by itself: they are the same."""
    for name in registry.table(group):
        conf = registry.chosen(group, name)
        function = getattr(aggregation, conf["_target_"].rpartition(".")[2])
        parameters = {key: value for key, value in conf.items() if not key.startswith("_")}
        if "base" in parameters:
            parameters["base"] = make("geometric_median", f=1)
        for n, f in product(range(1, 15), range(6)):
            try:
                function(normal(n, n, 3), f, **parameters)
            except TooManyByzantine:
                assert n < registry.least(conf, f), (name, n, f)
            else:
                assert n >= registry.least(conf, f), (name, n, f)
