"""How the targets of each group are called, and whether a function that was only parsed can be called so."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kuiper import registry
from kuiper.config import schema

_RULE = ("rows", "f")
_POSITIONAL = {
    "dataset": ("seed",), "partition": ("labels", "nodes", "rng"), "model": ("shape", "classes"),
    "schedule": ("step", "steps"), "devices": ("nodes", "seed"), "aggregator": _RULE, "pre_aggregator": _RULE,
    "algorithm": ("job",),
}
_ATTACK = {"labels": ("labels", "classes"), "rows": ("rows",), "inputs": ("inputs",)}
_OFFERED = {"aggregator": ("generator", "state"), "pre_aggregator": ("generator", "state", "least"),
            "attack": ("generator", "rule", "state", "n")}


@dataclass(frozen=True)
class Call:
    """A call as it will be made.

    Attributes:
        positional: what is passed by position, in words.
        keywords: passed by name.
        offered: passed by name to a function that has a parameter of that name.
    """

    positional: Sequence[str] = ()
    keywords: Sequence[str] = ()
    offered: Sequence[str] = ()


def call_of(group: str, conf: Mapping[str, Any]) -> Call:
    """The call of the target of a choice, with the parameters that its yaml has."""
    positional = _POSITIONAL.get(group, ())
    if group == "attack":
        positional = _ATTACK.get(registry.acts_on(conf), ("rows", "count"))
    keywords = [*registry.of_target(conf), *(["records"] if group == "algorithm" else [])]
    return Call(positional, keywords, _OFFERED.get(group, ()))


def mismatch(arguments: ast.arguments, call: Call, bound: bool) -> tuple[str, str]:
    """Why a function cannot be called so, and what to do; ("", "") when it can.

    Args:
        bound: the first parameter is an object's own, as of an `__init__`.
    """
    positional = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    by_place = positional[int(bound) :]
    passed, filled = len(call.positional), by_place[: len(call.positional)]
    given = "(" + ", ".join(call.positional) + ")"
    for name in call.keywords:
        if name in filled:
            return (f"whose parameter {name!r} takes what is passed by position, {given}, and is in its yaml too",
                    f"begin its parameters with {', '.join(call.positional)}, or rename {name!r} in the yaml")
    message, remedy = unknown_keyword(arguments, call)
    if message:
        return message, remedy
    if len(filled) < passed and not arguments.vararg:
        return (f"which takes {len(by_place)} parameters by position, and is called with {passed}: {given}",
                f"let it begin with parameters for {', '.join(call.positional)}")
    optional = set(positional[len(positional) - len(arguments.defaults) :])
    optional |= {one.arg for one, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value}
    for name in [*by_place[passed:], *(one.arg for one in arguments.kwonlyargs)]:
        if name not in optional and name not in call.keywords and name not in call.offered:
            return (f"which needs a parameter {name!r} that nothing gives",
                    f"add `{name}: ...` to its yaml, or give it a default in the function")
    return "", ""


def unknown_keyword(arguments: ast.arguments, call: Call) -> tuple[str, str]:
    """The first parameter of a call that a function does not have, and the nearest that it has; or ("", "")."""
    taken = [one.arg for one in (*arguments.args, *arguments.kwonlyargs)]
    unknown = [name for name in call.keywords if name not in taken and not arguments.kwarg]
    known = [name for name in taken if name != "self"]
    return (f"which takes no parameter {unknown[0]!r}", schema.nearest(unknown[0], known)) if unknown else ("", "")
