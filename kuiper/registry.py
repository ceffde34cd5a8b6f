"""The one table of rules, pre-aggregators and attacks: the yamls of config/groups, read without torch.

From it come the names that a spec and a library call accept, the bounds on n and f that are checked before
anything starts, and what `manager.py rules` prints.
"""

from __future__ import annotations

import difflib
import importlib
import math
import numbers
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from kuiper.errors import SpecError, TooManyByzantine

GROUPS = Path(__file__).parent / "config" / "groups"
Conf = Mapping[str, Any]
"""One choice of a group: `_name_`, other metadata that begins with '_', and parameters."""


@cache
def table(group: str) -> dict[str, dict[str, Any]]:
    """name -> what its yaml says, of 'aggregator', 'pre_aggregator' or 'attack', in alphabetical order."""
    files = sorted((GROUPS / group).glob("*.yaml"))
    return {file.stem: {"_name_": file.stem} | (yaml.safe_load(file.read_text()) or {}) for file in files}


def needing_f(pres: Sequence[Conf], rule: Conf) -> Conf | None:
    """The first part of a composition whose bound on n has f in it; None where none does."""
    parts = (*pres, *_within(rule))
    return next((part for part in parts if (part.get("_needs_") or {}).get("f")), None)


def chosen(group: str, word: Any) -> dict[str, Any]:
    """A choice as a spec writes it, `name` or `{name: {parameter: value}}`, with its defaults filled in.

    Raises:
        SpecError: there is no such name or parameter, or a value is of another kind or out of bounds.
    """
    name, given = split(word)
    known = table(group)
    if name not in known:
        raise SpecError(f"{group}: there is no {name!r}", _nearest(name, known))
    conf = dict(known[name])
    for parameter, value in given.items():
        if parameter.startswith("_") or parameter not in conf:
            taken = [key for key in conf if not key.startswith("_")]
            raise SpecError(f"{group}: {name} has no parameter {parameter!r}",
                            _nearest(parameter, taken) if taken else "it has none: leave it out")
        if parameter not in (conf.get("_rules_") or ()):
            _require_value(group, conf, parameter, value)
        conf[parameter] = value
    for parameter in conf.get("_rules_") or ():
        conf[parameter] = chosen("aggregator", conf[parameter])
    return conf


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}"


def _require_value(group: str, conf: Conf, parameter: str, value: Any) -> None:
    """Raise SpecError unless a parameter may have this value, by its default and its bounds."""
    name, default = f"{group}: {conf['_name_']}.{parameter} is {value!r}", conf[parameter]
    stated = (conf.get("_types_") or {}).get(parameter)
    if value is None and (default is None or stated):
        return
    choices = (conf.get("_choices_") or {}).get(parameter)
    if choices and value not in choices:
        raise SpecError(f"{name}, and must be one of {', '.join(choices)}", _nearest(str(value), choices))
    kind = stated or type(default).__name__
    types = {"int": numbers.Integral, "float": numbers.Real, "bool": bool}.get(kind)
    if types and (not isinstance(value, types) or isinstance(value, bool) and kind != "bool" or value != value):
        words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
        raise SpecError(f"{name}, and must be {words[kind]}",
                        f"its default is {'empty' if default is None else default}")
    low, high = (conf.get("_bounds_") or {}).get(parameter, (None, None))
    if low is not None and value < low or high is not None and value > high:
        bound = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        raise SpecError(f"{name}, and must be {bound}", f"write {low if value < low else high:g}, or one within")


def split(word: Any) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of a choice as a spec writes it.

    Raises:
        SpecError: it is neither `name` nor `{name: {parameter: value}}`.
    """
    if isinstance(word, str):
        return word, {}
    if isinstance(word, Mapping) and len(word) == 1:
        name, given = next(iter(word.items()))
        if isinstance(name, str) and (given is None or isinstance(given, Mapping)):
            return name, dict(given or {})
    raise SpecError(f"{word!r} is no choice", "write `name` or `{name: {parameter: value}}`")


def words(value: Any) -> list[Any]:
    """Pre-aggregators as a spec writes them, one or a list, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]


def inner(conf: Conf) -> list[Conf]:
    """The rules that are parameters of a rule."""
    return [conf[name] for name in conf.get("_rules_") or () if isinstance(conf[name], Mapping)]


def least(conf: Conf, f: int) -> int:
    """The fewest vectors for which a rule, with what is inside it, is defined."""
    needs = conf.get("_needs_") or {}
    return max([needs.get("f", 0) * f + needs.get("plus", 1), *(least(one, f) for one in inner(conf))])


def after(pre: Conf, n: int, following: int) -> int:
    """How many vectors a pre-aggregator makes of n, where what follows it needs `following`."""
    if "_divides_" not in pre:
        return n
    return math.ceil(n / (pre[pre["_divides_"]] or largest(n, following)))


def largest(n: int, following: int) -> int:
    """The largest bucket with which n rows make at least `following` buckets; 1 where none does."""
    return max((n - 1) // (following - 1), 1) if following > 1 else n


def least_rows(pres: Sequence[Conf], rule: Conf, f: int) -> int:
    """The fewest rows for which pre-aggregators and a rule, one after the other, are defined."""
    needed = least(rule, f)
    for pre in reversed(pres):
        size = pre[pre["_divides_"]] if "_divides_" in pre else None
        needed = max(least(pre, f), needed if size is None else (needed - 1) * size + 1)
    return needed


def refusal(pres: Sequence[Conf], rule: Conf, n: int, f: int) -> tuple[str, str]:
    """Why a composition is not defined for n rows and f, and what would be; ("", "") where it is."""
    rows = n
    for place, pre in enumerate(pres):
        rest = [*pres[place + 1 :], rule]
        if rows < least(pre, f):
            return _too_few(pre, rows, f, n), _remedy(pres, rule, n, f)
        rows = after(pre, rows, least_rows(rest[:-1], rule, f))
    for one in (*inner(rule), rule):
        if rows < least(one, f):
            return _too_few(one, rows, f, n), _remedy(pres, rule, n, f)
        for parameter, most in (one.get("_most_") or {}).items():
            bound = most.get("n", 0) * rows + most.get("f", 0) * f + most.get("plus", 0)
            if one[parameter] is not None and one[parameter] > bound:
                return (f"{one['_name_']}: {parameter} is {one[parameter]}, and at most {bound} with {rows} "
                        f"vectors and f = {f}", f"write `{parameter}: {bound}` or less")
    return "", ""


def require_defined(pres: Sequence[Conf], rule: Conf, n: int, f: int) -> None:
    """Raise TooManyByzantine, with what would do, unless a composition is defined for n rows and f."""
    message, remedy = refusal(pres, rule, n, f)
    if message:
        raise TooManyByzantine(message, remedy)


def distrust(pres: Sequence[Conf], rule: Conf) -> tuple[str, str]:
    """Why a rule does not find the row that it trusts behind pre-aggregators, and a remedy; or ("", "")."""
    trusting = trusts(rule)
    drawing = next((pre for pre in pres if pre.get("_reorders_")), None)
    if trusting is None or drawing is None:
        return "", ""
    row, drawn = trusting.get("reference", 0), drawing["_name_"]
    return (f"{trusting['_name_']} trusts row {row}, and behind {drawn} that is a mean of random rows",
            f"leave {drawn} out, or write nnm, which keeps rows in their places")


def trusts(rule: Conf) -> Conf | None:
    """The rule, of this one and those inside it, that takes a row on trust; None where none does."""
    return next((one for one in _within(rule) if one.get("_trusts_")), None)


def trusted(rule: Conf) -> int | None:
    """The node whose row a rule trusts; None where it trusts none, or whichever row comes first."""
    trusting = trusts(rule)
    return None if trusting is None else trusting.get("reference")


def _within(conf: Conf) -> Iterator[Conf]:
    """A rule, and all rules inside it."""
    yield conf
    for one in inner(conf):
        yield from _within(one)


def require_trust(pres: Sequence[Conf], rule: Conf) -> None:
    """Raise SpecError where a rule would not find the row that it trusts."""
    message, remedy = distrust(pres, rule)
    if message:
        raise SpecError(message, remedy)


def bound(conf: Conf) -> str:
    """What a rule needs of n, in words: n >= 2 f + 1."""
    needs = conf.get("_needs_") or {}
    terms = [f"{needs['f']} f"] * bool(needs.get("f")) + [str(needs.get("plus", 1))]
    return f"n >= {' + '.join(terms)}"


def _too_few(conf: Conf, rows: int, f: int, n: int) -> str:
    of = f" of {n} rows" if rows != n else ""
    needs = f"{bound(conf)}: {least(conf, f)} vectors for f = {f}"
    return f"{conf['_name_']} needs {needs}, and {rows} reach it{of}"


def _remedy(pres: Sequence[Conf], rule: Conf, n: int, f: int) -> str:
    fits = [lower for lower in range(f) if not refusal(pres, rule, n, lower)[0]]
    lower = f"f of at most {fits[-1]}" if fits else "no f"
    return f"{least_rows(pres, rule, f)} rows or more would do for f = {f}, and {lower} for {n} rows"


def acts_on(attack: Conf) -> str:
    """Where an attack acts: its `_acts_on_`, or `batches` of the sender's own where it knows no others'."""
    return "batches" if attack.get("knowledge") == "own" else attack["_acts_on_"]


def of_target(conf: Conf) -> dict[str, Any]:
    """The parameters that the target of a choice takes."""
    beside = conf.get("_beside_") or ()
    return {key: value for key, value in conf.items() if not key.startswith("_") and key not in beside}


def function(conf: Conf) -> partial[Any]:
    """The target of a choice out of the table, with its parameters filled in."""
    module, _, name = conf["_target_"].rpartition(".")
    return partial(getattr(importlib.import_module(module), name), **of_target(conf))


def names(confs: Iterable[Conf]) -> str:
    """nnm + bucketing + krum"""
    return " + ".join(conf["_name_"] for conf in confs)


def of_cohort(f: int, nodes: int, rows: int) -> int:
    """The part of f declared Byzantine nodes that a cohort of so many rows is taken to hold, rounded up."""
    return math.ceil(f * rows / nodes)
