"""Accuracy against time and against steps, as a picture for a README or a paper."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kuiper.analysis.curves import Curve
from kuiper.analysis.layouts import for_paper, for_screen
from kuiper.analysis.panels import X
from kuiper.analysis.style import FORMATS, SIZES, Width, settings
from kuiper.errors import UsageError
from kuiper.record.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_curves(curves: Sequence[Curve], output: Path, x: X | None = None, width: Width | None = None) -> Path:
    """Draw the test accuracy of one or more configurations and write the picture atomically.

    Of several seeds a line is the mean, with a band for its confidence interval. Of a single run of peers a
    band reaches down to the worst honest one. Runs that have not ended, were stopped, failed or diverged are
    marked at their lines and in their labels.

    Args:
        curves: in the order of their colours.
        output: .png, .pdf, .svg or .eps, in a folder that is there.
        x: one panel, against time (the mean over the seeds at each evaluation) or steps or rounds; None: both,
            but for a column, which has one against time.
        width: in a paper: labels are below the panels, and no title is drawn. None: for a screen, where each
            line is named at its end with its last accuracy.

    Returns:
        `output`.

    Raises:
        UsageError: it cannot be a picture, or wall and virtual clocks would share an axis unasked.
        RecordError: the picture cannot be written.
    """
    output = Path(output)
    check_output(output)
    check_clocks(curves, x)
    import matplotlib  # only those who draw pay for its import

    picture, size, form = io.BytesIO(), SIZES[width], FORMATS[output.suffix.lower()]
    figure = draw(curves, x, width, opaque=form == "eps")
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **settings(size)}):
        figure.savefig(picture, format=form, dpi=size.dpi)
    write_bytes(output, picture.getvalue())
    return output


def check_output(output: Path) -> None:
    """Refuse what cannot become a picture.

    Raises:
        UsageError: it has another suffix, or its folder is not there.
    """
    if output.suffix.lower() not in FORMATS:
        kind = f"by {output.suffix}" if output.suffix else "without a suffix"
        raise UsageError(f"cannot draw {output}: no format is known {kind}",
                         f"end its name in {', '.join(FORMATS)}")
    if not output.parent.is_dir():
        raise UsageError(f"cannot write {output}: there is no folder {output.parent}", f"mkdir -p {output.parent}")
    if output.is_dir():
        raise UsageError(f"cannot write {output}: it is a folder", "name a file")


def check_clocks(curves: Sequence[Curve], x: X | None) -> None:
    """Refuse to draw wall and virtual time against one axis unless time is asked for.

    Raises:
        UsageError: some of the runs have a virtual clock and others a wall clock.
    """
    virtual, wall = ([curve.label for curve in curves if curve.virtual is kind] for kind in (True, False))
    if virtual and wall and x is None:
        raise UsageError(
            f"{virtual[0]} has simulated time and {wall[0]} wall time, which do not compare",
            "draw them against steps or rounds with --x round, or with --x time if they do for you",
        )


def draw(curves: Sequence[Curve], x: X | None = None, width: Width | None = None, opaque: bool = False) -> Figure:
    """The figure itself, for those who want to change it before they save it.

    Args:
        opaque: without transparency.
    """
    import matplotlib

    shown = [x] if x else [X.TIME] if width is Width.COLUMN else [X.TIME, X.ROUND]
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **settings(SIZES[width])}):
        return for_screen(curves, shown, opaque) if width is None else for_paper(curves, shown, width, opaque)
