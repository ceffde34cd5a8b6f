"""Imports go down the layers only, and the control plane runs without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kuiper

ROOT = Path(kuiper.__file__).parent

# A row may import itself and what stands beside it, and nothing else of kuiper. A module belongs to the
# longest row that begins its name; "config.build" is one module, "link" is a package and all in it.
_MATHS = "errors random"
_PURE = "aggregation attacks topology selection optim data models"
_TORCH_FREE_CONFIG = ("config.compose config.schema config.source config.choices config.metadata "
                      "config.sizes config.modules config.signatures config.bounds config.tree config.targets "
                      "config.nested config.kuiper_keys config.kuiper_conf config.slips")
LAYERS: dict[str, str] = {
    "errors": "",
    "random": "",
    "registry": "errors",
    "arguments": "errors",
    "code_digest": "",
    "places": "errors",
    # pure packages: maths on tensors, no I/O but the files of a dataset
    "aggregation": _MATHS + " registry arguments",
    "attacks": _MATHS + " registry arguments",
    "topology": _MATHS,
    "selection": _MATHS,
    "optim": _MATHS,
    "models": _MATHS,
    "data": _MATHS + " places models._torchvision",  # the one place that knows how to import torchvision
    # the machinery below the algorithms: each knows pure packages, none of the three knows another
    "link": _MATHS + " topology attacks.adversary aggregation.sums",  # attacks act where rows leave and arrive
    "learner": _MATHS + " data models optim attacks.adversary aggregation.sums",  # and on labels
    "record": "errors",
    "algorithms": f"{_MATHS} registry {_PURE} link learner record",
    # the data plane's way in
    "config.instantiate": "errors registry config.targets",  # both sides hold to one allow-list
    "config.build": f"{_MATHS} registry {_PURE} algorithms link learner record config.instantiate",
    "run_data": "errors places link.holding record.data",
    "process": f"{_MATHS} {_PURE} algorithms link learner record config.build pool run_data code_digest",
    "pool": "config.build learner",
    "trial": "errors data learner record config.build config.bounds",
    "run": "errors record.atomic record.log process pool",
    # the control plane
    "config": f"errors registry {_TORCH_FREE_CONFIG}",
    "cluster": f"errors places code_digest registry {_TORCH_FREE_CONFIG}",
    "cli": f"errors cluster registry {_TORCH_FREE_CONFIG}",
    # beside both: reads what runs have left behind
    "analysis": "errors record",
}

# Single modules that may import a single other one, inside a function only, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("config.bounds", "random"): "which nodes are Byzantine is drawn by seed; without torch",
    ("cluster.staging", "link.credentials"): "certificates are made on the submitter; without torch",
    ("cluster.account", "record.perf"): "what was brought is read back, as plain data",
    ("cli.collect", "record.perf"): "what was brought is read back, and refused if it holds more than plain data",
    ("cli.plot", "analysis"): "`plot` draws, and only who draws imports matplotlib",
}


def _modules() -> dict[str, Path]:
    named = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        named[".".join(part for part in parts if part != "__init__")] = path
    return named


MODULES = _modules()


def _imports(name: str) -> Iterator[tuple[str, bool]]:
    """Modules of kuiper that a module imports, and whether it does so inside a function.

    What stands under `if TYPE_CHECKING:` is never imported.
    """

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, inside
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: write imports in full"
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield (below if below.removeprefix("kuiper.") in MODULES else node.module), inside
        deeper = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, deeper)

    for imported, inside in walk(ast.parse(MODULES[name].read_bytes()), False):
        if imported.startswith("kuiper."):
            yield imported.removeprefix("kuiper."), inside


def _row(name: str) -> str:
    """The row of the table that a module belongs to."""
    rows = [row for row in LAYERS if name == row or name.startswith(f"{row}.")]
    assert rows, f"kuiper.{name} has no row in the table of layers"
    return max(rows, key=len)


@pytest.mark.parametrize("name", sorted(name for name in MODULES if name))
def test_imports_go_down_the_layers(name: str) -> None:
    row = _row(name)
    allowed = [row, *LAYERS[row].split()]
    for imported, inside in _imports(name):
        if (name, imported) in EXCEPTIONS and inside:
            continue
        assert any(imported == one or imported.startswith(f"{one}.") for one in allowed), (
            f"kuiper.{name} ({row}) imports kuiper.{imported}; it may import {', '.join(allowed)}")


def test_the_table_names_what_exists_and_has_no_cycle() -> None:
    for row, allowed in LAYERS.items():
        assert all(one in MODULES for one in [row, *allowed.split()]), row
        for one in allowed.split():
            assert row not in LAYERS[_row(one)].split(), f"{row} and {one} may import each other"
    for (name, imported), _ in EXCEPTIONS.items():
        assert (imported, True) in set(_imports(name)), f"{name} no longer imports {imported}"


def _loaded(*imports: str) -> set[str]:
    """What a fresh interpreter has imported after `imports`."""
    code = f"import sys, {', '.join(imports)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return set(done.stdout.split())


AWAY = {f"cluster.{name}" for name in ("dial", "identities", "login", "shell", "ssh", "ssh_config", "trust")}


def test_the_control_plane_runs_without_torch() -> None:
    control = [f"kuiper.{name}" for name in MODULES
               if name.startswith(("cluster.", "cli.")) and not name.endswith("__main__")
               and name not in AWAY]  # for jobs that leave this machine
    assert len(control) > 20
    heavy = {"torch", "torchvision", "sklearn", "matplotlib", "numpy"}
    assert not _loaded(*control) & {*heavy, "hydra", "cryptography", "fabric"}  # status and stop answer at once
    assert not _loaded("kuiper.config.compose", "kuiper.config.tree", "kuiper.link.credentials") & heavy
