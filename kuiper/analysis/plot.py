"""Accuracy against time and against steps, as a picture for a README or a paper."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kuiper.analysis.curves import Curve
from kuiper.analysis.labels import differing_keys, show
from kuiper.errors import RecordError
from kuiper.record.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Okabe & Ito's palette, which colour-blind readers can tell apart; without its yellow, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, GREY, FAINT = "#202020", "#595959", "#E6E6E6"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.edgecolor": "#B0B0B0",
    "axes.labelcolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.fonttype": "none",
}
MOST_MARKERS = 41  # on one line; with more evaluations, only some are marked

# Inches: the two panels keep their size, the picture grows with the labels.
EDGE, PANELS, GUTTER, HEIGHT, ABOVE, BELOW = 0.65, 6.6, 0.3, 4.2, 0.85, 0.55
LEADER = 0.45  # from the right panel to the marker


def plot_curves(curves: Sequence[Curve], output: Path) -> Path:
    """Draw the test accuracy of one or more configurations and write the picture atomically.

    Left against time (the mean over the seeds at each evaluation), right against steps or rounds, each
    line named at its end with its last accuracy. Of several seeds it is the mean, with a band for its
    confidence interval. Of a single run of peers a band reaches down to the worst honest one.

    Args:
        curves: in the order of their colours.
        output: .png, .svg or .pdf.

    Returns:
        `output`.

    Raises:
        RecordError: the picture cannot be written.
    """
    output = Path(output)
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise RecordError(f"cannot draw {output}", "name the picture .png, .svg or .pdf")
    import matplotlib  # only those who draw pay for its import

    picture = io.BytesIO()
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE, "backend": "agg"}):
        draw(curves).savefig(picture, format=output.suffix[1:], dpi=160)
    write_bytes(output, picture.getvalue())
    return output


def draw(curves: Sequence[Curve]) -> Figure:
    """The figure itself, for those who want to change it before they save it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, HEIGHT), facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    divisor, time_label = _time_unit(curves)
    times = [[seconds / divisor for seconds in curve.clock] for curve in curves]
    for index, (curve, time) in enumerate(zip(curves, times, strict=True)):
        _line(left, curve, index, len(curves), time)
        _line(right, curve, index, len(curves), curve.rounds)
    _dress(left, time_label, max(time[-1] for time in times))
    units = dict.fromkeys(curve.unit for curve in curves)
    _dress(right, " or ".join(units).capitalize(), max(curve.rounds[-1] for curve in curves))
    title, subtitle = headline(curves)
    head = [
        figure.text(0, 0, title, fontsize=13.5, fontweight="bold", va="top"),
        figure.text(0, 0, subtitle, fontsize=9.5, color=GREY, va="top"),
    ]
    names = [figure.text(0, 0, curve.label) for curve in curves]
    ends = [figure.text(0, 0, _end(curve), fontweight="bold") for curve in curves]
    percent = LEADER + 0.13 + max(_inches(text) for text in ends)
    labels = percent + 0.08 + max(_inches(text) for text in names)
    width = max(EDGE + PANELS + labels + 0.2, *(0.4 + _inches(text) for text in head))
    figure.set_size_inches(width, HEIGHT)
    figure.subplots_adjust(
        left=EDGE / width, right=(EDGE + PANELS) / width, wspace=2 * GUTTER / (PANELS - GUTTER),
        bottom=BELOW / HEIGHT, top=1 - ABOVE / HEIGHT,
    )  # fmt: skip
    for text, below_top in zip(head, (0.14, 0.45), strict=True):
        text.set_position((0.2 / width, 1 - below_top / HEIGHT))
    _name_lines(right, curves, names, ends, percent, width)
    return figure


def headline(curves: Sequence[Curve]) -> tuple[str, str]:
    """Title and subtitle: what all runs share; what differs is in the labels."""
    different = differing_keys([curve.config for curve in curves])
    conf = curves[0].config["conf"]

    def shared(group: str) -> str | None:
        return None if group in different or group not in conf else show(conf[group].get("_name_"))

    title = "Test accuracy"
    if shared("dataset"):
        title += f" on {shared('dataset')}"
    nodes, byzantine = (conf.get(key) for key in ("num_workers", "num_byzantine"))
    facts = [shared("algorithm"), shared("model")]
    if len(curves) == 1 and conf["algorithm"].get("_rule_"):
        facts.append(shared("aggregator"))
    if shared("partition") not in (None, "iid"):
        facts.append(_with_parameter(conf["partition"], "partition", different))
    if byzantine and not {"num_workers", "num_byzantine"} & different:
        title += f", {byzantine} of {nodes} nodes Byzantine"
        if shared("attack") not in (None, "none"):
            title += f" ({_with_parameter(conf['attack'], 'attack', different)})"
    elif "num_workers" not in different:
        facts.append(f"{nodes} nodes")
    counts = sorted({len(curve.runs) for curve in curves})
    if counts[-1] > 1:
        facts.append(f"mean of {' or '.join(map(str, counts))} seeds, band: its 95 % confidence interval")
    elif "seed" not in different:
        facts.append(f"seed {conf.get('seed')}")
    if any(curve.worst for curve in curves):
        worst = "thin line: the worst" if counts[-1] > 1 else "band: down to the worst"
        facts.append(f"line: mean over honest peers, {worst}")
    return title, "  ·  ".join(fact for fact in facts if fact)


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


def _line(axes: Axes, curve: Curve, index: int, count: int, x: Sequence[float]) -> None:
    colour = COLOURS[index % len(COLOURS)]
    axes.plot(
        x, curve.top_1, "-" if index < len(COLOURS) else "--", color=colour, zorder=3 + index / 100,
        linewidth=2.0 if count <= 3 else 1.5, solid_capstyle="round", clip_on=False,
        markevery=math.ceil(len(x) / MOST_MARKERS), **_marker(index, 5.0 if count <= 3 else 4.2),
    )  # fmt: skip
    if curve.worst:
        axes.plot(x, curve.worst, color=colour, alpha=0.6, linewidth=0.8, zorder=2.5)
    low, high = curve.worst, curve.top_1
    if curve.top_1_ci:
        low, high = (
            tuple(top_1 + sign * half for top_1, half in zip(curve.top_1, curve.top_1_ci, strict=True))
            for sign in (-1, 1)
        )
    if low:
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, zorder=2)


def _end(curve: Curve) -> str:
    half = f" ± {curve.top_1_ci[-1]:.1f}" if curve.top_1_ci else ""
    return f"{curve.top_1[-1]:.1f}{half} %"


def _marker(index: int, size: float) -> dict[str, Any]:
    return {
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": size,
        "markeredgecolor": "white",
        "markeredgewidth": 0.5,
    }


def _dress(axes: Axes, x_label: str, x_end: float) -> None:
    axes.set_xlabel(x_label)
    axes.set_xlim(0, x_end * 1.02 or 1)
    axes.set_ylim(0, 100)
    axes.set_yticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)])
    axes.grid(True, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)


def _name_lines(
    axes: Axes, curves: Sequence[Curve], names: Sequence[Text], ends: Sequence[Text],
    percent: float, width: float,
) -> None:  # fmt: skip
    """To the right of the panel: each line's marker, last accuracy and name, tied to the line's end.

    Args:
        percent: inches from the panel to where the accuracies end.
        width: of the figure, inches.
    """
    box = axes.get_position()
    inch = 1 / (box.width * width)  # in the panel's own coordinates, where 1 is its right edge
    lasts = [0.0 if math.isnan(curve.top_1[-1]) else curve.top_1[-1] for curve in curves]
    heights = spread(lasts, gap=6.5, low=1.5, high=98.5)
    for index, (curve, last, height) in enumerate(zip(curves, lasts, heights, strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        y = height / 100
        corners = [curve.rounds[-1] / axes.get_xlim()[1], 1 + 0.08 * inch, 1 + (LEADER - 0.12) * inch]
        axes.plot(
            [*corners, 1 + LEADER * inch], [last / 100, last / 100, y, y], color=colour, linewidth=0.8,
            markevery=[3], transform=axes.transAxes, clip_on=False, **_marker(index, 6.0),
        )  # fmt: skip
        place = {"y": y, "va": "center", "transform": axes.transAxes}
        ends[index].set(x=1 + percent * inch, ha="right", color=colour, **place)
        names[index].set(x=1 + (percent + 0.08) * inch, color=INK, **place)


def _inches(text: Text) -> float:
    return text.get_window_extent().width / text.get_figure().dpi


def _time_unit(curves: Sequence[Curve]) -> tuple[float, str]:
    """What to divide seconds by, and the axis' label."""
    longest = max(curve.clock[-1] for curve in curves)
    units = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
    divisor, unit = next((each for each in units if longest > 3 * each[0]), (1.0, "seconds"))
    kinds = dict.fromkeys("simulated time" if curve.virtual else "time" for curve in curves)
    return divisor, f"{' or '.join(kinds).capitalize()} ({unit})"


def _with_parameter(group: dict[str, Any], key: str, different: set[str]) -> str:
    """`ipm, eps 10`: the choice and its first parameter, the one that matters, if all runs share it."""
    name = next((each for each in group if not each.startswith("_")), None)
    if name is None or group[name] is None or f"{key}.{name}" in different:
        return group["_name_"]
    return f"{group['_name_']}, {name} {show(group[name])}"
