"""Every law is run over every row of the table of rules that claims it."""

from __future__ import annotations

import inspect
import math
from importlib import import_module
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kuiper import aggregation, registry
from kuiper.aggregation.kernels import team
from kuiper.errors import JobFailed, SpecError, TooManyByzantine
from tests.laws.rules import RULES, Row, attacked, each, in_hull, normal, shuffled

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
quick = settings(max_examples=12, deadline=None, derandomize=True, database=None)
sizes = st.tuples(st.integers(0, 10**6), st.integers(5, 12), st.integers(1, 40))


@each()
@quick
@given(size=sizes, data=st.data())
def test_equivariance(row: Row, size: tuple[int, int, int], data: st.DataObject) -> None:
    seed, n, d = size
    n = max(n, row.least(0))
    f = data.draw(st.integers(0, row.most_byzantine(n)))
    rows = normal(seed, n, d)
    expected = row(rows, f)
    if row.translation:
        shift = 100 * normal(seed + 1, d)
        _close(row, row(rows + shift, f), expected + shift, rows + shift)
    for scale in (1e-20, 3.7, 1e20) * row.scale + (-3.7,) * row.odd:
        _close(row, row(rows * scale, f) / scale, expected, rows)
    if row.orthogonal:
        turn = torch.linalg.qr(normal(seed + 2, d, d)).Q
        _close(row, row(rows @ turn, f), expected @ turn, rows * d**0.5)


@each("permutation")
@quick
@given(size=sizes, data=st.data())
def test_the_order_of_rows_does_not_matter(row: Row, size: tuple[int, int, int], data: st.DataObject) -> None:
    seed, n, d = size
    n = max(n, row.least(0))
    n, f, far = row.untied(n, data.draw(st.integers(0, row.most_byzantine(n))))
    rows, _ = attacked(seed, n, d, f, far + normal(seed + 1, f, d), row.trusts)
    _close(row, row(rows[shuffled(seed + 1, n, row.trusts)], f), row(rows, f), rows)


def _close(row: Row, result: Tensor, expected: Tensor, rows: Tensor) -> None:
    size = float(rows.abs().max())
    torch.testing.assert_close(result, expected, rtol=0, atol=row.tolerance * size)


values = st.floats(-1e6, 1e6, width=32) | st.sampled_from([-1.0, 0.0, 1.0, 3e38, -3e38])


@each("hull")
@quick
@given(data=st.data())
def test_hull(row: Row, data: st.DataObject) -> None:
    n, d = data.draw(st.integers(max(3, row.least(0)), 9)), data.draw(st.integers(1, 4))
    f = data.draw(st.integers(0, row.most_byzantine(n)))
    one = st.lists(values, min_size=d, max_size=d)
    rows = torch.tensor(data.draw(st.lists(one, min_size=n, max_size=n)), dtype=torch.float32)
    assert in_hull(row(rows, f), rows)


@each("identical")
@quick
@given(data=st.data())
def test_identical_rows(row: Row, data: st.DataObject) -> None:
    n, d = data.draw(st.integers(max(3, row.least(0)), 9)), data.draw(st.integers(1, 4))
    one = torch.tensor(data.draw(st.lists(values, min_size=d, max_size=d)))
    f = data.draw(st.integers(0, row.most_byzantine(n)))
    torch.testing.assert_close(row(one.repeat(n, 1), f), one, rtol=2 * torch.finfo().eps, atol=0)


@each()
@pytest.mark.parametrize("value", [1e3, -1e9, 1e30, math.inf, -math.inf, math.nan])
def test_byzantine_rows_leave_the_result_bounded(row: Row, value: float) -> None:
    """f rows far away (together, apart, or in one entry) do not matter; for `average` one does."""
    n, d = 11, 50
    f = row.most_byzantine(n) if row.robust else 1
    one_entry = torch.zeros(d)
    one_entry[7] = value
    apart = value * normal(3, f, d, dtype=torch.float32)
    for seed, values in enumerate([torch.full((d,), value), one_entry, apart]):
        alone = row.robust == "together" and values is apart
        if alone or row.robust == "finite" and not math.isfinite(value):
            continue
        rows, honest = attacked(seed, n, d, f, values, row.trusts)
        if row.robust:
            result = row(rows, f)
            assert result.isfinite().all() and result.norm() <= 4 * honest.norm(dim=1).max()
            assert not row.inside or in_hull(result, honest)
        elif row.name == "average":
            result = row(rows, f)
            assert not (result.isfinite().all() and in_hull(result, honest))


@each("kappa")
@settings(quick, max_examples=8)
@given(seed=st.integers(0, 10**6), n=st.integers(3, 8), scale=st.sampled_from([0.0, 1.0, 3.0, 30.0, 1e4]))
def test_f_kappa_robust(row: Row, seed: int, n: int, scale: float) -> None:
    """||F - mean_S||^2 <= kappa / |S| sum_S ||x_i - mean_S||^2 for every S of n - f rows."""
    n = max(n, row.least(1))
    for f in range(row.most_byzantine(n) + 1):
        rows, _ = attacked(seed, n, 3, f, scale * normal(seed + 1, 3))
        result = row(rows, f)
        worst = max(_excess(result, rows[list(subset)]) for subset in combinations(range(n), n - f))
        assert worst <= row.kappa(f / (n - 2 * f), f / n) * (1 + 1e-6) + 1e-12


def _excess(result: torch.Tensor, chosen: torch.Tensor) -> float:
    """How large kappa must be for these honest rows; less what rounding makes of a zero."""
    mean = chosen.mean(0)
    spread = float((chosen - mean).square().sum(1).mean())
    return max(0.0, float((result - mean).square().sum()) - 1e-9 * spread) / spread


def test_average_is_not_f_kappa_robust() -> None:
    """The control: its kappa grows with the square of how far one row is."""
    average = next(row for row in RULES if row.name == "average")
    rows, _ = attacked(0, 7, 3, 1, 1e4 * normal(1, 3))
    assert max(_excess(average(rows, 1), rows[list(s)]) for s in combinations(range(7), 6)) > 1e4


@each()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pure_and_bit_identical(row: Row, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input untouched, dtype kept, and the same bits whatever the memory layout and the threads: torch's, or
    where its OpenMP library lends none, Python's."""
    n, d = 9, 70_037
    f = min(row.most_byzantine(n), 2)
    rows = normal(0, n, d, dtype=dtype)
    kept = rows.clone()
    result = row(rows, f)
    assert torch.equal(rows, kept)
    assert result.dtype == dtype and result.shape == (d,)
    assert result.untyped_storage().data_ptr() != rows.untyped_storage().data_ptr()
    wide = torch.empty(2 * n, 2 * d, dtype=dtype)[::2, ::2].copy_(rows)
    torch.set_num_threads(2)
    for layout in (rows, wide, rows.T.contiguous().T):
        assert torch.equal(row(layout, f), result)
    monkeypatch.setattr(team, "HAS_TEAM", False)
    assert torch.equal(row(rows, f), result)


@each()
def test_edges(row: Row) -> None:
    f = 1
    n = row.least(f)
    for shape in ((n, 1), (n, 0), (n + 1, 5)):
        assert torch.equal(row(torch.zeros(shape), f), torch.zeros(shape[1]))
    for size in (1e30, 1e-37, 1e-44):
        rows = size * normal(1, n, 6, dtype=torch.float32)
        assert row(rows, f).isfinite().all()
        assert not row.hull or in_hull(row(rows, f), rows)
    twice = normal(2, n, 4).repeat(2, 1)
    assert row(twice, f).isfinite().all()
    if n > 1:
        needs = f"{n - 1} reach it|{n - 1} rows"
        with pytest.raises(TooManyByzantine, match=needs):
            row(torch.zeros(n - 1, 3), f)
    with pytest.raises(SpecError, match="f = -1"):
        row(torch.zeros(n, 3), -1)


@each(rules=[row for row in RULES if row.robust is True and row.name != "bucketing-median"])
def test_refuses_more_than_f_non_finite_rows(row: Row) -> None:
    rows = normal(0, 12, 4)
    rows[2, 1], rows[5, 0] = math.nan, math.inf
    assert row(rows, 2).isfinite().all()
    with pytest.raises(JobFailed, match="2 of n = (12|6) rows .* f = 1"):
        row(rows, 1)


def test_every_yaml_is_in_the_table() -> None:
    """Under its own name and with its defaults, which are the function's unless the yaml is a preset."""
    assert set(aggregation.names()) <= {row.name for row in RULES}
    for group in ("aggregator", "pre_aggregator"):
        for conf in registry.table(group).values():
            module, _, name = conf["_target_"].rpartition(".")
            function = getattr(import_module(module), name)
            parameters = inspect.signature(function).parameters.values()
            taken = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
            given = {key: value for key, value in conf.items() if not key.startswith("_")}
            assert given.keys() == taken.keys() - {"state", "generator", "least"}
            if name == conf["_name_"] and "base" not in given:
                assert {key: taken[key] for key in given} == given
            assert getattr(aggregation, name) is function
            assert conf["_source_"] and conf["_breakdown_"] and conf["_cost_"] and conf["_doc_"]
