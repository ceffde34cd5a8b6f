"""Compositions: pre-aggregators one after the other, then a rule, with their f, state and draws."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from kuiper import random, registry
from kuiper.aggregation.cloud import Cloud, apply, unwrapped
from kuiper.arguments import as_count, as_rows
from kuiper.errors import SpecError
from kuiper.registry import Conf

Build = Callable[[Conf], Callable[..., Any]]
"""The function of a choice, with its parameters filled in."""


class Rule:
    """Pre-aggregators and a rule: (rows (n, d), f) -> (d,).

    Args:
        rule: as `registry.chosen` gives it: its name, bound and parameters.
        pre: pre-aggregators likewise, in the order in which they are applied.
        f: declared Byzantine rows, a whole number; a call may say another. None: 0, of rules that need none.
        seed: of rules that draw; a draw depends on it, on the name of what draws, and on the step.
        build: makes functions of choices; None takes their `_target_`.

    Raises:
        SpecError: the rule trusts a row, and a pre-aggregator leaves none in its place; f is no whole number of
            0 or more, or is not given and needed.

    Attributes:
        state: what is kept between calls, named tensors; replaced, never changed in place.
        weights: (n,) float64, what each row counted in the last result; None for a rule without weights.
    """

    def __init__(self, rule: Conf, pre: Sequence[Conf] = (), f: int | None = None, seed: int = 0,
                 build: Build | None = None) -> None:
        registry.require_trust(pre, rule)
        needing = registry.needing_f(pre, rule)
        if f is None and needing is not None:
            raise SpecError(f"{needing['_name_']} needs f, the number of Byzantine rows to tolerate, and none is given",
                            f"pass f=1, say; it needs {registry.bound(needing)} rows")
        self.conf, self.pre_confs, self.seed = rule, list(pre), seed
        self.f = 0 if f is None else as_count(f, "f")
        build = build or registry.function
        self._rule = _built(rule, build)
        self._pres = [_built(one, build) for one in pre]
        self.state: dict[str, Tensor] = {}
        self.weights: np.ndarray | None = None
        self._calls = 0

    def __call__(self, rows_nd: Tensor, f: int | None = None, step: int | None = None) -> Tensor:
        """The aggregate (d,) in the rows' dtype and on their device; the rows are never changed.

        Args:
            rows_nd: (n, d) of float16, bfloat16, float32 or float64, any strides. Of rows that require a gradient
                only the values are used: the result requires none.
            f: in place of the rule's own.
            step: what draws are keyed by; None counts calls.

        Raises:
            SpecError: rows or f are of another kind.
            TooManyByzantine: the composition is not defined for so few rows.
            JobFailed: more than f rows are not finite, or a search passed its limit.
        """
        rows_nd = as_rows(rows_nd, str(self))
        f, n = self.f if f is None else as_count(f, "f"), len(rows_nd)
        registry.require_defined(self.pre_confs, self.conf, n, f)
        self._calls += 1
        step = self._calls if step is None else step
        cloud = Cloud(rows_nd, f, self.conf["_name_"])
        if self._pres:
            cloud = cloud.about_median()  # where a rule may start, whose products are the pre-aggregators'
        for place, pre in enumerate(self._pres):
            following = registry.least_rows(self.pre_confs[place + 1 :], self.conf, f)
            cloud = self._mixed(cloud, self._bound(pre, f"pre_aggregator {place}", step, following), f)
        result, weights = apply(self._bound(self._rule, "rule", step), cloud, f)
        self.weights = None
        if weights is not None and len(cloud.rows_nd) == n:
            share = cloud.of(weights[None])[0]
            self.weights = share / share.sum() if share.sum() else share
        return result

    def __str__(self) -> str:
        return registry.names([*self.pre_confs, self.conf])

    @property
    def selected(self) -> list[int] | None:
        """The rows that count in the last result, ascending; None before it, and without weights."""
        return None if self.weights is None else np.flatnonzero(self.weights).tolist()

    def influence(self, byzantine: Iterable[int]) -> float | None:
        """The part of the last result's weight that these rows had: of rows selected, how many."""
        if self.weights is None:
            return None
        rows = set(byzantine)
        if wrong := sorted(row for row in rows if not 0 <= row < len(self.weights)):
            raise SpecError(f"influence: the last call had {len(self.weights)} rows, and there is no row {wrong[0]}",
                            f"give row numbers from 0 to {len(self.weights) - 1}")
        return float(self.weights[sorted(rows)].sum())

    def copy(self, f: int | None = None, step: int | None = None) -> Rule:
        """One that goes on from the same state, and leaves this one's alone.

        Args:
            f: in place of this one's.
            step: what draws of its next call are keyed by; None for the number of that call.
        """
        other = object.__new__(Rule)
        other.__dict__ = self.__dict__ | {"state": dict(self.state)}
        other.f = self.f if f is None else f
        other._calls = self._calls if step is None else step - 1
        return other

    def _mixed(self, cloud: Cloud, pre: Callable[..., Any], f: int) -> Cloud:
        function, parameters = unwrapped(pre)
        if hasattr(function, "weigh"):
            return cloud.mixed(function.weigh(cloud, f, **parameters), f)
        return Cloud(pre(cloud.vectors(), f), f, cloud.rule)

    def _bound(self, part: partial, role: str, step: int, following: int = 1) -> partial:
        """A part with what only a call knows: a generator, its state, how many vectors what follows needs."""
        taken, given = inspect.signature(part.func).parameters, {}
        for name, value in part.keywords.items():
            if isinstance(value, partial):
                given[name] = self._bound(value, f"{role}.{name}", step)
        if "generator" in taken:
            given["generator"] = random.numpy_generator(self.seed, f"{role} {part.func.__name__}", 0, step)
        if "state" in taken:
            given["state"] = _Shelf(self, role)
        if "least" in taken:
            given["least"] = following
        return partial(part, **given)


class _Shelf(dict):
    """The state of one part of a rule, kept under its role in the rule's."""

    def __init__(self, rule: Rule, role: str) -> None:
        super().__init__({key.removeprefix(f"{role}."): value for key, value in rule.state.items()
                          if key.startswith(f"{role}.")})
        self._rule, self._role = rule, role

    def __setitem__(self, name: str, value: Tensor) -> None:
        super().__setitem__(name, value)
        self._rule.state[f"{self._role}.{name}"] = value


def make(spec: Any, f: int | None = None, pre: Any = (), seed: int = 0) -> Rule:
    """A rule from the words of a spec.

    >>> import torch
    >>> make({"ctma": {"base": "median"}}, f=1)(torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]]))
    tensor([1.5000])

    Args:
        spec: `name` or `{name: {parameter: value}}`, as behind `aggregator:`.
        f: declared Byzantine rows; needed but for rules that tolerate none.
        pre: one or a list of them, as behind `pre_aggregator:`.
        seed: of rules that draw.

    Raises:
        SpecError: there is no such name, parameter or value; f is missing or no whole number; or the rule trusts
            a row and a pre-aggregator leaves none in its place.
    """
    pres = [registry.chosen("pre_aggregator", word) for word in registry.words(pre)]
    return Rule(registry.chosen("aggregator", spec), pres, f, seed)


def names() -> list[str]:
    """Every rule that `make` knows."""
    return list(registry.table("aggregator"))


def pre_names() -> list[str]:
    """Every pre-aggregator that `make` knows."""
    return list(registry.table("pre_aggregator"))


def _built(conf: Conf, build: Build) -> partial:
    """A choice's function as a partial, with rules among its parameters built too."""
    inner = {name: _built(conf[name], build) for name in conf.get("_rules_") or ()}
    made = build({key: value for key, value in conf.items() if key not in inner})
    return partial(made, **inner)
