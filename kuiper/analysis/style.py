"""Looks of a picture: fonts, colours, dashes, markers, and the widths that a paper takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# Okabe & Ito's palette, which colour-blind readers can tell apart; without its yellow, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (6, 2, 1, 2)))
INK, GREY, FAINT = "#202020", "#595959", "#E6E6E6"
FORMATS = {".png": "png", ".pdf": "pdf", ".svg": "svg", ".eps": "eps"}
ENDS = {"FAILED": "x", "LOST": "x", "STOPPED": "s"}
"""Markers of the last evaluation of a run that did not succeed; any other state: of one that goes on."""
GOES_ON, BROKE = "o", "x"


class Width(StrEnum):
    """Widths of a picture in a paper of two columns: of one column, and of the page."""

    COLUMN = "column"
    PAGE = "page"


@dataclass(frozen=True)
class Size:
    """Sizes of one kind of picture.

    Attributes:
        width: inches; None: as wide as its labels need.
        font: points.
        line, marker: points, of the lines of a picture with few of them.
        dpi: of a PNG.
    """

    width: float | None
    font: float
    line: float
    marker: float
    dpi: int


SCREEN = Size(None, 10.0, 2.0, 5.0, 160)
SIZES = {None: SCREEN, Width.COLUMN: Size(3.25, 8.0, 1.2, 3.4, 300), Width.PAGE: Size(6.75, 8.0, 1.2, 3.6, 300)}


def settings(size: Size) -> dict[str, Any]:
    """Matplotlib's settings for a picture."""
    return {
        "backend": "agg",  # needs no display
        "font.family": "DejaVu Sans",
        "font.size": size.font,
        "axes.edgecolor": "#B0B0B0",
        "axes.labelcolor": GREY,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "text.parse_math": False,  # a label may have dollar signs
        "svg.fonttype": "none",
        "pdf.fonttype": 42,  # TrueType; publishers refuse Matplotlib's Type 3
        "ps.fonttype": 42,
    }


def line_style(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of one line: no two of 252 are alike, nor two of 28 in black and white."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def blended(colour: str, alpha: float) -> str:
    """A colour as it is on white; for EPS, which has no transparency."""
    parts = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(255 - alpha * (255 - part)):02X}" for part in parts)
