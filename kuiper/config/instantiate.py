"""From a group of the resolved configuration to the function or class that it names."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kuiper import registry
from kuiper.config.targets import ALLOWED
from kuiper.errors import SpecError


def factory(group: Mapping[str, Any], allow: Sequence[str] = ()) -> Callable[..., Any]:
    """The target of a group with its parameters filled in.

    Args:
        group: `_target_`, other keys that begin with an underscore (metadata), and parameters; those named
            by `_beside_` are not the target's.
        allow: prefixes that the spec adds to the allowed ones.
    Raises:
        SpecError: the target is not on the allow-list, or does not exist.
    """
    target = group["_target_"]
    found = _resolve(target, tuple(ALLOWED) + tuple(allow))
    return functools.partial(found, **registry.of_target(group))


def _resolve(target: str, allowed: tuple[str, ...]) -> Callable[..., Any]:
    """Import a dotted path; what it resolves to must itself come from an allowed place.

    The prefix alone is not enough: `torch.optim.optimizer.torch.load` has an allowed one.
    """
    remedy = f"allowed are {', '.join(allowed)}; add a prefix of yours under `allow:`"
    if not target.startswith(allowed):
        raise SpecError(f"_target_: {target!r} is not on the allow-list", remedy)
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise SpecError(f"_target_: {target!r} cannot be imported: {error}",
                        "check the spelling; modules beside the spec are importable") from error
    if not callable(found):
        raise SpecError(f"_target_: {target!r} is no function but {type(found).__name__}", "name a function or a class")
    home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if not home.startswith(allowed):
        raise SpecError(f"_target_: {target!r} is {home.strip('.') or type(found).__name__}, "
                        "which is not on the allow-list", remedy)
    return found
