"""The policy `on_nan` about rows and losses that are not finite: each is named with its node and step.

It looks at what single nodes send. What has become of the run is `kuiper.record.divergence`'s.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from kuiper.errors import JobFailed
from kuiper.link import Gathered
from kuiper.record import Recorder


class NonFinitePolicy:
    """Looks for NaN and Inf.

    Args:
        policy: 'stop' ends the job, 'drop' leaves the rows out; None leaves them to the rule (robust
            ones put them infinitely far away), looks at losses only, and says so once.
        unit: what one iteration is called.
    """

    def __init__(self, policy: str | None, recorder: Recorder, unit: str = "step") -> None:
        self.policy = policy
        self.unit = unit
        self.recorder = recorder
        self._said = False

    def passed(self, step: int, nodes: np.ndarray, rows: torch.Tensor, losses: np.ndarray) -> np.ndarray:
        """Mask (m,) of the rows to use.

        Raises:
            JobFailed: one is not finite, and the policy is to stop.
        """
        finite = np.isfinite(losses)
        if self.policy is not None:
            finite &= np.isfinite(rows.sum(1, dtype=torch.float64).cpu().numpy())
        if finite.all():
            return finite
        bad = nodes[~finite].tolist()
        if self.policy == "stop":
            raise JobFailed(f"{self.unit} {step}: NaN or Inf from nodes {bad}",
                            "lower optimizer.lr, use a robust aggregator, or set on_nan: drop")
        if self.policy == "drop" or not self._said:
            self._said = True
            self.recorder.log.warning("%s %d: NaN or Inf from nodes %s", self.unit, step, bad)
            self.recorder.metrics.event("not_finite", step=step, nodes=bad, dropped=self.policy == "drop")
        return finite if self.policy == "drop" else np.ones(len(nodes), bool)

    def gathered(self, step: int, rows: Gathered) -> Gathered:
        """The rows of a gather that are to be used."""
        kept = self.passed(step, rows.nodes, rows.rows, rows.columns["loss"])
        if kept.all():
            return rows
        if not kept.any():
            raise JobFailed(f"{self.unit} {step}: NaN or Inf from all {len(kept)} nodes", "lower optimizer.lr")
        columns = {name: values[kept] for name, values in rows.columns.items()}
        places = torch.from_numpy(np.flatnonzero(kept)).to(rows.rows.device)
        return replace(rows, nodes=rows.nodes[kept], rows=rows.rows[places], columns=columns)


def finite_models(thetas_kd: torch.Tensor) -> np.ndarray:
    """Mask (k,) of the models without a NaN or an infinity; one model that stands for all is read once."""
    read = thetas_kd if thetas_kd.stride(0) else thetas_kd[:1]
    finite = read.sum(1).isfinite()
    if not finite.all():  # a sum may overflow where no value does
        finite = read.isfinite().all(1)
    return np.broadcast_to(finite.cpu().numpy(), len(thetas_kd))
