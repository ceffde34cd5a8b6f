"""Which objects a configuration may build, decided from the files alone: nothing is imported.

A target is a dotted path: a module below an allowed prefix, and one name that it defines. So
`torch.optim.optimizer.torch.load`, whose prefix is innocent, is refused. Whoever builds the object
checks again, on the object itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kuiper.config import modules, schema
from kuiper.config.signatures import Call, mismatch, unknown_keyword

ALLOWED = ("kuiper.", "torch.optim.", "torch.nn.", "torchvision.models.", "torchvision.transforms.")


def mentioned(value: Any) -> Iterable[Any]:
    """Every `_target_` anywhere in a configuration."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value["_target_"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from mentioned(item)


def refusal(target: Any, allow: Sequence[str], folder: Path, call: Call | None = None,
            here: bool = True) -> tuple[str, str]:
    """Why a target may not or cannot be built, and what to do; ("", "") when nothing is found.

    Args:
        target: dotted path of a class or function.
        allow: prefixes that the spec adds, each ending in a dot.
        folder: of the spec; its modules can be targets too.
        call: as it will be called; None where that is not known.
        here: whether it will be imported on this machine, which then needs what its module imports.
    """
    prefixes = (*ALLOWED, *allow)
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        return f"is {schema.shown(target)}, and must be a dotted path", "write module.name"
    if not target.startswith(prefixes):
        remedy = f"built are only {', '.join(prefixes)}; add a module of your own to `allow:` in the spec"
        return f"is {target!r}, which is not in a module that may be built from", remedy
    module, rest = modules.find(target.split("."), folder)
    if module is None:
        return f"is {target!r}, and no such module is installed or beside the spec", "correct the path"
    if len(rest) != 1:
        return f"is {target!r}, which is not one name in a module", "write module.name"
    if module.suffix != ".py":
        return "", ""
    try:
        message, remedy = _defined(modules.parsed(module), rest[0], call)
        if not message and here and modules.is_own(module, folder):
            message, remedy = modules.unimportable(module, folder)
            message = message and f"which cannot be imported: {message}"
    except SyntaxError as error:
        file = Path(error.filename).name if error.filename != "<unknown>" else module.name
        message, remedy = f"and {file}:{error.lineno} is not Python: {error.msg}", "correct that line"
    except (OSError, ValueError) as error:
        message, remedy = f"and {module.name} cannot be read: {error}", "correct that file"
    return (f"is {target!r}, {message}", remedy) if message else ("", "")


def _defined(module: ast.Module, name: str, call: Call | None) -> tuple[str, str]:
    definitions = [node for node in modules.statements(module.body)
                   if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name]
    if definitions:
        return _accepts(definitions[-1], call)
    names = modules.names(module)
    if name in names or "*" in names:
        return "", ""
    return f"and its module defines no {name!r}", schema.nearest(name, sorted(names))


def _accepts(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, call: Call | None) -> tuple[str, str]:
    """Whether a function, or a class with an __init__ of its own, can be called so; a decorator may change that."""
    if isinstance(node, ast.AsyncFunctionDef):
        return "which is a coroutine, and is called as a function", "write `def` in place of `async def`"
    if isinstance(node, ast.ClassDef):
        inits = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        return mismatch(inits[0].args, call, bound=True) if inits and call else ("", "")
    if node.decorator_list and call:
        return unknown_keyword(node.args, call)
    return mismatch(node.args, call, bound=False) if call else ("", "")
