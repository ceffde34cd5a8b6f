"""Two layouts of a picture: for a screen, and for a paper."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kuiper.analysis.curves import Curve
from kuiper.analysis.headline import headline
from kuiper.analysis.panels import MARGIN, X, draw_panel, line_width, named
from kuiper.analysis.style import GREY, INK, SCREEN, SIZES, Size, Width, line_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Inches, of a picture for a screen: its panels keep their size, and it grows with the labels.
EDGE, PANEL, GUTTER, TALL, ABOVE, BELOW = 0.65, 3.15, 0.3, 2.8, 0.85, 0.55
LEADER = 0.45  # from the right panel to the marker
LABEL = 44  # characters of a line of a label
LINE = 0.175  # inches, of such a line
WIDE = 0.6  # of a letter, as a part of the font's size; most are narrower


def for_screen(curves: Sequence[Curve], shown: Sequence[X], opaque: bool) -> Figure:
    """A title above, and each line named at its end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), facecolor="white")
    panels = _panels(figure, curves, shown, SCREEN, opaque)
    title, subtitle = headline(curves)
    head = [
        figure.text(0, 0, title, fontsize=13.5, fontweight="bold", va="top"),
        figure.text(0, 0, subtitle, fontsize=9.5, color=GREY, va="top"),
    ]
    names = [figure.text(0, 0, textwrap.fill(named(curve, curves), LABEL)) for curve in curves]
    ends = [figure.text(0, 0, _end(curve), fontweight="bold") for curve in curves]
    percent = LEADER + 0.13 + max(_inches(text) for text in ends)
    labels = percent + 0.08 + max(_inches(text) for text in names)
    gap = LINE * (1 + max(text.get_text().count("\n") for text in names))
    tall = max(TALL, gap * len(curves))
    inner = PANEL * len(shown) + GUTTER * (len(shown) - 1)
    width = max(EDGE + inner + labels + 0.2, *(0.4 + _inches(text) for text in head))
    height = ABOVE + tall + BELOW
    figure.set_size_inches(width, height)
    figure.subplots_adjust(
        left=EDGE / width, right=(EDGE + inner) / width, wspace=GUTTER / PANEL,
        bottom=BELOW / height, top=1 - ABOVE / height,
    )  # fmt: skip
    for text, below_top in zip(head, (0.14, 0.45), strict=True):
        text.set_position((0.2 / width, 1 - below_top / height))
    _name_lines(panels[-1], curves, shown[-1], names, ends, percent, gap / tall)
    return figure


def for_paper(curves: Sequence[Curve], shown: Sequence[X], width: Width, opaque: bool) -> Figure:
    """Of a fixed width, with the names of the lines below, and no title: the caption has it."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    size = SIZES[width]
    wide, tall = size.width, 2.1
    figure = Figure(figsize=(wide, tall), facecolor="white")
    panels = _panels(figure, curves, shown, size, opaque)
    panels[0].set_ylabel("Test accuracy")
    handles = [Line2D([], [], **line_style(index), linewidth=line_width(size, len(curves)), markersize=size.marker,
                      markeredgecolor="white", markeredgewidth=0.1 * size.marker) for index in range(len(curves))]
    room = int((wide - 0.55) / (WIDE * size.font / 72))
    names = [textwrap.fill(named(curve, curves), room) for curve in curves]
    longest = max(_inches(figure.text(0, 0, name, fontsize=size.font)) for name in names)
    for text in list(figure.texts):
        text.remove()
    columns = max(1, min(len(curves), int((wide - 0.1) / (longest + 0.55))))
    legend = figure.legend(
        handles, names, loc="lower left", bbox_to_anchor=(0, 0), ncols=columns, frameon=False, fontsize=size.font,
        handlelength=2.4, columnspacing=1.2, labelspacing=0.35, borderpad=0.2, labelcolor=INK,
    )  # fmt: skip
    below = legend.get_window_extent().height / figure.dpi
    height = tall + below
    figure.set_size_inches(wide, height)
    figure.subplots_adjust(right=1 - 0.1 / wide, bottom=(below + 0.42) / height, top=1 - 0.08 / height, wspace=0.1)
    figure.draw_without_rendering()  # which makes the tick labels
    left = panels[0].get_window_extent().x0 - panels[0].yaxis.get_tightbbox().x0
    figure.subplots_adjust(left=(left / figure.dpi + 0.04) / wide)
    return figure


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart within [low, high], each as near as possible to what it wanted.

    Least squares: after subtracting the gaps it is an isotonic regression, solved by pooling
    neighbours that are out of order. Where they cannot all fit, the gap shrinks.

    Returns:
        Positions in the order of `wanted`.
    """
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], -index))
    pools: list[list[float]] = []  # [mean, members]
    for place, index in enumerate(order):
        pools.append([wanted[index] - place * gap, 1])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            mean, members = pools.pop()
            pools[-1][0] = (pools[-1][0] * pools[-1][1] + mean * members) / (pools[-1][1] + members)
            pools[-1][1] += members
    flat = [mean for mean, members in pools for _ in range(int(members))]
    ceiling = high - gap * (len(wanted) - 1)
    placed = [0.0] * len(wanted)
    for place, index in enumerate(order):
        placed[index] = min(max(flat[place], low), ceiling) + place * gap
    return placed


def _panels(figure: Figure, curves: Sequence[Curve], shown: Sequence[X], size: Size, opaque: bool) -> list[Axes]:
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, one in zip(panels, shown, strict=True):
        draw_panel(axes, curves, one, size, opaque)
    return list(panels)


def _end(curve: Curve) -> str:
    if not math.isfinite(curve.top_1[-1]):
        return "no number"
    half = f" ± {curve.top_1_ci[-1]:.1f}" if curve.top_1_ci else ""
    return f"{curve.top_1[-1]:.1f}{half} %"


def _name_lines(
    axes: Axes, curves: Sequence[Curve], x: X, names: Sequence[Text], ends: Sequence[Text],
    percent: float, gap: float,
) -> None:  # fmt: skip
    """To the right of the panel: each line's marker, last accuracy and name, tied to the line's end.

    Args:
        x: of the panel.
        percent: inches from the panel to where the accuracies end.
        gap: between names, as a part of the panel's height.
    """
    inch = 1 / PANEL  # in the panel's own coordinates, where 1 is its right edge
    low, high = axes.get_ylim()
    reached = [(curve.clock if x is X.TIME else curve.rounds)[-1] for curve in curves]
    ends_at = [each / (MARGIN * max(reached) or 1) for each in reached]
    lasts = [(_last(curve) - low) / (high - low) for curve in curves]
    heights = spread(lasts, gap=gap, low=0.015, high=0.985)
    for index, (curve, last, y) in enumerate(zip(curves, lasts, heights, strict=True)):
        style = line_style(index)
        corners = [ends_at[index], 1 + 0.08 * inch, 1 + (LEADER - 0.12) * inch]
        axes.plot(
            [*corners, 1 + LEADER * inch], [last, last, y, y], **{**style, "linestyle": "-"}, linewidth=0.8,
            markevery=[3], transform=axes.transAxes, clip_on=False, markersize=6.0, markeredgecolor="white",
            markeredgewidth=0.5,
        )  # fmt: skip
        place = {"y": y, "va": "center", "transform": axes.transAxes}
        ends[index].set(x=1 + percent * inch, ha="right", color=style["color"], **place)
        names[index].set(x=1 + (percent + 0.08) * inch, color=INK, **place)


def _last(curve: Curve) -> float:
    """The last accuracy that is a number, percent."""
    return next((top_1 for top_1 in reversed(curve.top_1) if math.isfinite(top_1)), 0.0)


def _inches(text: Text) -> float:
    return text.get_window_extent().width / text.get_figure().dpi
