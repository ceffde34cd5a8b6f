"""Reading finished or running runs back: comparisons, time to accuracy, pictures."""

from kuiper.analysis.plot import plot_runs
from kuiper.analysis.runs import Run, load_runs
from kuiper.analysis.summary import compare
from kuiper.analysis.time_to_accuracy import time_to_accuracy

__all__ = ["Run", "compare", "load_runs", "plot_runs", "time_to_accuracy"]
