"""Python modules as they can be known from their files: where they are, what they define and import. None is run."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kuiper.config import schema

_KUIPER = Path(__file__).resolve().parents[1]


def find(parts: list[str], folder: Path) -> tuple[Path | None, list[str]]:
    """The file of the longest leading module of a dotted path, and the parts that remain.

    Args:
        folder: of the spec, whose modules come after those that are installed.
    """
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


def is_own(file: Path, folder: Path) -> bool:
    """Whether a module is the user's own: beside the spec, neither installed there nor of kuiper's."""
    return (file.is_relative_to(folder) and not file.is_relative_to(_KUIPER)
            and not {"site-packages", "dist-packages"} & set(file.parts))


def _look(folders: list[Path], name: str) -> tuple[Path | None, list[Path]]:
    """The file of a module, package or extension, and where its submodules are."""
    for folder in folders:
        for path, below in ((folder / name / "__init__.py", [folder / name]), (folder / f"{name}.py", [])):
            if path.is_file():
                return path, below
        for path in folder.glob(f"{name}.*.so"):
            return path, []
    return None, [folder / name for folder in folders if (folder / name).is_dir()]


def parsed(module: Path) -> ast.Module:
    """What a file holds; kept for as long as it does not change.

    Raises:
        SyntaxError: it is not Python.
        OSError: it cannot be read.
    """
    return _parsed(module, module.stat().st_mtime_ns)


@cache
def _parsed(module: Path, changed: int) -> ast.Module:
    return ast.parse(module.read_bytes())


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, those within `if`, `try` and the like among them."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from statements(getattr(node, inner, []))
        for handler in getattr(node, "handlers", []):
            yield from statements(handler.body)


def names(module: ast.Module) -> set[str]:
    """What a module defines; '*' where that cannot be known."""
    found: set[str] = set()
    for node in statements(module.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add("*" if node.name == "__getattr__" else node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
        else:
            stored = (one for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
            found.update(one.id for one in stored)
    return found


def unimportable(module: Path, folder: Path, seen: frozenset[Path] = frozenset()) -> tuple[str, str]:
    """Why a module beside the spec cannot be imported on this machine, and what to do; ("", "") if nothing is found.

    Imports within `try`, `if` or a function are left to the module itself.
    """
    for node in parsed(module).body:
        place = f"{module.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ImportFrom) and node.level and module.parent == folder:
            return (f"{place} imports from a package, and beside the spec there is none",
                    "write `from module import name`")
        wanted = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
            [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else [])
        for dotted in wanted:
            file, rest = find(dotted.split("."), folder)
            if file is None and not importable(dotted):
                return (f"{place} imports {dotted!r}, which is neither installed here nor beside the spec",
                        "install it, or correct the name")
            if file is None or file.suffix != ".py":
                continue
            own = is_own(file, folder)
            if rest and (own or dotted.startswith("kuiper.")):
                package = dotted.removesuffix("." + ".".join(rest))
                return f"{place} imports {dotted!r}, and there is no {rest[0]!r} in {package}", "correct the name"
            if isinstance(node, ast.ImportFrom) and (own or dotted.startswith("kuiper.")) and not rest:
                lacking = _lacking(node, file, folder)
                if lacking:
                    return (f"{place} imports {lacking!r} from {dotted}, which does not define it",
                            schema.nearest(lacking, sorted(names(parsed(file)))))
            if own and file not in seen:
                found = unimportable(file, folder, seen | {module, file})
                if found[0]:
                    return found
    return "", ""


def importable(dotted: str) -> bool:
    """Whether a top-level module is there without a file: built in, or a folder without __init__.py."""
    try:
        return importlib.util.find_spec(dotted.split(".")[0]) is not None
    except (ValueError, ImportError):
        return False


def _lacking(node: ast.ImportFrom, file: Path, folder: Path) -> str:
    """The first name that an import takes from a module that does not have it."""
    defined = names(parsed(file))
    for alias in node.names if "*" not in defined else ():
        submodule = find([*node.module.split("."), alias.name], folder)
        if alias.name != "*" and alias.name not in defined and submodule[1]:
            return alias.name
    return ""
