"""Whether the hosts of a job have its data set, and the same one, as their processes would find it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster import holdings
from kuiper.cluster.fitness import Finding
from kuiper.cluster.host import AT_ONCE, connect
from kuiper.cluster.survey import ENDING, Facts, contained
from kuiper.errors import HostError
from kuiper.places import DEFAULT_ROOT

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

SECONDS = 120.0


def of_dataset(spec: Spec, conf: Mapping[str, Any], facts: Mapping[str, Facts]) -> Iterator[Finding]:
    """Where each host has what the data set reads, and who has something else than most.

    Args:
        conf: the resolved job_conf, as in config.yaml.
        facts: of the hosts that could be asked.
    """
    dataset = conf["dataset"]
    for parameter, files in dataset.get("_files_", {}).items():
        order = {"given": dataset[parameter], "default": DEFAULT_ROOT, "files": files}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = pool.map(partial(_ask, spec, order), facts.items())
            found = dict(zip(facts, answers, strict=True))
        held = Counter(one["digest"] for one in found.values() if isinstance(one, dict) and one["place"])
        usual = held.most_common(1)[0][0] if held else ""
        for name, one in found.items():
            yield _finding(name, conf, parameter, one, usual)


def _ask(spec: Spec, order: dict[str, Any], host: tuple[str, Facts]) -> dict[str, Any] | str:
    """What holdings.py says there, after the setup commands; or why it cannot be asked."""
    name, facts = host
    words = [facts["path"], "-c", Path(holdings.__file__).read_text(), json.dumps(order)]
    try:
        words = contained(facts["path"], spec.setup_commands, words, not spec.python_of(name), SECONDS)
        done = connect(spec.address(name)).run(words, SECONDS + ENDING)
        said: dict[str, Any] = done.answer()
    except HostError as error:
        return error.message
    except ValueError:
        return f"cannot be looked for: {(done.err or done.out).strip()[-300:]}"
    return said


def _finding(
    name: str, conf: Mapping[str, Any], parameter: str, found: dict[str, Any] | str, usual: str
) -> Finding:
    dataset = conf["dataset"]
    if isinstance(found, str):
        return Finding(name, "dataset", "wrong", found, "log in by hand and try it")
    if found["relative"]:
        return Finding(name, "dataset", "wrong", f"{parameter} is relative: {found['looked'][0]}", "write it in full")
    if not found["place"]:
        missing = f"there is no {' or '.join(found['looked'])}"
        if dataset.get("download"):
            return Finding(name, "dataset", "warning", f"{missing}: it will be downloaded")
        remedy = f"copy it there, or give `dataset: {{{dataset['_name_']}: {{{parameter}: ...}}}}`"
        remedy += ", or `export KUIPER_DATA=...` in setup_commands" * (dataset[parameter] is None)
        return Finding(name, "dataset", "wrong", missing, remedy)
    what = f"{found['place']}, {found['bytes'] / 1e6:.1f} MB, {found['digest']}"
    if found["digest"] != usual and not conf["allow_different_data"]:
        return Finding(name, "dataset", "wrong", f"{what}: not the files that other hosts have ({usual}); a job over "
                       "different samples fails at its start", "copy them from one host to all, or write "
                       "`allow_different_data: true` in job_conf where each is meant to have its own")
    return Finding(name, "dataset", "ok", what)
