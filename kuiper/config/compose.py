"""From a spec to the resolved configuration: Hydra composes, everything is checked, once.

Processes start from what `compose` returns and never compose themselves. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from kuiper import registry
from kuiper.config import choices, kuiper_conf, metadata, nested, schema, targets
from kuiper.config.bounds import cross_check, declared
from kuiper.config.choices import Catalogue, Choice
from kuiper.config.metadata import CARRIED, MISSING
from kuiper.config.schema import (
    GROUPS,
    REQUIRED_GROUPS,
    VALUES,
    InvalidSpec,
    Key,
    Problem,
)
from kuiper.config.signatures import call_of
from kuiper.errors import SpecError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

FORMAT = 1


def compose(spec: Spec, simulate: bool = False, run_id: str | None = None) -> dict[str, Any]:
    """The resolved configuration of a job: `format`, `job`, `processes` and `conf`, plain builtins.

    Raises:
        InvalidSpec: with everything that is wrong in job_conf.
    """
    simulate = simulate or spec.mode == "simulate"
    composer = _Composer(spec, simulate)
    conf = composer.run()
    if composer.problems:
        raise InvalidSpec(composer.problems)
    placed = spec.processes(conf["num_workers"], simulate)
    return {
        "format": FORMAT,
        "job": {
            "job_name": spec.job_name,
            "run_id": run_id or "",
            "mode": "simulate" if simulate else "cluster",
            "task": "cv",
            "spec_folder": str(spec.path.parent),
            "allow": spec.allow,
            "tolerate": spec.on_failure["tolerate"],
            "retry": spec.on_failure["retry"],
        },
        "processes": [
            {"name": one.name, "host": one.host, "device": one.device, "nodes": one.nodes} for one in placed
        ],
        "conf": conf,
    }


def problems(spec: Spec, simulate: bool = False) -> list[Problem]:
    """Everything that is wrong in a spec's job_conf."""
    composer = _Composer(spec, simulate or spec.mode == "simulate")
    composer.run()
    return composer.problems


def dump(config: dict[str, Any]) -> str:
    """A configuration as YAML: the same bytes for the same job, no anchors, safe to load."""
    return yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _flow(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    short = not any(isinstance(item, list | dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=short)


_Dumper.add_representer(list, _flow)


def runs_here(spec: Spec, simulate: bool) -> bool:
    """Whether a process of the job runs on this machine, with this interpreter and no setup of its own."""
    entries = [entry for entry in (*spec.ps_ip, *spec.worker_ips) if entry.host == "localhost"]
    return not spec.setup_commands and (simulate or any(entry.python is None for entry in entries))


class _Composer:
    """One composition; `problems` collects what is wrong, `good` the keys with which nothing is."""

    def __init__(self, spec: Spec, simulate: bool) -> None:
        self.spec = spec
        self.simulate = simulate
        self.problems: list[Problem] = []
        self.good: set[str] = set()
        self.chosen: dict[str, Choice | None] = {}

    def report(self, key: str, message: str, remedy: str) -> None:
        self.problems.append(Problem(self.where(key), f"job_conf.{key}", message, remedy))

    def where(self, key: str) -> str:
        """The place of "seed", "optimizer" or "optimizer.lr"."""
        group, _, parameter = key.partition(".")
        choice = self.chosen.get(group)
        if choice:
            return choice.places.get(parameter, choice.where)
        return self.spec.where("job_conf", key)

    def run(self) -> dict[str, Any]:
        known = choices.catalogue(self.spec.path.parent)
        self.problems += known.problems
        values = self.read(known)
        conf = self.hydra(known, values)
        if conf is None:
            return {}
        cross_check(conf, self.good, self.spec, self.simulate, self.report)
        return conf if self.problems else self.settle(conf)

    def read(self, known: Catalogue) -> dict[str, Any]:
        """Sort job_conf into values, which are returned, and choices, in `self.chosen`."""
        values = {}
        for key, value in self.spec.job_conf.items():
            group = key.partition(".")[0]
            if key in VALUES:
                values[key] = value
            elif group in GROUPS:
                try:
                    where = partial(self.spec.where, "job_conf", key)
                    choice = self.chosen.get(group)
                    self.chosen[group] = choices.choose(group, key, value, where, known, choice)
                except InvalidSpec as error:
                    self.problems += error.problems
                    self.chosen[group] = None
            else:
                remedy = kuiper_conf.advice(key) or schema.nearest(key, (*VALUES, *GROUPS))
                if key in schema.SPEC:
                    remedy = f"move it out of job_conf, to the top level of the spec: `{key}: ...`"
                self.report(key, "is not a key that kuiper knows", remedy)
        for group in GROUPS:
            if group not in self.chosen and group not in REQUIRED_GROUPS:
                self.chosen[group] = Choice(known.defaults[group], self.spec.where("job_conf"))
            names, choice = known.files[group], self.chosen.get(group)
            if group not in self.chosen or choice and choice.name == MISSING:
                self.report(group, "is missing", f"add `{group}: ...`; {schema.nearest('', names)}")
                self.chosen[group] = None
            elif choice and choice.name not in names:
                near = schema.nearest(choice.name, names)
                self.report(group, f"is {schema.shown(choice.name)}, and there is no such {group}",
                            f"{near} (your own would be groups/{group}/{choice.name}.yaml beside the spec)")
                self.chosen[group] = None
            elif choice and names[choice.name] in known.broken:
                self.chosen[group] = None
        return values

    def hydra(self, known: Catalogue, values: dict[str, Any]) -> dict[str, Any] | None:
        """Compose, lay the spec's values and parameters over it, resolve, check each; None if it cannot."""
        from kuiper.config import tree as trees  # Hydra's import is paid for only here

        made = {group: choice for group, choice in self.chosen.items() if choice}
        asked = [f"{group}='{made[group].name}'" if group in made else f"~{group}" for group in GROUPS]
        try:
            tree = trees.composed(choices.PACKAGE, known.folder, asked)
        except SpecError as error:
            place = str(known.folder or choices.PACKAGE)
            self.problems.append(Problem(place, "", f"does not compose: {error.message}", error.remedy))
            return None
        defaults = trees.unresolved(tree)
        for key in defaults:
            if key not in VALUES and key not in GROUPS:
                message = "is set by a group beside the spec, and is not a key that kuiper knows"
                remedy = schema.nearest(key, (*VALUES, *GROUPS))
                self.problems.append(Problem(str(known.folder), key, message, remedy))
        keys = {}
        for group, choice in made.items():
            file = str(known.files[group][choice.name])
            faults = [Problem(file, *fault) for fault in metadata.faults(group, defaults.get(group))]
            self.problems += faults
            if not faults:
                keys[group] = metadata.keys(defaults[group])
        self.good = set(VALUES) | set(keys)
        bad = {}
        for path, value in self.settings(keys, values):
            reason = trees.assign(tree, path, value)
            if reason:
                bad[".".join(path)] = reason
        conf, unresolved = trees.resolved(tree)
        for key, message in (bad | unresolved).items():
            self.report(key, message, "write the value itself, or ${name} of a key that is there")
            self.good.discard(key.partition(".")[0])
        self.check_values(conf)
        for group in sorted(set(keys) & self.good):
            self.check_group(group, conf[group], keys[group], known)
        if "pre_aggregator" in self.good:
            where = (known, self.spec.allow, self.spec.path.parent, self.report)
            made = [nested.resolve("pre_aggregator", f"pre_aggregator.{place}", word, *where)
                    for place, word in enumerate(conf["pre_aggregator"])]
            conf["pre_aggregator"] = made
            if None in made:
                self.good.discard("pre_aggregator")
        return {key: conf.get(key) for key in (*VALUES, *GROUPS)}

    def settings(
        self, keys: dict[str, dict[str, Key]], values: dict[str, Any]
    ) -> Iterator[tuple[tuple[str, ...], Any]]:
        """What the spec lays over the defaults: path and value; unknown parameters are reported."""
        for name, value in values.items():
            yield (name,), registry.words(value) if name == "pre_aggregator" else value
        for group, known in keys.items():
            choice = self.chosen[group]
            for name, value in choice.parameters.items():
                if name in known:
                    yield (group, name), value
                else:
                    message = f"is not a parameter of {choice.name}"
                    self.report(f"{group}.{name}", message, schema.nearest(name, known))

    def check_values(self, conf: dict[str, Any]) -> None:
        for name, key in VALUES.items():
            if name not in self.good:
                continue
            if key.required and conf[name] in (None, MISSING):
                self.report(name, "is missing", f"add `{name}: ...` to job_conf: {key.doc}")
                self.good.discard(name)
                continue
            conf[name], wrong = schema.check(key, conf[name])
            if wrong:
                near = f"{schema.nearest(conf[name], key.choices)}; " if key.choices else ""
                self.report(name, wrong, f"{near}{name}: {key.doc}")
                self.good.discard(name)

    def check_group(self, group: str, conf: dict[str, Any], keys: dict[str, Key], known: Catalogue) -> None:
        """Check a group's parameters and targets; leave what a process needs of it."""
        name = self.chosen[group].name
        file = str(known.files[group][name])
        before = len(self.problems)
        for key, allowed in keys.items():
            conf[key], wrong = schema.check(allowed, conf[key])
            missing = conf[key] == MISSING
            if missing:
                wrong = "is missing"
            if wrong:
                where = self.chosen[group].places.get(key, file)
                default = f"correct it, or leave it out for the default of {group} {name}"
                remedy = f"write `{group}: {{{name}: {{{key}: ...}}}}`" if missing else default
                if allowed.choices:
                    words = conf[key] if isinstance(conf[key], list) else [conf[key]]
                    word = next((one for one in words if one not in allowed.choices), "")
                    remedy = f"{schema.nearest(word, allowed.choices)}; or {remedy}"
                self.problems.append(Problem(where, f"job_conf.{group}.{key}", wrong, remedy))
                conf[key] = None
        if len(self.problems) == before:
            self.check_company(group, conf)
        for target in targets.mentioned(conf):
            call = call_of(group, conf) if target == conf.get("_target_") else None
            message, remedy = targets.refusal(target, self.spec.allow, self.spec.path.parent, call,
                                              runs_here(self.spec, self.simulate))
            if message:
                self.problems.append(Problem(file, f"{group}.{name}._target_", message, remedy))
        where = (known, self.spec.allow, self.spec.path.parent, self.report)
        if len(self.problems) > before or not nested.rules(conf, group, *where):
            self.good.discard(group)
        kept = {key: conf[key] for key in CARRIED if key in conf} | {key: conf[key] for key in keys}
        conf.clear()
        conf.update({"_name_": name} | kept)

    def check_company(self, group: str, conf: dict[str, Any]) -> None:
        """Parameters that need others within bounds: nesterov a momentum."""
        for name, others in (conf.get("_goes_with_") or {}).items():
            for other, (low, high) in others.items() if conf[name] else ():
                bound = Key("float", low=low, high=high)
                if schema.check(bound, conf[other])[1]:
                    message = f"is {schema.shown(conf[name])}, and {other} is {schema.shown(conf[other])}, which must then "
                    self.report(f"{group}.{name}", f"{message}be {schema.expects(bound)}",
                                f"correct {other}, or leave {name} out")

    def settle(self, conf: dict[str, Any]) -> dict[str, Any]:
        """Replace what was left open: f, quorum, engine, clock; trackers as a list."""
        conf["f"] = declared(conf)
        trackers = [conf["tracker"]] if isinstance(conf["tracker"], str) else conf["tracker"]
        conf["tracker"] = [name for name in dict.fromkeys(trackers) if name != "none"]
        if conf["quorum"] == "n-f":
            conf["quorum"] = conf["num_workers"] - conf["f"]
        if conf["engine"] == "auto":
            conf["engine"] = conf["model"]["_engine_"]
        if conf["clock"] == "auto":
            conf["clock"] = "virtual" if self.simulate else "wall"
        return conf
