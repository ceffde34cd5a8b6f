"""The one object through which a process records what it does."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from kuiper.errors import JobFailed
from kuiper.record.divergence import REMEDY, Divergence
from kuiper.record.log import bunyan_logger
from kuiper.record.metrics import MetricsLog
from kuiper.record.perf import TrainingPerf, dump_perf
from kuiper.record.trackers import Trackers

PHASES = ("compute", "wait", "aggregate", "communicate", "evaluate")


class Recorder:
    """Writes `metrics.jsonl` and the log of one process and, on rank 0, `training_perf`.

    Args:
        folder: the process's folder in the run directory; must exist.
        name: of the process, e.g. ps or worker_1.
        header: arguments of `TrainingPerf` on rank 0; None elsewhere.
        on_divergence: 'go_on', or 'stop' to end the job; on rank 0, which alone looks for it.
        unit: what one iteration is called, step or round; log lines say it.

    Attributes:
        log: a logger whose JSON lines go to stderr, which the agent keeps as the process's log.
        metrics: for events that have no method here: `metrics.event("late", node=3)`.

    Raises:
        RecordError: from every method, when something cannot be written.
    """

    def __init__(self, folder: Path, name: str, header: dict[str, Any] | None = None,
                 on_divergence: str = "go_on", unit: str = "step") -> None:
        self.log = bunyan_logger(name, sys.stderr)
        self.metrics = MetricsLog(Path(folder) / "metrics.jsonl")
        self._perf = None if header is None else TrainingPerf(**header)
        self._perf_path = Path(folder) / "training_perf"
        self._divergence = Divergence()
        self._on_divergence = on_divergence
        self._trackers = Trackers((), folder, {}, self.log)
        self._unit = unit
        self._ended = False
        self._began = time.perf_counter()
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._active: list[tuple[str, object]] = []
        self._changed = self._began
        self._totals = {"phases": dict.fromkeys(PHASES, 0.0), "bytes_in": 0, "bytes_out": 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def track(self, names: Iterable[str], config: Mapping[str, Any]) -> None:
        """From now on tell these trackers too: `wandb`, `tensorboard`. One that fails is a warning."""
        self._trackers = Trackers(names, self.metrics.path.parent, config, self.log)

    def start(self, **values: Any) -> None:
        """The line that tells readers what to expect: steps, unit, algorithm, processes, ..."""
        self.metrics.event("start", **values)
        self.log.info("training begins", extra=values)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the record, plain builtins: evaluations, totals and seconds so far."""
        perf = list(self._perf.perf.values()) if self._perf else []
        return {"perf": perf, "totals": {**self._totals, "phases": dict(self._totals["phases"])},
                "wall": time.perf_counter() - self._began, "divergence": self._divergence.state()}

    def resume(self, step: int, state: Mapping[str, Any] | None, **values: Any) -> None:
        """Go on after `step`: drop what was recorded later, and take up what `state` said of the record."""
        self.metrics.cut(step)
        self.metrics.event("resumed", step=step, **values)
        self.log.info("training goes on", extra={"step": step, "unit": self._unit, **values})
        if state is not None:
            self._began = time.perf_counter() - state["wall"]
            self._totals = state["totals"]
            if "divergence" in state:  # not in checkpoints of older versions
                self._divergence.resume(state["divergence"])
            if self._perf is not None:
                self._perf.diverged = self._divergence.step
                self._perf.perf = {entry["round"]: entry for entry in state["perf"]}
                dump_perf(self._perf_path, self._perf.as_dict())

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the wall seconds of a `with` block to one of `PHASES`; the next step line has them.

        A block inside another interrupts it, also where they belong to coroutines that take turns (a
        simulated server waits while the workers compute): phases never sum to more than the step.
        """
        if name not in self._seconds:
            raise KeyError(name)
        block = (name, object())
        self._charge()
        self._active.append(block)
        try:
            yield
        finally:
            self._charge()
            self._active.remove(block)

    def _charge(self) -> None:
        """Give the seconds since the last change of phase to the innermost active one."""
        now = time.perf_counter()
        if self._active:
            self._seconds[self._active[-1][0]] += now - self._changed
        self._changed = now

    def step(self, step: int, **values: Any) -> None:
        """One step is over: write its values and the seconds of each phase since the last step.

        Args:
            step: the step or round that is over.
            values: clock, loss, bytes_in, bytes_out (of this step), rows, late.

        Raises:
            JobFailed: the run has diverged, and is to stop then.
        """
        self._charge()
        diverges = self._diverges(step, values.get("loss"))
        self.metrics.event("step", step=step, **values, **self._seconds, **self._mark())
        self._trackers.step(step, values, self._seconds)
        for name, seconds in self._seconds.items():
            self._totals["phases"][name] += seconds
        self._seconds = dict.fromkeys(PHASES, 0.0)
        for name in ("bytes_in", "bytes_out"):
            self._totals[name] += values.get(name, 0)
        if diverges:
            self._diverged(step, values.get("loss"))

    def watch(self, step: int, loss: float | None = None, fault: str = "") -> None:
        """Look for divergence before a step is recorded, or in what a step does not record.

        Args:
            loss: the training loss, where what comes next may fail for it.
            fault: what is wrong with the model; "" for nothing.

        Raises:
            JobFailed: the run has diverged, and is to stop then.
        """
        if self._diverges(step, loss, fault=fault):
            self._diverged(step, loss)

    def _diverges(self, step: int, loss: float | None, name: str = "training loss", fault: str = "") -> bool:
        """Whether the run has diverged at this step and not before; rank 0 sees all of it."""
        return self._perf is not None and self._divergence.look(step, loss, name, fault)

    def _diverged(self, step: int, loss: float | None) -> None:
        """Say so in metrics.jsonl, training_perf and the log."""
        said = f"diverged at {self._unit} {step}: {self._divergence.reason}"
        self.metrics.event("diverged", step=step, reason=self._divergence.reason, loss=loss)
        self._perf.diverged = step
        dump_perf(self._perf_path, self._perf.as_dict())
        if self._on_divergence == "stop":
            raise JobFailed(said, REMEDY)
        self.log.warning("%s; %s; `on_divergence: stop` ends a run here", said, REMEDY, extra={"step": step, "unit": self._unit})

    def _mark(self) -> dict[str, int]:
        """What lines from the first diverged step on say besides."""
        return {} if self._divergence.step is None else {"diverged": self._divergence.step}

    def evaluation(
        self, step: int, clock: float, top_1: float, top_5: float, loss: float, digest: str = "", **more: Any
    ) -> None:
        """The model after `step` was scored on the test set; rank 0 rewrites `training_perf`.

        Args:
            step: 0 is the initial model.
            clock: seconds, of the step that the evaluation follows.
            top_1: percent; the mean over honest nodes for peers.
            top_5: percent.
            loss: mean test loss.
            digest: of the bits of the model or models; equal digests, equal runs.
            more: further values: worst and average_model for peers, validation_top_1 and its like.

        Raises:
            JobFailed: the run has diverged, and is to stop then; the evaluation is written before that.
        """
        scores = {"clock": clock, "top_1": top_1, "top_5": top_5, "loss": loss, **more}
        diverges = self._diverges(step, loss, "test loss")
        self.metrics.event("evaluation", step=step, **scores, **self._mark(), digest=digest)
        self.log.info("evaluation", extra={"step": step, "unit": self._unit, **scores, **self._mark()})
        self._trackers.evaluation(step, scores)
        if self._perf is not None:
            wall = time.perf_counter() - self._began
            self._perf.add(step, **scores, **self._totals, wall=wall)
            dump_perf(self._perf_path, self._perf.as_dict())
        if diverges:
            self._diverged(step, loss)

    def end(self, step: int) -> None:
        """The job reached its end after `step`."""
        self.metrics.event("end", step=step)
        self.log.info("training ends", extra={"step": step, "unit": self._unit})
        self._ended = True

    def close(self) -> None:
        """Close the trackers and metrics.jsonl; closing twice is fine."""
        self._trackers.close(failed=not self._ended)
        self.metrics.close()
