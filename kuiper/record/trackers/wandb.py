"""Weights & Biases: one run per job, under the job's run_id, so that a resumed job goes on in it.

WANDB_PROJECT (default kuiper), WANDB_ENTITY and WANDB_MODE count as everywhere. Without WANDB_MODE it
is online where WANDB_API_KEY is set (name it in the spec's `secrets`) and offline elsewhere;
`wandb sync` uploads an offline run later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

_INIT_SECONDS = 30.0
_TAGGED = ("algorithm", "aggregator", "attack", "model", "dataset")


class Wandb:
    """See `kuiper.record.trackers.Tracker`."""

    def __init__(self, run: wandb.Run) -> None:
        self._run = run
        run.define_metric("*", step_metric="step")  # evaluations come after their step's line

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
        wandb.teardown()  # its helper process ends with the run, not some time after it


def start(folder: Path, config: Mapping[str, Any]) -> Wandb:
    job, conf = config["job"], config["conf"]
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    settings = wandb.Settings(mode=mode, silent=True, console="off", init_timeout=_INIT_SECONDS)
    return Wandb(wandb.init(
        project=os.environ.get("WANDB_PROJECT", "kuiper"), group=job["job_name"],
        name=f"{job['job_name']} {job['run_id']}", id=job["run_id"], resume="allow",
        dir=str(folder), config=dict(config),
        tags=[job["mode"], *(conf[group]["_name_"] for group in _TAGGED)], settings=settings))
