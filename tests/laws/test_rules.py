"""One table of rules; every law is run over every row that claims it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module, resources
from itertools import combinations

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kuiper.aggregation import average, median, multi_krum, trimmed_mean
from kuiper.aggregation._blocks import WIDTH
from kuiper.aggregation._distances import squared_distances
from kuiper.aggregation._order import network, ordered
from kuiper.errors import JobFailed, SpecError, TooManyByzantine

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@dataclass(frozen=True)
class Rule:
    """A rule, its bound n >= factor * f + plus, and the laws beyond those that all rules obey."""

    name: str
    call: Callable[..., Tensor]
    factor: int
    plus: int
    robust: bool = True
    orthogonal: bool = False
    odd: bool = True  # rule(-x) = -rule(x)
    kappa: Callable[[float], float] | None = None  # of r = f / (n - 2f)

    def most_byzantine(self, n: int) -> int:
        return (n - self.plus) // self.factor if self.factor else 0


def _krum_kappa(r: float) -> float:
    return 6 * (1 + r)


def _median_kappa(r: float) -> float:
    return 4 * (1 + r) ** 2


RULES = [
    Rule("average", average, 0, 1, robust=False, orthogonal=True),
    Rule("median", median, 2, 1, kappa=_median_kappa),
    Rule("median-lower", partial(median, convention="lower"), 2, 1, odd=False, kappa=_median_kappa),
    Rule("median-upper", partial(median, convention="upper"), 2, 1, odd=False, kappa=_median_kappa),
    Rule("trimmed_mean", trimmed_mean, 2, 1, kappa=lambda r: 6 * r * (1 + r)),
    Rule("multi_krum", multi_krum, 2, 3, orthogonal=True),
    Rule("krum", partial(multi_krum, m=1), 2, 3, orthogonal=True, kappa=_krum_kappa),
]
ROBUST = [rule for rule in RULES if rule.robust]
quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def each(rules: list[Rule] = RULES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", rules, ids=lambda rule: rule.name)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def attacked(seed: int, n: int, d: int, f: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, honest rows): f rows at random places hold `values`, broadcast."""
    rows = normal(seed, n, d, dtype=values.dtype)
    places = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    rows[places[:f]] = values
    return rows, rows[places[f:].sort().values]


def in_hull(result: Tensor, rows: Tensor) -> bool:
    """Within the rows' coordinate hull, up to one rounding of the result."""
    slack = torch.finfo(result.dtype).eps * rows.abs().amax(0)
    return bool(((result >= rows.amin(0) - slack) & (result <= rows.amax(0) + slack)).all())


sizes = st.tuples(st.integers(0, 10**6), st.integers(5, 12), st.integers(1, 40))


@each()
@quick
@given(size=sizes, data=st.data())
def test_equivariance(rule: Rule, size: tuple[int, int, int], data: st.DataObject) -> None:
    seed, n, d = size
    f = data.draw(st.integers(0, rule.most_byzantine(n)))
    rows = normal(seed, n, d)
    expected = rule.call(rows, f)
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    close(rule.call(rows[order], f), expected)
    shift = 100 * normal(seed + 1, d)
    close(rule.call(rows + shift, f), expected + shift)
    for scale in (1e-20, 3.7, 1e20) + ((-3.7,) if rule.odd else ()):
        close(rule.call(rows * scale, f) / scale, expected)
    if rule.orthogonal:
        turn = torch.linalg.qr(normal(seed + 2, d, d)).Q
        close(rule.call(rows @ turn, f), expected @ turn)


values = st.floats(-1e6, 1e6, width=32) | st.sampled_from([-1.0, 0.0, 1.0, 3e38, -3e38])


@each()
@quick
@given(data=st.data())
def test_hull_and_identical_rows(rule: Rule, data: st.DataObject) -> None:
    n, d = data.draw(st.integers(3, 9)), data.draw(st.integers(1, 4))
    f = data.draw(st.integers(0, rule.most_byzantine(n)))
    row = st.lists(values, min_size=d, max_size=d)
    rows = torch.tensor(data.draw(st.lists(row, min_size=n, max_size=n)), dtype=torch.float32)
    assert in_hull(rule.call(rows, f), rows)
    same = rows[:1].repeat(n, 1)
    assert torch.equal(rule.call(same, f), same[0])


@each()
@pytest.mark.parametrize("value", [1e3, -1e9, 1e30, math.inf, -math.inf, math.nan])
def test_byzantine_rows_leave_the_result_among_the_honest(rule: Rule, value: float) -> None:
    """f rows far away (together, apart, or in one entry) do not matter; for `average` they do."""
    n, d = 11, 50
    f = rule.most_byzantine(n) if rule.robust else 1
    one_entry = torch.zeros(d)
    one_entry[7] = value
    apart = value * normal(3, f, d, dtype=torch.float32)
    for seed, values in enumerate([torch.full((d,), value), apart, one_entry]):
        rows, honest = attacked(seed, n, d, f, values)
        result = rule.call(rows, f)
        assert (bool(result.isfinite().all()) and in_hull(result, honest)) == rule.robust


@each([rule for rule in RULES if rule.kappa])
@quick
@given(seed=st.integers(0, 10**6), n=st.integers(3, 8), scale=st.sampled_from([0.0, 1.0, 3.0, 30.0, 1e4]))
def test_f_kappa_robust(rule: Rule, seed: int, n: int, scale: float) -> None:
    """||F - mean_S||^2 <= kappa / |S| sum_S ||x_i - mean_S||^2 for every S of n - f rows."""
    for f in range(rule.most_byzantine(n) + 1):
        rows, _ = attacked(seed, n, 3, f, scale * normal(seed + 1, 3))
        result = rule.call(rows, f)
        kappa = rule.kappa(f / (n - 2 * f))
        for subset in combinations(range(n), n - f):
            chosen = rows[list(subset)]
            mean = chosen.mean(0)
            spread = (chosen - mean).square().sum(1).mean()
            assert (result - mean).square().sum() <= kappa * spread * (1 + 1e-9) + 1e-20


@each()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pure_and_bit_identical(rule: Rule, dtype: torch.dtype) -> None:
    """Input untouched, dtype kept, and the same bits whatever the memory layout, more than a block wide."""
    n, d = 9, WIDTH + 37
    f = rule.most_byzantine(n)
    rows = normal(0, n, d, dtype=dtype)
    kept = rows.clone()
    result = rule.call(rows, f)
    assert torch.equal(rows, kept)
    assert result.dtype == dtype and result.shape == (d,)
    assert result.untyped_storage().data_ptr() != rows.untyped_storage().data_ptr()
    shifted = torch.empty(n * d + 1, dtype=dtype)[1:].view(n, d).copy_(rows)
    wide = torch.empty(2 * n, 2 * d, dtype=dtype)[::2, ::2].copy_(rows)
    for layout in (rows, shifted, wide, rows.T.contiguous().T):
        assert torch.equal(rule.call(layout, f), result)


@each()
def test_edges(rule: Rule) -> None:
    f = 2
    n = rule.factor * f + rule.plus
    for shape in ((n, 1), (n, 0), (n + 1, 5)):
        assert torch.equal(rule.call(torch.zeros(shape), f), torch.zeros(shape[1]))
    huge = normal(1, n, 6, dtype=torch.float32) * 1e37
    assert in_hull(rule.call(huge, f), huge)
    tiny = normal(1, n, 6, dtype=torch.float32) * 1e-37
    assert in_hull(rule.call(tiny, f), tiny)
    with pytest.raises(TooManyByzantine, match=f"n = {n - 1} with f = {f if rule.factor else 0}"):
        rule.call(torch.zeros(n - 1, 3), f)


@each(ROBUST)
def test_refuses_more_than_f_non_finite_rows(rule: Rule) -> None:
    rows = normal(0, 9, 4)
    rows[2, 1], rows[5, 0] = math.nan, math.inf
    assert rule.call(rows, 2).isfinite().all()
    with pytest.raises(JobFailed, match="2 of n = 9 rows .* f = 1"):
        rule.call(rows, 1)
    with pytest.raises(SpecError, match="f = -1"):
        rule.call(rows, -1)


@quick
@given(data=st.data())
def test_multi_krum_equals_brute_force(data: st.DataObject) -> None:
    """Small integers make every distance exact, so ties are real and the lowest index must win."""
    n, d = data.draw(st.integers(3, 10)), data.draw(st.integers(1, 3))
    f = data.draw(st.integers(0, (n - 3) // 2))
    row = st.lists(st.integers(-3, 3), min_size=d, max_size=d)
    rows = data.draw(st.lists(row, min_size=n, max_size=n))
    m = data.draw(st.none() | st.integers(1, n - f))

    def score(i: int) -> int:
        others = (sum((a - b) ** 2 for a, b in zip(rows[i], rows[j])) for j in range(n) if j != i)
        return sum(sorted(others)[: n - f - 2])

    best = sorted(range(n), key=lambda i: (score(i), i))[: n - f - 2 if m is None else m]
    expected = torch.tensor(rows, dtype=torch.float64)[best].mean(0)
    torch.testing.assert_close(multi_krum(torch.tensor(rows, dtype=torch.float64), f, m=m), expected)


def test_known_answers() -> None:
    rows = torch.tensor([[4.0, -1.0], [1.0, 7.0], [3.0, 5.0], [100.0, 6.0]])
    assert average(rows, 0).tolist() == [27.0, 4.25]
    assert median(rows, 1).tolist() == [3.5, 5.5]
    assert median(rows, 1, convention="lower").tolist() == [3.0, 5.0]
    assert median(rows, 1, convention="upper").tolist() == [4.0, 6.0]
    assert trimmed_mean(rows, 1).tolist() == [3.5, 5.5]
    assert torch.equal(trimmed_mean(rows, 0), average(rows, 0))
    with pytest.raises(SpecError, match="convention = 'middle'"):
        median(rows, 1, convention="middle")
    for m in (0, 5):
        with pytest.raises(SpecError, match=f"m = {m} is not in 1..n-f = 1..4"):
            multi_krum(torch.zeros(5, 2), 1, m=m)


def test_order_statistics_equal_a_sort() -> None:
    for n in range(1, 41):
        rows = normal(n, n, 1200, dtype=torch.float32).round(decimals=1)
        expected = rows.sort(0).values
        for lowest, highest in {(0, n - 1), ((n - 1) // 2, n // 2), (n // 4, n - 1 - n // 4)}:
            assert len(network(n, lowest, highest)) <= 1200
            ((_, values),) = ordered(rows, lowest, highest)
            assert torch.equal(torch.stack(values), expected[lowest : highest + 1])


def test_distances_do_not_cancel() -> None:
    """Rows at norm 1e7 that differ by 1, some of them Byzantine at 1e9 or overflowing."""
    rows = normal(0, 9, 100) + 1e6
    rows[0], rows[3], rows[4] = 1e9, 1e200, math.nan
    distances = squared_distances(rows, 3, [4])
    honest = [1, 2, 5, 6, 7, 8]
    exact = (rows[honest][:, None] - rows[honest][None]).square().sum(2)
    torch.testing.assert_close(distances[honest][:, honest], exact, rtol=1e-8, atol=0)
    for far in (3, 4):
        assert distances[far].isinf().sum() == 8 and distances[far, far] == 0
    assert distances[0, honest].isfinite().all()


def group(name: str) -> dict[str, dict]:
    folder = resources.files("kuiper.config") / "groups" / name
    return {file.name.removesuffix(".yaml"): yaml.safe_load(file.read_text()) for file in folder.iterdir()}


def imported(target: str) -> Callable:
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("name", sorted(group("aggregator")))
def test_every_yaml_is_in_the_table(name: str) -> None:
    """Its target is tested above under its name, with the same bound and the same defaults."""
    conf = group("aggregator")[name]
    (rule,) = [rule for rule in RULES if rule.name == name]
    assert imported(conf["_target_"]) is rule.call
    assert conf["_needs_"] == {"f": rule.factor, "plus": rule.plus}
    parameters = inspect.signature(rule.call).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert {key: value for key, value in conf.items() if not key.startswith("_")} == defaults
