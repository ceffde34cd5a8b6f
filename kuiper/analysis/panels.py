"""The panels of a picture: lines, bands, marks and axes, whatever their size and whoever names the lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from kuiper.analysis.curves import Curve
from kuiper.analysis.style import BROKE, ENDS, FAINT, GOES_ON, Size, blended, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = 0.13  # how opaque a band is
MARGIN = 1.02  # of the horizontal axis, as a multiple of where the longest line ends
HALF = 50.0  # percent; where scores are wider apart, the whole axis is drawn
FEW = 3  # lines that are drawn bold
MOST_MARKERS = 41  # on one line; with more evaluations, only some are marked


class X(StrEnum):
    """The horizontal axis."""

    TIME = "time"
    ROUND = "round"


def draw_panel(axes: Axes, curves: Sequence[Curve], x: X, size: Size, opaque: bool = False) -> None:
    """Draw the test accuracy of every curve into one panel, with its axes.

    Args:
        opaque: without transparency.
    """
    divisor, label = _time_unit(curves) if x is X.TIME else (1.0, _step_label(curves))
    low, high = limits(curves)
    places = [[at / divisor for at in (curve.clock if x is X.TIME else curve.rounds)] for curve in curves]
    bold = size if len(curves) <= FEW else Size(None, size.font, 0.75 * size.line, 0.85 * size.marker, size.dpi)
    for index, (curve, at) in enumerate(zip(curves, places, strict=True)):
        _line(axes, curve, index, at, bold, opaque, clip=min(_values(curve, 0), default=low) < low)
    axes.set_xlabel(label)
    axes.set_xlim(0, MARGIN * max(at[-1] for at in places) or 1)
    axes.set_ylim(low, high)
    _dress(axes, size)


def limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Of the vertical axis, percent: what was scored once training had begun, with a margin.

    The score of the model at the start is far below the others and tells nothing; its line comes from below.
    """
    values = [value for curve in curves for value in _values(curve, 1) or _values(curve, 0)]
    if not values:
        return 0.0, 100.0
    low, high = min(values), max(values)
    if high - low > HALF:
        return 0.0, 100.0
    margin = max(0.06 * (high - low), 0.5)
    if low < 0.25 * (high - low):
        low = 0.0
    if 100 - high < 0.1 * (high - low):
        high = 100.0
    return max(low - margin * bool(low), 0.0), min(high + margin, 100.0)


def line_width(size: Size, count: int) -> float:
    """Points, of each of `count` lines."""
    return size.line if count <= FEW else 0.75 * size.line


def _values(curve: Curve, first: int) -> list[float]:
    """All finite percentages that are drawn of a curve, from evaluation `first` on."""
    halves = curve.top_1_ci or (0.0,) * len(curve.top_1)
    drawn = [value for top_1, half in zip(curve.top_1[first:], halves[first:], strict=True)
             for value in (top_1 - half, top_1 + half)]
    return [min(max(value, 0.0), 100.0) for value in (*drawn, *curve.worst[first:]) if math.isfinite(value)]


def _line(axes: Axes, curve: Curve, index: int, x: Sequence[float], size: Size, opaque: bool, clip: bool) -> None:
    from matplotlib.patches import Rectangle

    style = line_style(index)
    colour = style["color"]
    [line] = axes.plot(
        x, curve.top_1, **style, zorder=3 + index / 100, linewidth=size.line, solid_capstyle="round", clip_on=clip,
        markevery=math.ceil(len(x) / MOST_MARKERS), markersize=size.marker, markeredgecolor="white",
        markeredgewidth=0.1 * size.marker,
    )  # fmt: skip
    if clip:  # at the lower edge only: markers at the others are drawn whole
        line.set_clip_path(Rectangle((-0.1, 0), 1.2, 1.1, transform=axes.transAxes))
    if curve.worst:
        axes.plot(x, curve.worst, color=colour, alpha=0.6, linewidth=0.4 * size.line, zorder=2.5)
    low, high = curve.worst, curve.top_1
    if curve.top_1_ci:
        low, high = (
            tuple(top_1 + sign * half for top_1, half in zip(curve.top_1, curve.top_1_ci, strict=True))
            for sign in (-1, 1)
        )
    if low:
        fill = {"color": blended(colour, BAND)} if opaque else {"color": colour, "alpha": BAND}
        axes.fill_between(x, low, high, **fill, linewidth=0, zorder=2)
    for marker, place in _marks(curve):
        axes.plot(
            x[place], curve.top_1[place], marker, color=colour, zorder=4, clip_on=False, markersize=2 * size.marker,
            markerfacecolor="none", markeredgewidth=0.3 * size.marker,
        )  # fmt: skip


def _marks(curve: Curve) -> list[tuple[str, int]]:
    """(marker, index of the evaluation) of where a curve ended before its time, goes on, or diverged."""
    finite = [index for index, top_1 in enumerate(curve.top_1) if math.isfinite(top_1)]
    if not finite:
        return []
    marks = []
    broken = [run.diverged for run in curve.runs if run.diverged is not None]
    if broken:
        marks.append((BROKE, next((index for index in finite if curve.rounds[index] >= min(broken)), finite[-1])))
    if curve.state not in ("SUCCEEDED", ""):
        marks.append((ENDS.get(curve.state, GOES_ON), finite[-1]))
    return list(dict.fromkeys(marks))


def _dress(axes: Axes, size: Size) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(True, color=FAINT, linewidth=0.4 * size.line)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=0.6 * size.font, labelsize=size.font)


def _step_label(curves: Sequence[Curve]) -> str:
    return " or ".join(dict.fromkeys(curve.unit for curve in curves)).capitalize()


def _time_unit(curves: Sequence[Curve]) -> tuple[float, str]:
    """What to divide seconds by, and the axis' label."""
    longest = max(curve.clock[-1] for curve in curves)
    units = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
    divisor, unit = next((each for each in units if longest > 3 * each[0]), (1.0, "seconds"))
    kinds = {curve.virtual for curve in curves}
    name = "Time, wall or simulated" if len(kinds) > 1 else "Simulated time" if True in kinds else "Time"
    return divisor, f"{name} ({unit})"


def named(curve: Curve, curves: Sequence[Curve]) -> str:
    """A curve's title; with its clock, where those of the picture differ."""
    if len({each.virtual for each in curves}) == 1:
        return curve.title
    return f"{curve.title}, {'simulated' if curve.virtual else 'wall'} time"


def key_of_marks(curves: Sequence[Curve]) -> str:
    """What the marks of a picture mean; "" without any."""
    shown = {marker for curve in curves for marker, _ in _marks(curve)}
    words = {BROKE: "cross: failed or diverged", ENDS["STOPPED"]: "square: stopped", GOES_ON: "circle: not ended"}
    return ", ".join(word for marker, word in words.items() if marker in shown)
