"""How long a run takes to reach an accuracy: the number that federated studies compare."""

from __future__ import annotations

from kuiper.analysis.runs import Run


def time_to_accuracy(run: Run, target: float) -> float | None:
    """Seconds on the run's clock at the first evaluation of at least `target` percent top-1.

    No interpolation between evaluations: the model was not seen to be that good before. A model that has
    diverged reaches nothing.

    Returns:
        Seconds, or None where the run never got there.
    """
    return next((run.clock[index] for index in run.sound if run.top_1[index] >= target), None)
