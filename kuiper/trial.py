"""`python -m kuiper.trial`: build a job once, in a folder that is removed, and print what fails as JSON.

The resolved configuration comes on stdin. Each part is made as a process of the job makes it, and used
once: a gradient, a score, the rule and the attack on rows of noise.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kuiper.config.bounds import arrival, expected
from kuiper.config.build import Builder
from kuiper.data import Dataset
from kuiper.errors import KuiperError, SpecError
from kuiper.learner import Learner
from kuiper.record import Recorder
from kuiper.record.keeper import Keeper

SCORED = 1000  # test samples
VALUES = 1 << 22  # of noise that an attack is tried on
_KEY = re.compile(r"([a-z_]+(?:\.[a-z_]+)?): (.*)", re.DOTALL)
Problem = dict[str, str]


def trial(config: Mapping[str, Any]) -> dict[str, Any]:
    """Build a job and use each of its parts once.

    Args:
        config: the resolved configuration.

    Returns:
        problems: what failed, each with key, message and remedy; warnings: what the log of a run would say;
        job: what was built, where nothing failed.
    """
    kept, log = _Kept(logging.WARNING), logging.getLogger("kuiper")
    log.addHandler(kept)
    try:
        with tempfile.TemporaryDirectory(prefix="kuiper-trial-") as folder:
            tried = _Trial(config, Path(folder))
            tried.run()
    finally:
        log.removeHandler(kept)
    return {"problems": tried.problems, "warnings": kept.lines, "job": tried.built if not tried.problems else {}}


class _Kept(logging.Handler):
    """Keeps each message once."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (line := record.getMessage()) not in self.lines:
            self.lines.append(line)


class _Trial:
    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self.config, self.conf, self.folder = config, config["conf"], folder
        self.builder = Builder(config)
        self.problems: list[Problem] = []
        self.built: dict[str, Any] = {}

    def run(self) -> None:
        """Parts that need no other first; then those that are made of them, up to the first that fails."""
        conf, builder = self.conf, self.builder
        torch.set_num_threads(conf["threads"])
        adversary = self.attempt("attack", builder.adversary)
        for key, part in (("schedule", self.schedule), ("selector", self.selector), ("devices", builder.clock),
                          ("optimizer", lambda: builder.make("optimizer"))):
            self.attempt(key, part)
        data = self.attempt("dataset", self.dataset)
        if data is None:
            return
        self.attempt("partition", lambda: self.partition(data))
        self.attempt("model", lambda: self.model(data))
        if self.problems:
            return
        learner = self.attempt("engine", lambda: builder.learner(adversary, "cpu", data))
        if learner is None:
            return
        self.attempt("model", lambda: self.learn(learner))
        self.attempt("loss", lambda: self.score(learner, data))
        self.attempt("algorithm", lambda: self.rule(learner, adversary))
        if adversary.acts_on in ("gather", "rows", "batches"):
            self.attempt("attack", lambda: self.attack(learner, adversary))
        self.built |= {"parameters": learner.parameters, "samples": len(learner.data.train_y),
                       "shape": list(data.shape), "classes": data.classes, "smallest_shard": int(learner.batches.sizes.min())}

    def attempt(self, key: str, make: Callable[[], Any]) -> Any:
        """What it makes; None where it fails, which is noted."""
        try:
            return make()
        except KuiperError as error:
            found = _KEY.fullmatch(error.message)
            named = found and found[1].split(".")[0] in self.conf
            self.note(found[1] if named else key, f"fails: {found[2] if named else error.message}", error.remedy)
        except (Exception, SystemExit) as error:
            group = self.conf.get(key)
            target = group.get("_target_", key) if isinstance(group, Mapping) else key
            said = str(error).strip().splitlines() or [""]
            self.note(key, f"fails: {target} raised {type(error).__name__}: {said[0][:300]}{self.place(error)}",
                      "correct the function, or the parameters that the spec gives it")
        return None

    def note(self, key: str, message: str, remedy: str) -> None:
        problem = {"key": key, "message": message, "remedy": remedy}
        if problem not in self.problems:
            self.problems.append(problem)

    def place(self, error: BaseException) -> str:
        """The last line of the user's own code in a traceback; '' where there is none."""
        folder = Path(self.config["job"]["spec_folder"])
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).parent == folder]
        return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""

    def schedule(self) -> None:
        schedule, steps = self.builder.factory("schedule"), self.conf["steps"] or self.conf["rounds"] or 100
        for step in (0, steps - 1):
            scale = schedule(step, steps)
            if not isinstance(scale, int | float) or not math.isfinite(scale):
                raise SpecError(f"schedule: gives {scale!r} at step {step} of {steps}", "return a finite number")

    def selector(self) -> None:
        clients = np.arange(self.builder.n)
        chosen = np.asarray(self.builder.make("selector").select(1, min(2, len(clients)), clients, self.builder.seed))
        if not np.isin(chosen, clients).all():
            raise SpecError(f"selector: selects {chosen.tolist()} of clients 0 to {len(clients) - 1}",
                            "return ids of clients")

    def dataset(self) -> Dataset:
        data = self.builder.make("dataset", self.builder.seed)
        if not isinstance(data, Dataset):
            raise SpecError(f"dataset: the function returns {type(data).__name__}", "return a kuiper.data.Dataset")
        return self.builder.split(data)

    def partition(self, data: Dataset) -> None:
        shards, n = self.builder.shards(data.train_y.numpy()), self.builder.n
        if len(shards) != n:
            raise SpecError(f"partition: gives {len(shards)} shards for {n} nodes",
                            "return one array of indices per node")
        index = np.concatenate([np.asarray(shard) for shard in shards])
        if index.dtype.kind not in "iu" or not 0 <= index.min() <= index.max() < len(data.train_y):
            raise SpecError(f"partition: its indices are {index.dtype}, and not all of 0 to {len(data.train_y) - 1}",
                            "return indices of training samples, int64")

    def model(self, data: Dataset) -> None:
        model = self.builder.model(data, "cpu")
        model.module.eval()
        with torch.no_grad():
            logits = model.forward(data.train_x[:2])
        expected = (len(data.train_x[:2]), data.classes)
        if tuple(logits.shape) != expected:
            raise SpecError(f"model: puts out shape {list(logits.shape)} for {expected[0]} samples of "
                            f"{expected[1]} classes",
                            f"let its last layer have {expected[1]} outputs")

    def learn(self, learner: Learner) -> None:
        """One gradient, of an attacker where there is one, and one step along it."""
        attackers = learner.batches.adversary.byzantine
        nodes = np.array([attackers[0] if len(attackers) else 0])
        rows, _ = learner.gradients(learner.model.theta.clone(), nodes, batch=1)
        optimizer = self.builder.optimizer(learner)

        def step() -> None:
            theta = learner.model.theta.clone()[None]
            moved, _ = optimizer.step(theta, rows, optimizer.init(theta), 1.0)
            if moved.shape != theta.shape:
                raise SpecError(f"optimizer: its step makes {list(moved.shape)} of {list(theta.shape)}",
                                "return one row a model")

        self.attempt("optimizer", step)

    def score(self, learner: Learner, data: Dataset) -> None:
        learner.data = replace(learner.data, test_x=data.test_x[:SCORED], test_y=data.test_y[:SCORED])
        learner.evaluate(learner.model.theta.clone())

    def rule(self, learner: Learner, adversary: Any) -> None:
        """The algorithm's own rehearsal, which aggregates zeros, and that the rule gives a vector."""
        with Recorder(self.folder, "trial") as recorder:
            job = self.builder.job(adversary, learner, recorder, Keeper())
            algorithm = self.builder.algorithm(job, records=False)
            if not self.conf["algorithm"].get("_rule_"):
                return
            self.attempt("aggregator", algorithm.rehearse)
            self.attempt("aggregator", lambda: self.aggregate(learner))

    def aggregate(self, learner: Learner) -> None:
        """The rule on noise, as many rows as arrive."""
        rows, f = arrival(self.conf).rows, expected(self.conf, self.builder.f, arrival(self.conf).rows)
        if rows * learner.size > VALUES:
            return
        noise = torch.randn(rows, learner.size, generator=torch.Generator().manual_seed(0))
        made = self.builder.rule(learner)(noise, f, 1)
        require_tensor("aggregator", made, "return a vector (d,)")
        if made.shape != noise.shape[1:]:
            raise SpecError(f"aggregator: makes shape {list(made.shape)} of rows {list(noise.shape)}",
                            "return a vector (d,)")

    def attack(self, learner: Learner, adversary: Any) -> None:
        n, attackers = self.builder.n, adversary.byzantine
        if n > VALUES // 8 or not len(attackers):
            return
        width = min(learner.size, max(8, VALUES // n))
        noise = torch.randn(n, width, generator=torch.Generator().manual_seed(0))
        nodes, count = np.arange(n), len(attackers)
        if adversary.acts_on == "batches":
            noise = torch.randn(count, adversary.batches, width, generator=torch.Generator().manual_seed(0))
            sent = adversary.guessed(noise, 1)
        elif adversary.acts_on == "gather":
            sent = adversary.replaced(nodes, noise, {}, 1)[attackers]
        else:
            sent = adversary.leaving(nodes, noise, 1)[attackers]
        require_tensor("attack", sent, "return (f, d)")
        if list(sent.shape) != [count, width]:
            raise SpecError(f"attack: makes shape {list(sent.shape)} for {count} attackers' rows of {width}",
                            "return (f, d)")


def require_tensor(group: str, value: Any, remedy: str) -> None:
    """Raise unless a function of this group has returned a tensor of real numbers."""
    if not isinstance(value, torch.Tensor):
        raise SpecError(f"{group}: the function returns {type(value).__name__}, not a tensor", remedy)
    if not value.is_floating_point():
        raise SpecError(f"{group}: the function returns a tensor of {value.dtype}", "return one of float32")


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    with redirect_stdout(sys.stderr):  # what the user's own modules print is no report
        told = trial(json.load(sys.stdin))
    json.dump(told, out)
    out.flush()
    os._exit(0)  # threads of the user's own must not hold up the end


if __name__ == "__main__":
    main()
