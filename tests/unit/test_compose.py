"""Composition: what a job resolves to, and everything that can be wrong with one."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys

import pytest
import yaml

from kuiper import registry
from kuiper.cli.check import check, summary
from kuiper.cluster.spec import load
from kuiper.config import choices, compose, metadata, schema, source, targets
from kuiper.config.schema import InvalidSpec
from kuiper.config.signatures import call_of

HEAD = "job_name: j\nps_ip: localhost\nworker_ips: [localhost:2]\n"
BASE = {"algorithm": "parameter_server", "num_workers": 10, "model": "softmax", "dataset": "digits",
        "steps": 10}


@pytest.fixture
def job(tmp_path):
    """Composes BASE with some keys of job_conf changed; None removes one."""

    def write(conf=None, head="", simulate=False, **more):
        merged = BASE | (conf or {}) | more
        path = tmp_path / "conf.yml"
        lines = [f"  {key}: {json.dumps(value)}\n" for key, value in merged.items() if value is not ...]
        path.write_text(HEAD + head + "job_conf:\n" + "".join(lines))
        return compose.compose(load(path, (), simulate), simulate)

    return write


def complaints(job, **how):
    with pytest.raises(InvalidSpec) as caught:
        job(**how)
    return caught.value.problems


def test_resolved(job, tmp_path):
    config = job(aggregator="multi_krum", num_byzantine=2, attack={"ipm": {"eps": 10}}, quorum="n-f",
                 deadline="2m", optimizer={"lr": 1}, seed="${num_workers}")
    assert config["job"] == {"job_name": "j", "run_id": "", "mode": "cluster", "task": "cv",
                             "spec_folder": str(tmp_path), "allow": [], "tolerate": None, "retry": 0}
    assert config["processes"][2] == {"name": "worker_2", "host": "localhost", "device": "cpu",
                                      "nodes": [5, 6, 7, 8, 9]}
    conf = config["conf"]
    assert list(conf) == [*schema.VALUES, *schema.GROUPS]
    assert [conf[key] for key in ("seed", "f", "quorum", "deadline")] == [10, 2, 8, 120.0]
    assert [conf[key] for key in ("engine", "clock")] == ["batched", "wall"]
    assert conf["aggregator"] == {"_name_": "multi_krum", "_target_": "kuiper.aggregation.krum.multi_krum",
                                  "_needs_": {"f": 2, "plus": 3}, "_most_": {"m": {"n": 1, "f": -1}},
                                  "m": None, "variant": "paper"}
    assert conf["attack"]["eps"] == 10.0 and isinstance(conf["optimizer"]["lr"], float)
    text = compose.dump(config)
    assert yaml.safe_load(text) == config and "&" not in text


def test_simulated_and_declared_f(job):
    config = job(simulate=True, f=3, num_byzantine=1, engine="sequential")
    assert config["job"]["mode"] == "simulate" and len(config["processes"]) == 1
    assert [config["conf"][key] for key in ("f", "clock", "engine")] == [3, "virtual", "sequential"]


def test_the_same_job_gives_the_same_bytes(job):
    assert compose.dump(job(seed=4)) == compose.dump(job(seed=4)) != compose.dump(job(seed=5))


@pytest.mark.parametrize(
    "form",
    [
        {"algorithm": {"elastic_gossip": {"period": 4}}},
        {"algorithm": "elastic_gossip", "algorithm.period": 4},
        {"algorithm": {"elastic_gossip": None}, "algorithm.period": 4},
    ],
)
def test_ways_to_set_a_parameter(job, form):
    assert job(**form)["conf"]["algorithm"]["period"] == 4


@pytest.mark.parametrize(
    ("conf", "key", "says"),
    [
        ({"sead": 1}, "sead", "did you mean 'seed'?"),
        ({"log_path": "x"}, "log_path", "top level"),
        ({"seed": -1}, "seed", "from 0 to"),
        ({"seed": True}, "seed", "whole number"),
        ({"seed": 1.5}, "seed", "whole number"),
        ({"seed": 10**400}, "seed", "whole number"),
        ({"seed": None}, "seed", "is empty"),
        ({"seed": "${nope}"}, "seed", "cannot be resolved"),
        ({"seed": "${oops"}, "seed", "cannot be resolved"),
        ({"num_workers": ...}, "num_workers", "is missing"),
        ({"num_workers": "ten"}, "num_workers", "whole number"),
        ({"batch_size": 0}, "batch_size", "at least 1"),
        ({"epochs": float("inf"), "steps": ...}, "epochs", "a number above 0"),
        ({"loss": "cross_entropi"}, "loss", "did you mean 'cross_entropy'?"),
        ({"deadline": "soon"}, "deadline", "30s, 5m, 2h or 1d"),
        ({"ports": "29650-29600"}, "ports", "no range"),
        ({"ports": 29600}, "ports", "a range such as"),
        ({"num_workers": 1}, "num_workers", "2 processes"),
        ({"num_byzantine": 10}, "num_byzantine", "less than num_workers, 10"),
        ({"byzantine": [1, 2], "num_byzantine": 3, "attack": "ipm"}, "byzantine", "names 2 nodes"),
        ({"byzantine": [1, 10], "num_byzantine": 2}, "byzantine", "nodes are 0 to 9"),
        ({"byzantine": [1, 1], "num_byzantine": 2}, "byzantine", "twice"),
        ({"byzantine": "1,2"}, "byzantine", "a list"),
        ({"steps": ...}, "steps", "is missing"),
        ({"epochs": 2}, "epochs", "so is steps"),
        ({"algorithm": "fedavg"}, "steps", "counts in rounds"),
        ({"rounds": 3, "steps": ...}, "rounds", "counts in steps or epochs"),
        ({"clock": "virtual", "algorithm": "all_reduce"}, "clock", "--simulate"),
        ({"clock": "virtual", "transport": "collective"}, "clock", "transport: mesh"),
        ({"quorum": 11}, "quorum", "at most 10"),
        ({"quorum": 0}, "quorum", "n-f"),
        ({"algorithm": ...}, "algorithm", "known: all_reduce"),
        ({"model": None}, "model", "must be a choice"),
        ({"model": ["mlp"]}, "model", "must be a choice"),
        ({"aggregator": "mlti_krum"}, "aggregator", "multi_krum"),
        ({"aggregator": {"medain": {"convention": "lower"}}}, "aggregator", "did you mean 'median'?"),
        ({"aggregator": "../../x"}, "aggregator", "no such aggregator"),
        ({"aggregator": "median,average"}, "aggregator", "no such aggregator"),
        ({"aggregator": {"median": {}, "m": 1}}, "aggregator", "below the choice"),
        ({"aggregator": {"median": 3}}, "aggregator.median", "must hold parameters"),
        ({"aggregator": {"median": {"convention": "midpont"}}}, "aggregator.convention", "mean 'midpoint'?"),
        ({"aggregator": {"multi_krum": {"m": 0}}}, "aggregator.m", "at least 1"),
        ({"aggregator": {"multi_krum": {"n": 1}}}, "aggregator.n", "known: m"),
        ({"optimizer": {"sgd": {"lr": "fast"}}}, "optimizer.lr", "a number"),
        ({"optimizer": {"momentum": 1.5}}, "optimizer.momentum", "from 0 to 1"),
        ({"optimizer": {"_target_": "os.system"}}, "optimizer", "chooses by name"),
        ({"optimizer": {"sgd": {"_target_": "os.system"}}}, "optimizer._target_", "not a parameter"),
        ({"optimizer": {"sgd": {"lr": {"_target_": "os.system"}}}}, "optimizer.lr", "a number"),
        ({"model": {"mlp": {"hidden": [10, "x"]}}}, "model.hidden", "item 1"),
        ({"attack": "ipm"}, "attack", "no node would attack"),
        ({"algorithm": "all_reduce", "attack": "ipm", "num_byzantine": 1}, "attack", "carries only"),
        ({"algorithm": "all_reduce", "attack": "alie", "num_byzantine": 1}, "attack", "attack.knowledge to own"),
        ({"algorithm": "elastic_gossip", "attack": {"alie": {"knowledge": "own"}}, "num_byzantine": 1},
         "attack", "alie with knowledge own, which acts on batches"),
        ({"attack": {"alie": {"knowledge": "own", "batches": 1}}, "num_byzantine": 1}, "attack.batches", "least 2"),
        ({"attack": {"mimic": {"knowledge": "own"}}, "num_byzantine": 1}, "attack.knowledge", "known: target"),
        ({"attack": {"optimal_ipm": {"knowledge": "own", "batches": 3}}, "num_byzantine": 2,
          "aggregator": "krum"}, "attack.batches", "write `batches: 5`"),
        ({"algorithm": "all_reduce", "aggregator": "median"}, "aggregator", "uses no rule"),
        ({"aggregator": {"ctma": {"base": "monna"}}, "pre_aggregator": ["nnm", "bucketing"]},
         "pre_aggregator", "monna trusts row 0, and behind bucketing"),
        ({"aggregator": "monna", "quorum": 9}, "aggregator", "which with a quorum may come too late"),
        ({"aggregator": {"ctma": {"base": "fltrust"}}, "byzantine": [3, 0], "num_byzantine": 2, "attack": "ipm"},
         "aggregator", "fltrust trusts the row of node 0, which is Byzantine"),
        ({"aggregator": "monna", "algorithm": {"fedavg": {"clients_per_round": 5}}, "steps": ..., "rounds": 2},
         "aggregator", "which is not among every round's clients"),
        ({"attack": "alie", "num_byzantine": 6, "f": 1}, "attack.z", "attackers are at most half"),
        ({"algorithm": "elastic_gossip", "quorum": 3}, "quorum", "waits for no quorum"),
        ({"algorithm": {"fedavg": {"clients_per_round": 11}}, "steps": ..., "rounds": 2},
         "algorithm.clients_per_round", "at most 10"),
        ({"tracker": "wandbb"}, "tracker", "wandb or tensorboard"),
        ({"tracker": ["wandb", 3]}, "tracker", "item 1"),
        ({"validation": 1}, "validation", "from 0 to 0.99"),
        ({"precision": "bf16"}, "precision", "one of float32, bfloat16"),
        ({"model": {"mlp": {"norm": "layer"}}}, "model.norm", "one of none, batch"),
        ({"buffers": "local"}, "buffers", "a worker's own statistics never reach it"),
        ({"buffers": "local", "algorithm": "all_reduce"}, "buffers", "peers all hold one model"),
        ({"transport": "nccl"}, "transport", "one of mesh, collective"),
        ({"transport": "collective", "quorum": 9}, "quorum", "waits for every row"),
        ({"transport": "collective", "deadline": 3}, "deadline", "waits for every row"),
        ({"transport": "collective", "attack": "crash", "num_byzantine": 1}, "attack", "every row for ever"),
        ({"transport": "collective", "security": "tls"}, "security", "unencrypted"),
        ({"transport": "collective", "algorithm": "elastic_gossip"}, "transport", "is gossip"),
        ({"transport": "collective", "algorithm": "fedavg", "steps": ..., "rounds": 2},
         "transport", "is federated"),
    ],
)
def test_one_problem_at_its_line(job, tmp_path, conf, key, says):
    problems = complaints(job, conf=conf)
    text = str(InvalidSpec(problems))
    assert len(problems) == 1, text
    assert problems[0].key == f"job_conf.{key}" and says in text and problems[0].remedy
    given = key.split(".")[0]
    if conf.get(given, ...) is not ...:
        lines = (tmp_path / "conf.yml").read_text().splitlines()
        line = 1 + next(index for index, one in enumerate(lines) if one.startswith(f"  {given}:"))
        assert problems[0].where == f"{tmp_path / 'conf.yml'}:{line}"


@pytest.mark.parametrize(
    ("conf", "says"),
    [  # multi_krum needs n >= 2 f + 3, n being the rows that arrive
        ({"f": 3}, None),
        ({"f": 4}, "f can be at most 3; or write `num_workers: 11`"),
        ({"f": 2, "quorum": "n-f"}, None),
        ({"f": 3, "quorum": "n-f"}, "f can be at most 2; or write `num_workers: 12`"),
        ({"f": 3, "quorum": 9}, None),
        ({"f": 3, "quorum": 8}, "f can be at most 2; or write `quorum: 9`"),
        ({"num_byzantine": 2, "f": 2, "attack": "crash"}, None),
        ({"num_byzantine": 3, "f": 3, "attack": "crash"}, "f can be at most 2; or write `num_workers: 12`"),
        ({"num_byzantine": 3, "f": 1, "quorum": "n-f", "attack": "crash"}, "never reached"),
        ({"num_byzantine": 3, "f": 1, "quorum": "n-f", "attack": "crash", "deadline": 1}, None),
        ({"f": 0, "quorum": 2}, "write `quorum: 3`"),
        ({"algorithm": {"fedavg": {"clients_per_round": 8}}, "steps": ..., "rounds": 2, "f": 3},
         "write `algorithm.clients_per_round: 9`"),
        ({"algorithm": {"fedavg": {"clients_per_round": 5}}, "steps": ..., "rounds": 2, "f": 2}, None),
        ({"algorithm": {"fedavg": {"clients_per_round": 5}}, "steps": ..., "rounds": 2, "f": 3},
         "7 rows for f = 2, the part of 3 in 5 of 10, and 5 arrive"),
    ],
)
def test_the_rule_gets_enough_rows(job, conf, says):
    if says is None:
        assert job(conf={"aggregator": "multi_krum"} | conf)
    else:
        [problem] = complaints(job, conf={"aggregator": "multi_krum"} | conf)
        assert says in str(problem)


def test_trackers_are_a_list(job):
    for given, resolved in (("none", []), ("wandb", ["wandb"]), (["tensorboard", "none"], ["tensorboard"])):
        assert job(tracker=given)["conf"]["tracker"] == resolved


def test_a_group_cannot_lose_a_process(job):
    [problem] = complaints(job, transport="collective", head="on_failure: {tolerate: 1}\n")
    assert "tolerate: 1" in problem.message
    job(transport="collective", head="on_failure: stop_all\n")
    job(transport="collective", algorithm="all_reduce", attack="sign_flip", num_byzantine=2)
    job(transport="collective", algorithm="all_reduce", attack={"alie": {"knowledge": "own"}}, num_byzantine=2)


def test_all_at_once(job):
    problems = complaints(job, sead=1, num_workers=0, attack="impp", model={"mlp": {"hidden": 3, "depth": 2}},
                          batch_size="many", dataset=...)
    assert [problem.key.removeprefix("job_conf.") for problem in problems] == [
        "dataset", "num_workers", "model.depth", "model.hidden", "sead", "attack", "batch_size"]


class TestGroupsBesideTheSpec:
    @pytest.fixture
    def add(self, tmp_path):
        def write(name, text):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        return write

    def test_a_rule_of_ones_own(self, add, job):
        add("mine.py", "def first(rows_nd, f, *, row=0):\n    return rows_nd[row].clone()\n")
        add("groups/aggregator/first.yaml", "_target_: mine.first\n_needs_: {plus: 1}\nrow: 0\n")
        config = job(head="allow: [mine]\n", aggregator={"first": {"row": 1}})
        assert config["conf"]["aggregator"]["row"] == 1 and config["job"]["allow"] == ["mine."]
        assert "needs 1 rows" in "\n".join(summary(config))
        [problem] = complaints(job, aggregator="first")
        assert "not in a module that may be built from" in problem.message and "allow" in problem.remedy

    def test_it_may_extend_one_of_ours(self, add, job):
        add("groups/optimizer/heavy.yaml", "defaults: [sgd, _self_]\nmomentum: 0.9\n")
        resolved = job(optimizer={"heavy": {"lr": 0.5}})["conf"]["optimizer"]
        assert (resolved["lr"], resolved["momentum"], resolved["nesterov"]) == (0.5, 0.9, False)

    def test_a_parameter_that_must_be_given(self, add, job):
        add("groups/optimizer/sgd_at.yaml", "_target_: kuiper.optim.sgd.SGD\nlr: ???\n")
        assert job(optimizer={"sgd_at": {"lr": 0.5}})["conf"]["optimizer"]["lr"] == 0.5
        [problem] = complaints(job, optimizer="sgd_at")
        assert problem.key == "job_conf.optimizer.lr" and "is missing" in problem.message

    def test_a_folder_with_a_hostile_name(self, tmp_path):
        folder = tmp_path / "it's; a ${x} \"folder\", [1]=2"
        (folder / "groups" / "optimizer").mkdir(parents=True)
        (folder / "groups" / "optimizer" / "mine.yaml").write_text("defaults: [sgd]\n")
        (folder / "conf.yml").write_text(HEAD + "job_conf: " + json.dumps(BASE | {"optimizer": "mine"}))
        assert compose.compose(load(folder / "conf.yml"))["conf"]["optimizer"]["_name_"] == "mine"

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("aggregator/mine.yaml", "_target_: os.system\n_needs_: {f: 1}\n", "not in a module that may"),
            ("aggregator/mine.yaml", "_target_: torch.optim.optimizer.torch.load\n_needs_: {f: 1}\n",
             "not one name"),
            ("aggregator/mine.yaml", "_target_: kuiper.aggregation.krum.multi_crum\n_needs_: {f: 1}\n",
             "did you mean 'multi_krum'?"),
            ("aggregator/mine.yaml", "_target_: kuiper.aggregation.krum.multi_krum\n_needs_: {f: 1}\nmm: 1\n",
             "takes no parameter 'mm'"),
            ("aggregator/mine.yaml", "_target_: kuiper.nope.rule\n_needs_: {f: 1}\n", "one name"),
            ("aggregator/mine.yaml", "_target_: 'kuiper.x(1)'\n_needs_: {f: 1}\n", "dotted path"),
            ("aggregator/mine.yaml", "_target_: kuiper.aggregation.average.average\n", "_needs_ is missing"),
            ("aggregator/mine.yaml", "defaults: [average]\n_neds_: {f: 1}\n", "did you mean '_needs_'?"),
            ("aggregator/mine.yaml", "defaults: [average]\n_bounds_: {x: 1}\n", "no parameter"),
            ("aggregator/mine.yaml", "defaults: [average]\n_bounds_: 3\n", "a mapping"),
            ("aggregator/mine.yaml", "defaults: [average]\nx: {_target_: os.system}\n", "may be built"),
            ("aggregator/mine.yaml", "defaults: [avrage]\n", "does not compose"),
            ("aggregator/mine.yaml", "a: 1\na: 2\n", "set twice"),
            ("aggregator/mine.yaml", "\ta: 1\n", "tab"),
            ("aggregator/mine.yaml", "", "is empty"),
            ("aggregator/mine.yaml", "# @package _global_\nseeed: 1\n", "not a key that kuiper knows"),
            ("aggregator/mine.yml", "defaults: [average]\n", "cannot be chosen"),
            ("aggregator/median.yaml", "defaults: [average]\n", "kuiper's own"),
            ("agregator/mine.yaml", "x: 1\n", "did you mean 'aggregator'?"),
        ],
    )
    def test_refused(self, add, job, name, text, says):
        add(f"groups/{name}", text)
        problems = complaints(job, aggregator="mine" if name == "aggregator/mine.yaml" else "average")
        assert says in str(InvalidSpec(problems)) and "groups" in problems[0].where


def every_choice():
    files = choices.catalogue(choices.PACKAGE).files
    return [(group, name) for group in schema.GROUPS for name in files[group]]


@pytest.mark.parametrize(("group", "name"), every_choice())
def test_every_choice_is_sound(group, name):
    """Its metadata are complete, its defaults within its bounds, its target takes its parameters."""
    conf = source.load(choices.PACKAGE / group / f"{name}.yaml").data
    assert not list(metadata.faults(group, conf)) and conf["_doc_"]
    keys = metadata.keys(conf)
    assert not [wrong for key, one in keys.items() if (wrong := schema.check(one, conf[key])[1])]
    if "_target_" in conf:
        keys = registry.of_target(conf)
        assert targets.refusal(conf["_target_"], (), choices.PACKAGE, call_of(group, conf)) == ("", "")
        module, _, attribute = conf["_target_"].rpartition(".")
        taken = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
        assert set(keys) <= set(taken) or any(one.kind is one.VAR_KEYWORD for one in taken.values())


def test_the_table_and_the_primary_config_agree():
    conf = source.load(choices.PACKAGE / "config.yaml").data
    assert set(conf) == {"defaults", *schema.VALUES}
    for name, key in schema.VALUES.items():
        assert key.doc and (conf[name] == metadata.MISSING) == key.required
        assert key.required or not schema.check(key, conf[name])[1]
    defaults = {group: name for entry in conf["defaults"][:-1] for group, name in entry.items()}
    assert set(defaults) == set(schema.GROUPS) and conf["defaults"][-1] == "_self_"
    required = {group for group, name in defaults.items() if name == metadata.MISSING}
    assert required == set(schema.REQUIRED_GROUPS)


def test_check_says_ok_or_everything(tmp_path, capsys):
    path = tmp_path / "conf.yml"
    path.write_text(HEAD + "job_conf: " + json.dumps(BASE | {"aggregator": "median", "num_byzantine": 2}))
    assert check(path) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("ok: j\n")
    assert "median(convention=midpoint), f = 2, needs 5 rows: 10 arrive" in shown
    assert check(path, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["config"]["conf"]["f"] == 2
    assert check(path, ["f=7", "sed=1"], as_json=True) == 3
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"] and [one["key"] for one in report["problems"]] == ["job_conf.sed", "job_conf.f"]
    assert check(path, ["f=7"]) == 3
    captured = capsys.readouterr()
    assert not captured.out and "-o f=7: job_conf.f is too large for median" in captured.err
    assert check(path, ["f"]) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_check_does_not_import_torch(tmp_path):
    path = tmp_path / "conf.yml"
    path.write_text(HEAD + "job_conf: " + json.dumps(BASE))
    code = ("import sys; from kuiper.cli.check import check; code = check(sys.argv[1]); "
            "sys.exit(code or [name for name in ('torch', 'torchvision') if name in sys.modules] or None)")
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.startswith("ok"), result.stderr
