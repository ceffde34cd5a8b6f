"""`check conf.yml`: everything that is wrong with a job, or what it amounts to. Starts nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kuiper import registry
from kuiper.cli.called import as_called
from kuiper.config.schema import InvalidSpec
from kuiper.errors import KuiperError


def check(
    path: str | Path, overrides: Sequence[str] = (), simulate: bool = False, as_json: bool = False,
    servers: Path | None = None, workers: Path | None = None, build: bool = False,
) -> int:
    """Print "ok: ..." with a summary, or all problems (on stderr); notes on how it was read on stderr.

    Args:
        path: of conf.yml.
        overrides: "key=value" options.
        simulate: check it as a simulation.
        as_json: one object on stdout instead: ok, problems, and when it is ok config (of the first seed),
            seeds (all) and notes, and with build also built, what it came to.
        servers, workers: host files.
        build: also build it once on this machine, with torch.

    Returns:
        Exit code: 0, or that of the error.
    """
    from kuiper.cluster.launch import composed
    from kuiper.cluster.preflight import check_ports, crowding
    from kuiper.cluster.rehearsal import build_once
    from kuiper.cluster.spec import load
    from kuiper.config.sizes import warnings

    try:
        spec = load(path, overrides, simulate, servers, workers)
        specs = spec.each()
        configs = [composed(one, simulate) for one in specs]
        check_ports(configs[0], len(configs))
        built = build_once(specs[0], configs[0]) if build else {}
    except KuiperError as error:
        if as_json:
            print(json.dumps({"ok": False, "problems": _problems(error)}))
        else:
            count = len(getattr(error, "problems", [error]))
            print(f"{as_called(str(error))}\n\n{count} problem{'s' * (count > 1)}; nothing was started", file=sys.stderr)
        return error.exit_code
    seeds = [config["conf"]["seed"] for config in configs]
    notes = [*spec.notes, *crowding(configs[0]), *(f"warning: {line}" for line in warnings(configs[0]["conf"])),
             *(f"warning: {line}" for line in built.pop("warnings", []))]
    if as_json:
        told = {"ok": True, "problems": [], "config": configs[0], "seeds": seeds, "notes": notes}
        print(json.dumps(told | ({"built": built} if build else {})))
    else:
        for line in notes:
            print(line, file=sys.stderr)
        more = [f"  then       the same with seed {seed}" for seed in seeds[1:]]
        if build:
            more.append(f"  built      {built['parameters']:,} parameters, {built['samples']:,} training samples of "
                        f"shape {built['shape']} in {built['classes']} classes, at least {built['smallest_shard']:,} a node")
        print("\n".join(summary(configs[0]) + more))
    return 0


def _problems(error: KuiperError) -> list[dict[str, str]]:
    if isinstance(error, InvalidSpec):
        return [{**asdict(one), "remedy": as_called(one.remedy)} for one in error.problems]
    return [{"where": "", "key": "", "message": error.message, "remedy": as_called(error.remedy)}]


def summary(config: dict[str, Any]) -> list[str]:
    """A resolved configuration in a few lines for a person."""
    from kuiper.config.bounds import LENGTHS, arrival, expected

    conf, job = config["conf"], config["job"]
    algorithm, rule = conf["algorithm"], conf["aggregator"]
    n, f, real = conf["num_workers"], conf["f"], conf["num_byzantine"]
    rows = [("algorithm", f"{_call(algorithm)}, {n} workers" + " without a server" * algorithm["_peers_"])]
    if algorithm["_rule_"]:
        comes, pres = arrival(conf), conf["pre_aggregator"]
        f = expected(conf, f, comes.rows)
        supply = f"needs {registry.least_rows(pres, rule, f)} rows: {comes.rows} arrive ({comes.why})"
        rows.append(("rule", f"{' + '.join(map(_call, [*pres, rule]))}, f = {f}, {supply}"))
    rows += [
        ("byzantine", f"{real} of {n}, attack {_call(conf['attack'])}" if real else "none"),
        ("data", f"{_call(conf['dataset'])}, {_call(conf['partition'])}, batch {conf['batch_size']}"),
        ("model", f"{_call(conf['model'])}, {conf['loss']}, {conf['engine']} engine"),
        ("optimizer", f"{_call(conf['optimizer'])}, schedule {_call(conf['schedule'])}"),
    ]
    length = next(key for key in LENGTHS if conf[key] is not None)
    every = f"evaluated every {conf['eval_interval']} {'rounds' if length == 'rounds' else 'steps'}"
    rows.append(("length", f"{conf[length]:g} {length}, {every}, seed {conf['seed']}"))
    if job["mode"] == "simulate":
        rows.append(("runs", f"in one process, {conf['clock']} clock, devices {_call(conf['devices'])}"))
    else:
        security = "TLS" if conf["security"] == "tls" else "no TLS"
        rows.append(("runs", f"over {conf['transport']}, {security}, {conf['clock']} clock"))
        for process in config["processes"]:
            rows.append((process["name"], f"{process['host']} {process['device']}{_nodes(process['nodes'])}"))
    return [f"ok: {job['job_name']}", *(f"  {name:<10} {text}" for name, text in rows)]


def _call(group: dict[str, Any]) -> str:
    """sgd(lr=0.1, momentum=0.9)"""
    given = {key: value for key, value in group.items() if not key.startswith("_") and value is not None}
    shown = {key: _call(value) if isinstance(value, dict) else value for key, value in given.items()}
    arguments = ", ".join(f"{key}={value}" for key, value in shown.items())
    return f"{group['_name_']}({arguments})" if given else group["_name_"]


def _nodes(nodes: list[int]) -> str:
    if not nodes:
        return ""
    return f", node {nodes[0]}" if len(nodes) == 1 else f", nodes {nodes[0]}-{nodes[-1]}"
