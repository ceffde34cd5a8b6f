"""Which objects a configuration may build, decided from the files alone: nothing is imported.

A target is a dotted path: a module below an allowed prefix, and one name that it defines. So
`torch.optim.optimizer.torch.load`, whose prefix is innocent, is refused. Whoever builds the object
checks again, on the object itself.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from kuiper.config import schema

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


def refusal(
    target: Any, allow: Sequence[str], folder: Path, parameters: Sequence[str] = ()
) -> tuple[str, str]:
    """Why a target may not or cannot be built, and what to do; ("", "") when nothing is found.

    Args:
        target: dotted path of a class or function.
        allow: prefixes that the spec adds, each ending in a dot.
        folder: of the spec; its modules can be targets too.
        parameters: names it will be called with.
    """
    prefixes = (*ALLOWED, *allow)
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        return f"is {schema.shown(target)}, and must be a dotted path", "write module.name"
    if not target.startswith(prefixes):
        remedy = f"built are only {', '.join(prefixes)}; add a module of your own to `allow:` in the spec"
        return f"is {target!r}, which is not in a module that may be built from", remedy
    module, rest = _module(target.split("."), folder)
    if module is None:
        return f"is {target!r}, and no such module is installed or beside the spec", "correct the path"
    if len(rest) != 1:
        return f"is {target!r}, which is not one name in a module", "write module.name"
    if module.suffix != ".py":
        return "", ""
    return _defined(_parsed(module, module.stat().st_mtime_ns), target, rest[0], parameters)


@cache
def _parsed(module: Path, changed: int) -> ast.Module:
    return ast.parse(module.read_bytes())


def _module(parts: list[str], folder: Path) -> tuple[Path | None, list[str]]:
    """The file of the longest leading module of a dotted path, and the parts that remain."""
    try:
        found = importlib.util.find_spec(parts[0])  # of a top-level name: imports nothing
    except ValueError:
        found = None
    if found and found.origin:
        file, below = Path(found.origin), [Path(place) for place in found.submodule_search_locations or ()]
    else:
        file, below = _look([folder], parts[0])
    rest = parts[1:]
    while rest and below:
        deeper, under = _look(below, rest[0])
        if deeper is None and not under:
            break
        file, below, rest = deeper, under, rest[1:]
    return file, rest


def _look(folders: list[Path], name: str) -> tuple[Path | None, list[Path]]:
    """The file of a module, package or extension, and where its submodules are."""
    for folder in folders:
        for path, below in ((folder / name / "__init__.py", [folder / name]), (folder / f"{name}.py", [])):
            if path.is_file():
                return path, below
        for path in folder.glob(f"{name}.*.so"):
            return path, []
    return None, [folder / name for folder in folders if (folder / name).is_dir()]


def _defined(module: ast.Module, target: str, name: str, parameters: Sequence[str]) -> tuple[str, str]:
    names: set[str] = set()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            if node.name == name:
                return _accepts(node, target, parameters)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            aims = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(aim.id for aim in aims if isinstance(aim, ast.Name))
    if name in names or "*" in names:
        return "", ""
    return f"is {target!r}, and its module defines no {name!r}", schema.nearest(name, sorted(names))


def _accepts(node: ast.FunctionDef | ast.ClassDef, target: str, parameters: Sequence[str]) -> tuple[str, str]:
    """Whether a function, or a class with an __init__ of its own, takes these parameters."""
    if isinstance(node, ast.ClassDef):
        inits = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
        if not inits:
            return "", ""
        node = inits[0]
    if node.args.kwarg:
        return "", ""
    taken = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
    for name in parameters:
        if name not in taken:
            return f"is {target!r}, which takes no parameter {name!r}", schema.nearest(name, taken)
    return "", ""
