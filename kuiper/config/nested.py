"""Choices within a choice: the rule that CTMA wraps, and a list of pre-aggregators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kuiper import registry
from kuiper.config import metadata, schema, source, targets
from kuiper.config.choices import Catalogue
from kuiper.config.metadata import CARRIED, MISSING
from kuiper.config.schema import Problem
from kuiper.config.signatures import call_of
from kuiper.errors import SpecError

DEPTH = 8
Report = Callable[[str, str, str], None]  # key in job_conf, message, remedy


def resolve(group: str, key: str, word: Any, known: Catalogue, allow: Sequence[str], folder: Path,
            report: Report, depth: int = 0) -> dict[str, Any] | None:
    """What `name` or `{name: {parameter: value}}` below a key comes to; None where something is wrong.

    Args:
        group: 'aggregator' or 'pre_aggregator'.
        key: where it stands in job_conf, for reports.
        allow, folder: of the spec, as `targets.refusal` takes them.
    """
    try:
        name, given = registry.split(word)
    except SpecError as error:
        report(key, f"is {schema.shown(word)}, and must be a choice", error.remedy)
        return None
    files = known.files[group]
    if name not in files:
        report(key, f"is {schema.shown(name)}, and there is no such {group}", schema.nearest(name, files))
        return None
    if depth > DEPTH:
        report(key, f"is a rule within more than {DEPTH} others", "write it flatter")
        return None
    if files[name] in known.broken:
        return None
    conf, wrong = source.load(files[name]).data, []
    faults = [Problem(str(files[name]), *fault) for fault in metadata.faults(group, conf)]
    keys = {} if faults else metadata.keys(conf)
    for parameter in given:
        if parameter not in keys and not faults:
            wrong.append((parameter, f"is not a parameter of {name}", schema.nearest(parameter, keys)))
    conf = {parameter: value for parameter, value in conf.items() if parameter in (*CARRIED, *keys)}
    conf |= {parameter: value for parameter, value in given.items() if parameter in keys}
    for parameter, allowed in keys.items():
        conf[parameter], said = schema.check(allowed, conf[parameter])
        if conf[parameter] == MISSING:
            said = "is missing"
        if said:
            wrong.append((parameter, said, f"correct it, or leave it out for the default of {name}"))
    for target in targets.mentioned(conf):
        message, remedy = targets.refusal(target, allow, folder, call_of(group, conf), here=False)
        if message:
            wrong.append(("_target_", message, remedy))
    wrong += [(one.key, f"of {one.where} {one.message}", one.remedy) for one in faults]
    for parameter, message, remedy in wrong:
        report(f"{key}.{parameter}" if parameter else key, message, remedy)
    if wrong:
        return None
    made = {"_name_": name} | conf
    return made if rules(made, key, known, allow, folder, report, depth) else None


def rules(conf: dict[str, Any], key: str, known: Catalogue, allow: Sequence[str], folder: Path,
          report: Report, depth: int = 0) -> bool:
    """Replace the words of parameters that are rules by what they come to; whether all could be."""
    good = True
    for parameter in conf.get("_rules_") or ():
        conf[parameter] = resolve("aggregator", f"{key}.{parameter}", conf[parameter], known, allow, folder,
                                  report, depth + 1)
        good &= conf[parameter] is not None
    return good
