"""Reading finished or running runs back: means over seeds, time to accuracy, tables, pictures."""

from kuiper.analysis.curves import Curve, load_curves
from kuiper.analysis.headline import caption, cautions
from kuiper.analysis.panels import X
from kuiper.analysis.plot import check_clocks, check_output, plot_curves
from kuiper.analysis.runs import Run, load_runs
from kuiper.analysis.style import Width
from kuiper.analysis.summary import compare
from kuiper.analysis.time_to_accuracy import time_to_accuracy

__all__ = [
    "Curve", "Run", "Width", "X", "caption", "cautions", "check_clocks", "check_output", "compare", "load_curves",
    "load_runs", "plot_curves", "time_to_accuracy",
]  # fmt: skip
