"""Build a job once on this machine, in a process of its own, to find what only building it shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.cluster.agent import OVERDUE
from kuiper.cluster.host import LOCAL
from kuiper.cluster.survey import ENDING, contained
from kuiper.config.schema import InvalidSpec, Problem
from kuiper.errors import SpecError

if TYPE_CHECKING:
    from kuiper.cluster.spec import Spec

SECONDS = 600.0
PACKAGE = Path(__file__).resolve().parents[1]


def build_once(spec: Spec, config: Mapping[str, Any], seconds: float = SECONDS) -> dict[str, Any]:
    """Build the job and use each of its parts once; nothing is left of it.

    Args:
        config: what the spec resolved to.
        seconds: it may take.

    Returns:
        parameters, samples, shape, classes, smallest_shard: of what was built; warnings: lines about it.

    Raises:
        InvalidSpec: all that failed, each with its key and its place in the spec.
        SpecError: it did not end in time, or ended without a word.
    """
    argv = [sys.executable, "-P", "-m", "kuiper.trial"]
    if any(process["host"] == LOCAL for process in config["processes"]):  # as its processes here will run
        argv = contained(sys.executable, spec.setup_commands, argv, False, seconds)
    late = SpecError(f"building the job took more than {seconds:g} s", "look for what does not end in the data set, "
                     "the model and your own functions")
    try:
        done = subprocess.run(argv, input=json.dumps(config), capture_output=True, text=True, timeout=seconds + ENDING,
                              env=_environment())
    except subprocess.TimeoutExpired as error:
        raise late from error
    if done.returncode == OVERDUE:
        raise late
    told = done.stdout.splitlines()
    try:
        report = json.loads(told[-1])
    except (ValueError, IndexError) as error:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SpecError(f"the job cannot be built on this machine: {last[:300]}",
                        "it needs torch and all that the job's processes need; `check` alone does without") from error
    if report["problems"]:
        raise InvalidSpec(
            Problem(_place(spec, config, one["key"]), f"job_conf.{one['key']}", one["message"], one["remedy"])
            for one in report["problems"])
    return {**report["job"], "warnings": report["warnings"]}


def _place(spec: Spec, config: Mapping[str, Any], key: str) -> str:
    """The place of "seed", "model" or "model.name" in the spec."""
    group, _, parameter = key.partition(".")
    conf = config["conf"][group]
    name = conf["_name_"] if isinstance(conf, Mapping) else ""
    paths = [("job_conf", key), ("job_conf", group, name, parameter), ("job_conf", group, parameter)]
    known = [path for path in paths if path in spec.document.places]
    return spec.where(*known[0]) if known else spec.where("job_conf", group)


def _environment() -> dict[str, str]:
    """This process's, with the package where it is."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
