"""Known answers, brute-force oracles, and what the kernels and compositions must equal."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kuiper import aggregation, registry
from kuiper.aggregation import (
    arc,
    average,
    average_finite,
    bucketing,
    clip,
    condense,
    kernels,
    make,
    meamed,
    median,
    multi_krum,
    nnm,
    phocas,
    trimmed_mean,
)
from kuiper.aggregation._order import in_blocks
from kuiper.aggregation.cloud import Cloud, combine
from kuiper.aggregation.kernels.network import network
from kuiper.errors import JobFailed, SpecError
from tests.laws.rules import normal

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
THREE = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])


def test_known_answers_of_the_coordinate_rules() -> None:
    rows = torch.tensor([[4.0, -1.0], [1.0, 7.0], [3.0, 5.0], [100.0, 6.0]])
    assert average(rows, 0).tolist() == [27.0, 4.25]
    assert median(rows, 1).tolist() == [3.5, 5.5]
    assert median(rows, 1, convention="lower").tolist() == [3.0, 5.0]
    assert median(rows, 1, convention="upper").tolist() == [4.0, 6.0]
    assert trimmed_mean(rows, 1).tolist() == [3.5, 5.5]
    assert torch.equal(trimmed_mean(rows, 0), average(rows, 0))
    assert meamed(THREE, 1).tolist() == [2.5, 3.5, 4.5]
    assert phocas(rows, 1).tolist() == pytest.approx([8 / 3, 6.0])
    assert average_finite(torch.tensor([[1.0, math.nan], [3.0, math.inf]]), 0).tolist() == [2.0, 0.0]
    mixed = condense(torch.cat([torch.zeros(1, 10_000), torch.ones(4, 10_000)]), 1)
    assert mixed.mean() == pytest.approx(0.9, abs=0.02)
    with pytest.raises(SpecError, match="convention = 'middle'"):
        median(rows, 1, convention="middle")


def test_known_answers_of_the_others() -> None:
    expected = torch.tensor([3.78788764, 4.78788764, 5.78788764])
    torch.testing.assert_close(make("rfa", f=1)(THREE), expected)
    torch.testing.assert_close(arc(THREE, 1)[2], torch.tensor([4.41004, 5.04005, 5.67006]), rtol=1e-5, atol=0)
    torch.testing.assert_close(clip(THREE, 0, c=1.0).norm(dim=1), torch.ones(3))
    rows = torch.tensor([[1.0, 2, 3], [-1, 4, -1], [2, 2, 3], [3, 1, 3]])
    clustered = torch.tensor([1.9596, 1.6532, 2.9596])
    torch.testing.assert_close(make("clipped_clustering", f=1)(rows), clustered, rtol=1e-4, atol=0)
    assert make("sign_majority", f=1)(rows).tolist() == [1, 1, 1]
    same = torch.cat([rows[:1]] * 3)
    torch.testing.assert_close(make("fltrust", f=1)(torch.cat([same, -9 * rows[:1]])), rows[0])
    with pytest.raises(SpecError, match=r"multi_krum: m is 5, and at most 4"):
        make({"multi_krum": {"m": 5}}, f=1)(torch.zeros(5, 2))


@pytest.mark.parametrize("base", sorted(set(aggregation.names()) - {"bulyan"}))
def test_ctma_around_any_base(base: str) -> None:
    """Of {0, 1, 2, 3, 100} it keeps 0 to 3, exactly n - f: 1.5 (`average` is near enough, at 21)."""
    rows = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]])
    assert make({"ctma": {"base": base}}, f=1)(rows).item() == pytest.approx(1.5)


def test_centered_clipping_keeps_its_centre() -> None:
    rows = torch.full((4, 1), 5.0)
    rule = make({"centered_clipping": {"tau": 1.0, "iterations": 2}}, f=1)
    other = rule.copy()
    assert [rule(rows).item() for _ in range(4)] == [2, 4, 5, 5]
    assert other(rows).item() == 2 and rule.state["rule.v"].item() == 5
    assert rule(rows.double()).dtype == torch.float64 and rule(rows).dtype == torch.float32
    with pytest.raises(SpecError, match="v, .* has 1 entries, and rows have 2"):
        rule(torch.zeros(4, 2))


def _diameter(rows: torch.Tensor) -> float:
    return float(torch.cdist(rows, rows).max())


def _variance(rows: torch.Tensor) -> float:
    return float((rows - rows.mean(0)).square().sum())


def _top(rows: torch.Tensor) -> float:
    return float(torch.linalg.matrix_norm(rows - rows.mean(0), 2))


@pytest.mark.parametrize(("name", "measure"), [("mda", _diameter), ("mva", _variance), ("smea", _top)])
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_best_subsets_equal_brute_force(name: str, measure: Callable[[torch.Tensor], float],
                                        spread: float) -> None:
    for seed in range(12):
        n, f = 5 + seed % 6, 1 + seed % 3
        f = min(f, (n - 1) // 2)
        rows = normal(seed, n, 4)
        rows[:f] += spread * normal(seed + 1, 4)
        rule = make(name, f=f)
        rule(rows)
        found = measure(rows[rule.selected])
        best = min(measure(rows[list(subset)]) for subset in combinations(range(n), n - f))
        assert len(rule.selected) == n - f and found == pytest.approx(best)
        near = make({name: {"search": "nearest"}}, f=f)
        near(rows)
        assert best - 1e-9 <= measure(rows[near.selected]) <= 2.0001 * max(best, found)


def test_a_search_that_is_too_long_says_so() -> None:
    with pytest.raises(JobFailed, match="smea: no best set among the 53,130 .* after 100 ") as caught:
        make({"smea": {"limit": 100}}, f=5)(normal(0, 25, 40))
    assert "search: nearest" in caught.value.remedy


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
        others = [sum((a - b) ** 2 for a, b in zip(rows[i], rows[j], strict=True))
                  for j in range(n) if j != i]
        return sum(sorted(others)[: n - f - 2])

    best = sorted(range(n), key=lambda i: (score(i), i))[: n - f - 2 if m is None else m]
    expected = torch.tensor(rows, dtype=torch.float64)[best].mean(0)
    torch.testing.assert_close(multi_krum(torch.tensor(rows, dtype=torch.float64), f, m=m), expected)


@pytest.mark.parametrize("n", [3, 8, 25])
def test_the_geometric_median_is_stationary(n: int) -> None:
    """No step in any direction makes the sum of distances smaller."""
    for seed in range(5):
        rows = normal(seed, n, 6) * (1 + 50 * (torch.arange(n) < n // 3)[:, None])
        found = make("geometric_median", f=(n - 1) // 3)(rows)
        total = (rows - found).norm(dim=1).sum()
        for step in normal(seed + 1, 200, 6):
            for size in (1e-1, 1e-3):
                assert (rows - found - size * step).norm(dim=1).sum() >= total * (1 - 1e-9)


@pytest.mark.parametrize(("n", "f", "d"), [(1, 0, 40), (5, 2, 17), (12, 3, 16), (25, 5, 50_000),
                                           (60, 20, 20_000), (131, 40, 700)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_order_statistics_have_the_same_bits_everywhere(n: int, f: int, d: int, dtype: torch.dtype) -> None:
    """In registers, in the cache, and in torch (what a GPU runs); the median is a sort's."""
    rows = normal(n, n, d, dtype=dtype)
    low, high = (n - 1) // 2, n // 2
    for what in kernels.STATISTICS:
        compiled = kernels.statistic(rows, what, f, low, high)
        assert torch.equal(compiled, in_blocks(rows, what, f, low, high))
    ordered = rows.double().sort(0).values
    expected = ((ordered[low] + ordered[high]) / 2).to(dtype)
    assert torch.equal(kernels.statistic(rows, "median", f, low, high), expected)
    rows[n // 2, d // 2] = math.nan
    assert kernels.statistic(rows, "median", f, low, high) is None
    assert in_blocks(rows, "median", f, low, high) is None


@pytest.mark.parametrize(("n", "m", "d"), [(5, 5, 3), (9, 12, 700), (26, 2, 1100), (40, 40, 513)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_mixtures_have_the_same_bits_however_they_are_made(n: int, m: int, d: int, dtype: torch.dtype) -> None:
    """All at once by tiles, row by row where few count or one is not finite, or each by itself."""
    rows, weights = normal(n, n, d, dtype=dtype), normal(m, m, n, dtype=torch.float64).numpy()
    rows[1, d // 2] = math.inf
    for some in (weights, weights * (np.arange(n) != 1), weights * (np.arange(n) % 9 == 0)):
        together = kernels.combine(rows, some, np.ones(m))
        apart = [kernels.combine(rows, one[None], np.ones(1)) for one in some]
        assert torch.equal(together.nan_to_num(), torch.cat(apart).nan_to_num())
        used = some.any(0)
        wanted = torch.from_numpy(some[:, used]) @ rows[used].double()
        near = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-1}[dtype]
        torch.testing.assert_close(together.double(), wanted, rtol=near, atol=near, equal_nan=True)


def test_whole_divisors_compile_nothing_anew() -> None:
    """Or a first step would pay for it on the clock, after all has been rehearsed."""
    from kuiper.aggregation.kernels import compiled

    rows, weights = normal(0, 4, 40), np.ones((1, 4))
    expected, known = combine(rows, weights, [4.0]), len(compiled.combine.signatures)
    assert torch.equal(combine(rows, weights, [np.int64(4)]), expected)
    assert len(compiled.combine.signatures) == known


@pytest.mark.parametrize(("n", "d"), [(1, 5), (4, 16), (7, 1000), (30, 2061)])
def test_gram_products_are_exact(n: int, d: int) -> None:
    rows = normal(n, n, d)
    centre = rows[0].clone()
    points = torch.cat([rows.double(), torch.zeros(1, d, dtype=torch.float64)]) - centre.double()
    wanted = (points @ points.T).numpy()
    np.testing.assert_allclose(kernels.gram(rows, centre), wanted, rtol=1e-12, atol=1e-12)


def test_gram_about_a_median_has_the_bits_of_one_about_that_point() -> None:
    """In registers, where the median and the products of a piece are made together; and row by row elsewhere."""
    rows = normal(5, 29, 40_009)
    for first in (27, 3):  # 27 x 40,009 values are worth compiling for, 3 x are not
        centre = kernels.statistic(rows[:first], "median", 0, (first - 1) // 2, first // 2)
        np.testing.assert_array_equal(kernels.gram(rows, None, first), kernels.gram(rows, centre))


def test_networks_sort() -> None:
    """The zero-one principle: what sorts all inputs of zeros and ones sorts everything."""
    for n in range(1, 13):
        inputs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        for lowest, highest in {(0, n - 1), ((n - 1) // 2, n // 2), (n // 4, n - 1 - n // 4)}:
            values = inputs.copy()
            for i, j in network(n, lowest, highest):
                values[:, i], values[:, j] = values[:, [i, j]].min(1), values[:, [i, j]].max(1)
            wanted = np.sort(inputs, axis=1)[:, lowest : highest + 1]
            assert (values[:, lowest : highest + 1] == wanted).all()


def test_distances_do_not_cancel() -> None:
    """Rows at norm 1e7 that differ by 1, some of them Byzantine at 1e9 or overflowing."""
    rows = normal(0, 9, 100) + 1e6
    rows[0], rows[3], rows[4] = 1e9, 1e200, math.nan
    distances = torch.from_numpy(Cloud(rows, 3, "krum").squared_mm)
    honest = [1, 2, 5, 6, 7, 8]
    exact = (rows[honest][:, None] - rows[honest][None]).square().sum(2)
    torch.testing.assert_close(distances[honest][:, honest], exact, rtol=1e-8, atol=0)
    for far in (3, 4):
        assert distances[far].isinf().sum() == 8 and distances[far, far] == 0
    assert distances[0, honest].isfinite().all()


PRES = ["nnm", "arc", {"clip": {"c": 4.0}}, {"bucketing": {"s": 1}}]


@pytest.mark.parametrize("rule", ["average", "median", "meamed", "krum", "geometric_median", "aksel", "caf",
                                  "bulyan", "centered_clipping", {"ctma": {"base": "median"}}, "cge",
                                  "signguard"], ids=str)
@pytest.mark.parametrize("pre", PRES, ids=str)
def test_a_composition_equals_its_parts(rule: Any, pre: Any) -> None:
    """What is composed in n-space is what the pre-aggregator's rows, made in full, would give."""
    rows, f = normal(0, 12, 30), 2
    name, parameters = registry.split(pre)
    if name == "bucketing":
        parameters["generator"] = np.random.default_rng(3)
    made = getattr(aggregation, name)(rows, f, **parameters)
    if name != "bucketing":
        composed = make(rule, f=f, pre=pre)(rows)
        torch.testing.assert_close(composed, make(rule, f=f)(made), rtol=1e-6, atol=1e-6)
    twice = make(rule, f=f, pre=[pre, "nnm"])(rows)
    assert twice.isfinite().all() and twice.norm() <= rows.norm(dim=1).max()


def test_nnm_and_bucketing() -> None:
    rows = torch.tensor([[0.0], [1.0], [3.0], [50.0], [math.nan]])
    mixed = nnm(rows, 2)
    torch.testing.assert_close(mixed[:4, 0], torch.tensor([4 / 3, 4 / 3, 4 / 3, 18.0]))
    assert mixed[4].isnan()
    buckets = bucketing(torch.arange(7.0)[:, None], 0, s=3)
    assert buckets.shape == (3, 1) and buckets[:2].sum() * 3 + buckets[2] == 21
    for n, f, least in ((20, 3, 9), (12, 2, 7), (7, 2, 7)):  # the largest buckets that Krum can stand
        s = registry.largest(n, least)
        assert math.ceil(n / s) >= least > math.ceil(n / (s + 1)) and s >= 1
        assert make("krum", f=f, pre="bucketing")(normal(0, n, 3)).isfinite().all()


def test_influence_and_selected() -> None:
    rows = normal(0, 12, 5)
    rows[[3, 7]] += 100
    rule = make("multi_krum", f=2)
    assert rule.selected is None
    rule(rows)
    assert len(rule.selected) == 8 and not {3, 7} & set(rule.selected)
    assert rule.influence([3, 7]) == 0 and rule.influence(rule.selected) == pytest.approx(1)
    mixed = make("krum", f=2, pre="nnm")
    mixed(rows)
    assert mixed.weights.sum() == pytest.approx(1) and len(mixed.selected) == 10


def test_seeded_rules_draw_by_step() -> None:
    rows = normal(0, 12, 40)
    first, second = (make("condense", f=2, seed=1) for _ in range(2))
    assert torch.equal(first(rows, step=3), second(rows, step=3))
    assert not torch.equal(first(rows, step=3), first(rows, step=4))
    assert not torch.equal(first(rows, step=3), make("condense", f=2, seed=2)(rows, step=3))
