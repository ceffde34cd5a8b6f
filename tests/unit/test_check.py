"""What `check` finds before anything starts: from the spec and the user's files, or by building the job once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kuiper.cli.check import check
from kuiper.cluster import rehearsal
from kuiper.cluster.spec import load
from kuiper.config.compose import compose
from kuiper.config.schema import InvalidSpec, Problem
from kuiper.errors import SpecError
from kuiper.trial import trial

HEAD = "job_name: j\nps_ip: localhost\nworker_ips: [localhost:2]\nallow: [mine]\n"
BASE = {"algorithm": "parameter_server", "num_workers": 10, "model": "softmax", "dataset": "digits", "steps": 10}
SYNTHETIC = {"synthetic": {"samples": 100, "test_samples": 10, "features": 3}}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """BASE with some keys changed, and files beside it; None removes a key."""

    def write(conf: dict[str, Any], files: dict[str, str] | None = None) -> Path:
        for name, text in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        kept = {key: value for key, value in (BASE | conf).items() if value is not None}
        path = tmp_path / "conf.yml"
        path.write_text(HEAD + "job_conf:\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in kept.items()))
        return path

    return write


def complaints(spec: Path) -> list[Problem]:
    with pytest.raises(InvalidSpec) as caught:
        compose(load(spec))
    return caught.value.problems


# what job_conf says: the key that is wrong, what the message says, what the remedy says
SIZES: list[tuple[dict[str, Any], str, str, str]] = [
    ({"num_workers": 1501}, "num_workers", "digits has 1500 training samples", "at most 1500"),
    ({"dataset": "iris", "num_workers": 121}, "num_workers", "iris has 120 training samples", "at most 120"),
    ({"dataset": {"iris": {"test_samples": 145}}}, "num_workers", "iris has 5 training samples", "at most 5"),
    ({"dataset": SYNTHETIC, "num_workers": 101}, "num_workers", "synthetic has 100", "at most 100"),
    ({"dataset": SYNTHETIC, "num_workers": 60, "validation": 0.5}, "num_workers",
     "100 training samples, 50 without validation", "at most 50"),
    ({"dataset": SYNTHETIC, "partition": {"shards": {"shards_per_node": 11}}}, "partition.shards_per_node",
     "10 nodes with so many each need 110 samples", "at most 10"),
    ({"dataset": SYNTHETIC, "partition": {"dirichlet": {"min_samples": 20}}}, "partition.min_samples",
     "need 200 samples", "at most 10"),
    ({"dataset": SYNTHETIC, "validation": 0.001}, "validation", "holds out 0, which leaves a set empty", "from 0.01"),
    ({"model": "convnet"}, "model", "at least 16 x 16 pixels, and the samples of digits have shape [1, 8, 8]", "mlp"),
    ({"model": "mnist_cnn", "dataset": "iris"}, "model", "needs images", "mlp or softmax"),
    ({"model": "torchvision", "dataset": SYNTHETIC}, "model", "shape [3]", "mlp or softmax"),
    ({"model": {"mlp": {"hidden": [64, 0]}}}, "model.hidden", "item 1", "default of model mlp"),
    ({"model": {"thesis_mnist": {"hidden": [0]}}}, "model.hidden", "is 0, and must be", "default"),
    ({"model": {"mlp": {"norm": "batch"}}, "batch_size": 1}, "batch_size", "mlp has BatchNorm", "norm other than batch"),
    ({"model": {"mlp": {"norm": "batch"}}, "dataset": SYNTHETIC, "num_workers": 90}, "num_workers",
     "leaves nodes with one sample", "fewer workers"),
    ({"model": {"mlp": {"dropout": 0.2}}, "engine": "batched"}, "engine", "mlp has dropout 0.2", "engine: sequential"),
    ({"loss": "nll"}, "loss", "softmax puts out logits", "loss: cross_entropy"),
    ({"optimizer": {"sgd": {"nesterov": True}}}, "optimizer.nesterov", "and momentum is 0.0, which must then be", "momentum"),
    ({"schedule": {"multistep": {"milestones": [5, "x"]}}}, "schedule.milestones", "item 1", "multistep"),
    ({"dataset": {"iris": {"test_samples": 149}}, "num_workers": 2}, "dataset.test_samples", "148", "iris"),
    ({"dataset": {"digits": {"augment": ["random_cropp"]}}}, "dataset.augment", "item 0", "did you mean 'random_crop'"),
]


@pytest.mark.parametrize(("conf", "key", "says", "remedy"), SIZES, ids=lambda value: str(value)[:40])
def test_sizes_and_shapes_are_known(write: Write, conf: dict[str, Any], key: str, says: str, remedy: str) -> None:
    spec = write(conf)
    [problem] = complaints(spec)
    assert problem.key == f"job_conf.{key}" and says in problem.message and remedy in problem.remedy, problem
    beginning = f"  {key.split('.')[0]}:"
    line = next((n for n, one in enumerate(spec.read_text().splitlines(), 1) if one.startswith(beginning)), None)
    assert problem.where == f"{spec}:{line}"


@pytest.mark.parametrize("conf", [
    {"num_workers": 1500}, {"dataset": SYNTHETIC, "num_workers": 50, "validation": 0.5}, {"model": {"mlp": {"hidden": []}}},
    {"dataset": SYNTHETIC, "partition": {"shards": {"shards_per_node": 10}}}, {"engine": "batched", "model": "mlp"},
    {"model": {"mlp": {"norm": "batch"}}, "batch_size": 2}, {"loss": "bce"},
    {"dataset": {"digits": {"augment": ["random_crop", "random_flip"]}}},
], ids=str)
def test_what_just_fits_is_taken(write: Write, conf: dict[str, Any]) -> None:
    compose(load(write(conf)))


def test_a_batch_larger_than_a_shard_is_said(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(write({"dataset": SYNTHETIC, "num_workers": 7})) == 0
    assert "warning: batch_size is 32, and a node has 14 samples" in capsys.readouterr().err
    assert check(write({"dataset": SYNTHETIC, "num_workers": 3}), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


RULE = {"groups/aggregator/mine.yaml": "_target_: mine.rule\n_needs_: {plus: 1}\nscale: 1.0\n"}
# the module beside the spec: what is said, and the remedy
MODULES: dict[str, tuple[str, str]] = {
    "def rule(rows, f):\n    return rows[0]\n": ("takes no parameter 'scale'", "known: rows, f"),
    "def rule(rows, scale):\n    return rows[0]\n": ("'scale' takes what is passed by position, (rows, f)", "begin"),
    "def rule(rows, *, scale):\n    return rows[0]\n": ("takes 1 parameters by position, and is called with 2", "rows, f"),
    "def rule(rows, f, scale, power):\n    return rows[0]\n": ("needs a parameter 'power'", "add `power: ...`"),
    "def rule(rows, f, *, scale, power):\n    return rows[0]\n": ("needs a parameter 'power'", "default"),
    "async def rule(rows, f, scale):\n    return rows[0]\n": ("which is a coroutine", "write `def`"),
    "def rul(rows, f, scale):\n    return rows[0]\n": ("defines no 'rule'", "did you mean 'rul'?"),
    "def rule(rows, f, scale)\n    return rows[0]\n": ("mine.py:1 is not Python", "correct that line"),
    "import no_such_module\ndef rule(rows, f, scale): ...\n": ("mine.py:1 imports 'no_such_module'", "install it"),
    "from kuiper.data import Datasett\ndef rule(rows, f, scale): ...\n": ("'Datasett' from kuiper.data", "'Dataset'?"),
    "import kuiper.dat\ndef rule(rows, f, scale): ...\n": ("there is no 'dat' in kuiper", "correct"),
    "import helper\ndef rule(rows, f, scale): ...\n": ("helper.py:2 imports 'nowhere'", "install it"),
    "from .helper import x\ndef rule(rows, f, scale): ...\n": ("beside the spec there is none", "from module"),
    "class rule:\n    def __init__(self, rows): ...\n": ("takes no parameter 'scale'", "known: rows"),
}


@pytest.mark.parametrize("module", MODULES)
def test_a_function_of_ones_own_that_cannot_be_called(write: Write, module: str) -> None:
    says, remedy = MODULES[module]
    files = {**RULE, "mine.py": module, "helper.py": "import os\nimport nowhere\n"}
    [problem] = complaints(write({"aggregator": "mine"}, files))
    assert problem.key == "aggregator.mine._target_" and problem.where.endswith("groups/aggregator/mine.yaml")
    assert says in problem.message and remedy in problem.remedy, problem


@pytest.mark.parametrize("module", [
    "def rule(rows, f, scale=1.0, *, state=None, generator): ...\n",
    "def rule(*rows, **more): ...\n",
    "try:\n    import no_such_module\nexcept ImportError:\n    def rule(rows, f, scale): ...\n",
    "from helper import rule\n",
    "import functools, json\nbase = max\nrule = functools.partial(base)\n",
    "@property\ndef rule(any, scale): ...\n",
])
def test_a_function_that_may_well_be_called(write: Write, module: str) -> None:
    compose(load(write({"aggregator": "mine"}, {**RULE, "mine.py": module, "helper.py": "def rule(r, f, scale): ...\n"})))


OTHERS = {
    "dataset": ("def mine(): ...\n", "takes 0 parameters by position, and is called with 1: (seed)"),
    "model": ("def mine(shape): ...\n", "is called with 2: (shape, classes)"),
    "partition": ("def mine(labels, nodes): ...\n", "is called with 3: (labels, nodes, rng)"),
    "schedule": ("def mine(step): ...\n", "is called with 2: (step, steps)"),
    "attack": ("def mine(rows): ...\n", "is called with 2: (rows, count)"),
    "optimizer": ("class mine:\n    def __init__(self, lr): ...\n", "needs a parameter 'lr'"),
}


@pytest.mark.parametrize("group", OTHERS)
def test_every_group_says_how_it_calls(write: Write, group: str) -> None:
    module, says = OTHERS[group]
    more = {"model": "_engine_: sequential\n", "attack": "_acts_on_: gather\n"}.get(group, "")
    conf = {group: "mine", "num_byzantine": 1 if group == "attack" else 0}
    [problem] = complaints(write(conf, {f"groups/{group}/mine.yaml": f"_target_: mine.mine\n{more}", "mine.py": module}))
    assert says in problem.message and problem.remedy


# what only building shows: job_conf, mine.py and its group, then the key and what is said
BUILT: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "a network's name": ({"model": {"torchvision": {"name": "resnet81"}}}, "", "", "model.name", "did you mean 'resnet18'?"),
    "too many nodes for a file": ({"dataset": {"npz": {"path": "DATA"}}, "num_workers": 41}, "", "", "num_workers",
                                  "the training set has 40"),
    "images of a table": ({"dataset": {"npz": {"path": "DATA"}}, "model": "convnet"}, "", "", "model", "needs images"),
    "augmented tables": ({"dataset": {"npz": {"path": "DATA", "augment": ["random_flip"]}}}, "", "", "dataset.augment",
                         "needs images"),
    "other classes": ({"model": "mine"}, "_engine_: sequential",
                      "import math\nfrom torch import nn\ndef mine(shape, classes):\n"
                      "    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 3))\n",
                      "model", "3] for 2 samples of 10 classes"),
    "a rule that raises": ({"aggregator": "mine"}, "_needs_: {plus: 1}", "def mine(rows, f):\n    return rows.meen(0)\n",
                           "aggregator", "mine.mine raised AttributeError: 'Tensor' object has no attribute 'meen' (mine.py:2)"),
    "a rule of another shape": ({"aggregator": "mine"}, "_needs_: {plus: 1}", "def mine(rows, f):\n    return rows\n",
                                "aggregator", "makes shape"),
    "a rule that returns nothing": ({"aggregator": "mine"}, "_needs_: {plus: 1}", "def mine(rows, f):\n    rows.mean(0)\n",
                                    "aggregator", "returns NoneType, not a tensor"),
    "a rule of numpy": ({"aggregator": "mine"}, "_needs_: {plus: 1}", "def mine(rows, f):\n    return rows.mean(0).numpy()\n",
                        "aggregator", "returns ndarray, not a tensor"),
    "a rule of whole numbers": ({"aggregator": "mine"}, "_needs_: {plus: 1}", "def mine(rows, f):\n    return rows[0].int()\n",
                                "aggregator", "a tensor of torch.int32"),
    "a rule that exits": ({"aggregator": "mine"}, "_needs_: {plus: 1}", "def mine(rows, f):\n    raise SystemExit(3)\n",
                          "aggregator", "raised SystemExit: 3 (mine.py:2)"),
    "no rule but a number": ({"aggregator": "mine"}, "_needs_: {plus: 1}", "mine = 5\n", "engine", "no function but int"),
    "no model but a number": ({"model": "mine"}, "_engine_: sequential", "def mine(shape, classes):\n    return 3\n",
                              "model", "returns int"),
    "an attack that raises": ({"attack": "mine", "num_byzantine": 2}, "_acts_on_: gather",
                              "def mine(rows, count):\n    return 1 / 0\n", "attack", "ZeroDivisionError"),
    "an attack on the sender": ({"attack": "mine", "num_byzantine": 2}, "_acts_on_: rows",
                                "def mine(rows):\n    return rows[:, :1]\n", "attack", "mine.mine raised RuntimeError"),
    "a dataset of another type": ({"dataset": "mine"}, "", "def mine(seed):\n    return [1, 2]\n", "dataset", "returns list"),
    "a partition of fewer": ({"partition": "mine"}, "", "def mine(labels, nodes, rng):\n    return [[0], [1]]\n", "partition",
                             "2 shards for 10 nodes"),
    "a schedule of words": ({"schedule": "mine"}, "", "def mine(step, steps):\n    return 'x'\n", "schedule", "gives 'x'"),
    "a module that fails": ({"aggregator": "mine"}, "_needs_: {plus: 1}", "x = [][1]\ndef mine(rows, f): ...\n", "engine",
                            "IndexError"),
}


@pytest.mark.parametrize("what", BUILT)
def test_building_once_shows(what: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf, metadata, module, key, says = BUILT[what]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 3)), np.arange(50) % 2
    np.savez(tmp_path / "data.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    conf = json.loads(json.dumps(conf).replace("DATA", str(tmp_path / "data.npz")))
    group = next(iter(conf))
    files = {"mine.py": module, f"groups/{group}/mine.yaml": f"_target_: mine.mine\n{metadata}\n"} if module else {}
    config = compose(load(write(conf, files)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    before = sorted(tmp_path.rglob("*.json*"))
    problems = trial(config)["problems"]
    sys.modules.pop("mine", None)
    assert problems and problems[0]["key"] == key, problems
    assert says in problems[0]["message"] + problems[0]["remedy"] and problems[0]["remedy"], problems
    assert sorted(tmp_path.rglob("*.json*")) == before


@pytest.mark.parametrize("conf", [
    {}, {"algorithm": "all_reduce", "model": {"mlp": {"norm": "batch"}}, "buffers": "aggregate"},
    {"algorithm": {"fedavg": {"clients_per_round": 4}}, "steps": None, "rounds": 2, "devices": "lognormal", "clock": "virtual"},
    {"algorithm": "elastic_gossip", "attack": "dissensus", "num_byzantine": 2, "validation": 0.1},
    {"aggregator": {"ctma": {"base": "median"}}, "pre_aggregator": ["nnm"], "attack": "ipm", "num_byzantine": 2},
    {"attack": {"alie": {"knowledge": "own", "z": 1}}, "num_byzantine": 2, "aggregator": "median"},
    {"attack": "label_flip", "num_byzantine": 2, "engine": "batched"}, {"attack": "random", "num_byzantine": 3},
], ids=str)
def test_what_can_be_built_is_built(conf: dict[str, Any], write: Write) -> None:
    told = trial(compose(load(write(conf))))
    assert not told["problems"] and told["job"]["samples"] in (1500, 1350) and told["job"]["classes"] == 10


def test_building_once_says_what_the_log_of_a_run_would(write: Write, tmp_path: Path) -> None:
    x, y = np.ones((40, 8, 9, 3)), np.arange(40) % 2
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    config = compose(load(write({"dataset": {"npz": {"path": str(tmp_path / "data.npz")}}, "model": "softmax"})))
    assert [f"x_{part}" in line and "channels_last" in line
            for part, line in zip(("train", "test"), trial(config)["warnings"], strict=True)] == [True, True]


def test_check_builds_in_a_process_of_its_own(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {**RULE, "mine.py": "print('hello')\ndef rule(rows, f, scale):\n    return rows[0] * scale\n"}
    spec = write({"aggregator": "mine"}, files)
    before = sorted(tmp_path.iterdir())
    assert check(spec, ["model={torchvision: {name: resnet81}}"], build=True) == 3
    said = capsys.readouterr().err
    assert "-o model={torchvision: {name: resnet81}}: job_conf.model.name fails:" in said and "1 problem; nothing" in said
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "mine.py").write_text("while True: pass\ndef rule(rows, f, scale): ...\n")
    with pytest.raises(SpecError, match="more than 0.5 s"):
        rehearsal.build_once(load(spec), compose(load(spec)), seconds=0.5)


def test_everything_at_once(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the values, the sizes, the user's function and this machine."""
    spec = write({"aggregator": "mine", "model": "convnet", "num_workers": 2000, "lr": 1}, {**RULE, "mine.py": "rul = 1\n"})
    spec.write_text(spec.read_text() + f"log_path: {spec}\n")
    assert check(spec, as_json=True) == 3
    keys = {one["key"] for one in json.loads(capsys.readouterr().out)["problems"]}
    assert keys == {"job_conf.lr", "job_conf.model", "job_conf.num_workers", "aggregator.mine._target_", "log_path"}


def test_check_is_fast_enough(write: Write) -> None:
    """Neither numpy nor torch is imported for what is checked without --build."""
    code = ("import sys; from kuiper.cli.check import check; check(sys.argv[1]); "
            "sys.exit([name for name in ('torch', 'numpy', 'sklearn') if name in sys.modules] or None)")
    done = subprocess.run([sys.executable, "-c", code, write({"dataset": "iris"})], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("ok"), done.stderr
