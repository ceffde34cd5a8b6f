"""What a group's yaml says of itself, in keys that begin with '_', and what follows for its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kuiper.config import schema
from kuiper.config.schema import Key

ACTS_ON = ("rows", "labels", "inputs", "gather", "neighbours", "nothing_sent", "none")
METADATA: dict[str, Key] = {
    "_target_": Key("text", "what is built: module.name"),
    "_family_": Key("text", "of an algorithm", choices=("synchronous", "gossip", "federated")),
    "_peers_": Key("bool", "whether an algorithm has no server"),
    "_rule_": Key("bool", "whether an algorithm uses the aggregator and the quorum"),
    "_attacks_": Key("list", "the _acts_on_ of attacks that an algorithm can carry", items="text"),
    "_needs_": Key("mapping", "{f: a, plus: b}: a rule needs n >= a f + b rows"),
    "_most_": Key("mapping", "parameter: {n: a, f: b, plus: c}, at most a n + b f + c"),
    "_rules_": Key("list", "parameters that are rules themselves", items="text"),
    "_divides_": Key("text", "the parameter by which a pre-aggregator divides the number of rows"),
    "_derives_": Key("text", "an attack's parameter that, left empty, follows from n and the number of attackers"),
    "_trusts_": Key("bool", "whether a rule takes a row, by its place, on trust"),
    "_reorders_": Key("bool", "whether a pre-aggregator leaves no row in its place"),
    "_acts_on_": Key("text", "where an attack acts", choices=ACTS_ON),
    "_uses_rule_": Key("bool", "whether an attack searches against the receiver's rule"),
    "_beside_": Key("list", "parameters that are not the target's", items="text"),
    "_engine_": Key("text", "what suits a model", choices=("sequential", "batched")),
    "_files_": Key("mapping", "parameter: list of what a dataset reads below it, one of which must be there"),
    "_samples_": Key("mapping", "training samples of a dataset: {plus: a, PARAMETER: b}, a + b times that parameter"),
    "_shape_": Key("list", "of a dataset's samples: numbers, or parameters that say them"),
    "_classes_": Key("any", "of a dataset: a number, or the parameter that says it"),
    "_per_node_": Key("text", "the parameter of a partition that says how many samples or shards a node has at least"),
    "_even_": Key("bool", "whether a partition gives all nodes equally many samples, to one"),
    "_image_": Key("mapping", "what a model asks of images: {smallest: pixels a side, channels: [numbers]}"),
    "_losses_": Key("list", "the losses that suit what a model puts out", items="text"),
    "_batch_norm_": Key("mapping", "{PARAMETER: value}: a model with these has BatchNorm; {}: always"),
    "_draws_": Key("list", "parameters of a model that make it draw (dropout) where they are not 0", items="text"),
    "_goes_with_": Key("mapping", "parameter: {other: [low, high]}: where it is set, others must be in these bounds"),
    "_doc_": Key("text", "one line for users"),
    "_cost_": Key("text", "of a rule, in n rows of d entries"),
    "_breakdown_": Key("text", "how many Byzantine rows a rule stands"),
    "_source_": Key("text", "paper, and where in it"),
    "_bounds_": Key("mapping", "parameter: [low, high], null for an open end"),
    "_choices_": Key("mapping", "parameter: list of its only values"),
    "_types_": Key("mapping", "parameter: type, where the default is null"),
}
FOR_READERS = ("_doc_", "_cost_", "_breakdown_", "_source_", "_bounds_", "_choices_", "_types_")
CARRIED = tuple(key for key in METADATA if key not in FOR_READERS)  # into the resolved configuration
NEEDED = {
    "algorithm": ("_target_", "_family_", "_peers_", "_rule_", "_attacks_"),
    "aggregator": ("_target_", "_needs_"),
    "pre_aggregator": ("_target_", "_needs_"),
    "attack": ("_acts_on_",),
    "model": ("_target_", "_engine_"),
}
MISSING = "???"  # Hydra's word for what must be given
_KINDS = {"int": "int", "float": "float", "bool": "bool", "str": "text", "list": "list"}


def faults(group: str, conf: Any) -> Iterator[tuple[str, str, str]]:
    """What is wrong with the metadata of a composed group: key, message, remedy."""
    if not isinstance(conf, Mapping):
        yield "", f"leaves the group {group} empty", "remove its @package line, give it a _target_"
        return
    for key in NEEDED.get(group, ("_target_",)):
        if key not in conf:
            choices = f", {' or '.join(METADATA[key].choices)}" if METADATA[key].choices else ""
            yield key, f"is missing, and every {group} has it", f"add `{key}: ...`: {METADATA[key].doc}" + choices
    if conf.get("_acts_on_") in ACTS_ON[:5] and "_target_" not in conf:
        yield "_target_", "is missing", "add the function that attacks"
    for key, value in conf.items():
        if key.startswith("_") and key not in METADATA:
            yield key, "is no metadata that kuiper knows", schema.nearest(key, METADATA)
        elif key.startswith("_"):
            wrong = schema.check(METADATA[key], value)[1]
            for name, inner in value.items() if not wrong and isinstance(value, dict) else ():
                wrong = wrong or _inner(key, name, inner, conf)
            if wrong:
                yield key, wrong, METADATA[key].doc


def _inner(key: str, name: str, value: Any, conf: Mapping[str, Any]) -> str:
    """What is wrong with one entry of a mapping among the metadata."""
    known = {"_needs_": ("f", "plus"), "_image_": ("smallest", "channels"), "_samples_": ("plus", *conf)}
    if name not in known.get(key, conf):
        return f"names {name!r}, which is no parameter"
    if key == "_most_":
        fits = isinstance(value, dict) and set(value) <= {"n", "f", "plus"}
        return "" if fits else f"is {schema.shown({name: value})}"
    pair = isinstance(value, list) and len(value) == 2
    end = Key("float", null=True)
    fits = {
        "_needs_": not schema.check(Key("int", low=0), value)[1],
        "_samples_": isinstance(value, int),
        "_image_": isinstance(value, list if name == "channels" else int),
        "_batch_norm_": True,
        "_goes_with_": isinstance(value, dict) and value.keys() <= conf.keys(),
        "_bounds_": pair and not any(schema.check(end, one)[1] for one in value),
        "_choices_": isinstance(value, list),
        "_types_": isinstance(value, str) and value in _KINDS,
        "_files_": isinstance(value, list) and all(isinstance(path, str) for path in value),
    }
    return "" if fits[key] else f"is {schema.shown({name: value})}"


def keys(group: Mapping[str, Any]) -> dict[str, Key]:
    """What each parameter of a composed group may be, from its default and the group's metadata."""
    return {name: _key(name, default, group) for name, default in group.items() if not name.startswith("_")}


def _key(name: str, default: Any, group: Mapping[str, Any]) -> Key:
    low, high = (group.get("_bounds_") or {}).get(name, (None, None))
    choices = tuple((group.get("_choices_") or {}).get(name, ()))
    stated = (group.get("_types_") or {}).get(name)
    if name in (group.get("_rules_") or ()):
        return Key("choice")
    kind = _KINDS.get(stated) if stated else _kind(default)
    items = _kind(default[0]) if isinstance(default, list) and default else "int" if low is not None else "any"
    return Key(kind or "any", low=low, high=high, choices=choices, null=default is None, items=items)


def _kind(default: Any) -> str:
    for kind, types in (("bool", bool), ("int", int), ("float", float), ("list", list), ("mapping", dict)):
        if isinstance(default, types):
            return kind
    free = not isinstance(default, str) or default == MISSING or "${" in default
    return "any" if free else "text"
