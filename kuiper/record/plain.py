"""Plain builtins: what may go into a record, and how other numbers become it."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

SCALARS = (str, int, float, bool, type(None))


def plain(value: Any) -> Any:
    """Copy `value` as builtins: mappings to dict, sequences and arrays to list, array scalars to scalars.

    Anything else is returned as it is, for the writer to refuse.
    """
    if type(value) in SCALARS:
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # of numpy or torch, without importing either
        return value.tolist()
    return value


def finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON cannot express, by None, at every depth.

    A dict that had some says which they were, as text: {"loss": nan} is
    {"loss": None, "non_finite": {"loss": "nan"}}.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        lost = {key: str(each) for key, each in value.items() if isinstance(each, float) and not math.isfinite(each)}
        replaced = {key: finite(each) for key, each in value.items()}
        return {**replaced, "non_finite": lost} if lost else replaced
    if isinstance(value, list):
        return [finite(each) for each in value]
    return value


def find_foreign(value: Any) -> str | None:
    """The path of the first thing in `value` that is not exactly a plain builtin, or None.

    Subclasses count as foreign: pickling one names its class. Without recursion, so that neither
    depth nor a container that holds itself is a problem.
    """
    pending = [("", value)]
    seen: set[int] = set()
    while pending:
        where, each = pending.pop()
        kind = type(each)
        if kind in SCALARS or id(each) in seen:
            continue
        if kind is dict:
            for key, held in each.items():
                short = reprlib.repr(key)  # a key may be a tuple nested too deep for repr
                pending += [(f"{where}[{short}]", held), (f"{where}, the key {short}", key)]
        elif kind in (list, tuple):
            pending += [(f"{where}[{index}]", held) for index, held in enumerate(each)]
        else:
            return f"{where or 'the whole'}: {kind.__module__}.{kind.__qualname__}"
        seen.add(id(each))
    return None
