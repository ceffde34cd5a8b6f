"""What a run leaves behind: training_perf, metrics.jsonl, the log and the environment it ran in."""

from kuiper.record.environment import environment
from kuiper.record.perf import load_perf
from kuiper.record.recorder import Recorder

__all__ = ["Recorder", "environment", "load_perf"]
