"""Short names for runs: what differs between their configurations, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

_PARTS = 3  # that a label shows before it leaves out what is not needed to tell runs apart


class _Setting(NamedTuple):
    text: str
    is_choice: bool  # says enough without its key: multi_krum, but seed=1


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """One label per resolved configuration (`{"job": ..., "conf": ...}`).

    A group that differs gives its choice (`multi_krum`), a value that differs `key=value`, groups
    first. Equal configurations fall back to the job's name, then to the run's id.
    """
    settings = [_flatten(config) for config in configs]
    keys = _differing(settings)
    if keys:
        shown = _enough(settings, keys)
        return [_join(each, shown) for each in settings]
    jobs = [config["job"] for config in configs]
    names = [str(job["job_name"]) for job in jobs]
    if len(names) > 1 and len(set(names)) == 1:
        return [f"{job['job_name']} {job['run_id']}" for job in jobs]
    return names


def is_other_data(key: str) -> bool:
    """Whether runs that differ in this key are scored on other samples or another task."""
    return key in ("task", "dataset") or key.startswith("dataset.") and key not in ("dataset.root", "dataset.download")


def differing_keys(configs: Sequence[dict[str, Any]]) -> set[str]:
    """Keys of `conf` (`aggregator`, `seed`, `aggregator.m`, ...), `mode` and `task` that are not equal in all."""
    return set(_differing([_flatten(config) for config in configs]))


def show(value: Any) -> str:
    """A value as a person would write it: floats short, None as none."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and value:
        return "+".join(show(one) for one in value)
    if isinstance(value, dict) and "_name_" in value:
        return str(value["_name_"])
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flatten(config: dict[str, Any]) -> dict[str, _Setting]:
    """Groups first (`aggregator`), then the mode, then values (`seed`) and parameters (`aggregator.m`)."""
    choices: dict[str, _Setting] = {}
    values = {key: _Setting(show(config["job"].get(key)), True) for key in ("mode", "task")}
    for key, value in config["conf"].items():
        if not isinstance(value, dict):
            values[key] = _Setting(show(value), False)
            continue
        name = show(value.get("_name_"))
        choices[key] = _Setting(f"no {key}" if name == "none" else name, True)
        for parameter, content in value.items():
            if not parameter.startswith("_"):
                values[f"{key}.{parameter}"] = _Setting(show(content), False)
    return {**choices, **values}


def _differing(settings: Sequence[dict[str, _Setting]]) -> list[str]:
    """Keys whose values differ. Where a choice differs, its parameters' differences say nothing more."""
    found: list[str] = []
    for key in dict.fromkeys(key for each in settings for key in each):
        if key.partition(".")[0] not in found and len({each.get(key) for each in settings}) > 1:
            found.append(key)
    return found


def _enough(settings: Sequence[dict[str, _Setting]], keys: list[str]) -> list[str]:
    """The first `_PARTS` keys, or as many as make every label unique; and all that tell the data."""
    for count in range(_PARTS, len(keys)):
        shown = keys[:count] + [key for key in keys[count:] if is_other_data(key)]
        if len({_join(each, shown) for each in settings}) == len(settings):
            return shown
    return keys


def _join(settings: dict[str, _Setting], keys: Sequence[str]) -> str:
    last_words = [key.rpartition(".")[2] for key in keys]
    parts = []
    for key, word in zip(keys, last_words, strict=True):
        if key in settings:
            text, is_choice = settings[key]
            parts.append(text if is_choice else f"{word if last_words.count(word) == 1 else key}={text}")
    return ", ".join(parts)
