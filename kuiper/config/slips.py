"""The value that a user probably meant: slips of spelling that YAML does not forgive."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

QUOTES = "“”„‟‘’‚«»‹›"
"""Quotation marks of word processors, which mean nothing in YAML."""
_INVISIBLE = re.compile("[\u00a0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f\u2060\u3000\ufeff]")
_WORDS = {"second": "s", "sec": "s", "minute": "m", "min": "m", "hour": "h", "hr": "h", "day": "d",
          "millisecond": "ms", "week": "w"}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TIMES = {"k": 1e3, "K": 1e3, "M": 1e6}


def meant(kind: str, value: Any, fits: Callable[[Any], bool]) -> str:
    """"; did you mean ...?", or "" where nothing similar would do.

    Args:
        kind: of the key, see `schema.Key`.
        value: that does not fit.
        fits: whether another one would.
    """
    if kind == "text" and isinstance(value, float):
        return "; put it in quotes"
    for other in _candidates(kind, value):
        if (type(other), other) != (type(value), value) and fits(other):
            return f"; did you mean {_yaml(other)}?"
    return ""


def invisible(text: str) -> str:
    """The name of the first invisible character of a text other than a space, as U+00A0; "" without one."""
    found = _INVISIBLE.search(text)
    return f"U+{ord(found[0]):04X}" if found else ""


def _yaml(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(yaml.safe_dump(value, default_flow_style=True, width=1000)).removesuffix("\n...\n").strip()


def _candidates(kind: str, value: Any) -> Iterator[Any]:
    """Other readings, the likeliest first."""
    if isinstance(value, str):
        text = _INVISIBLE.sub(" ", value).strip(f" \t;'\"{QUOTES}").replace("−", "-")
        if kind == "text":
            yield from (text, re.sub(r"\s*[:.]+\s*", "-", text), re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._"))
        yield from (text, text.lower(), re.sub(r"\s+", "", text).lower())
        if kind in ("int", "float"):
            yield from _numbers(kind, text)
        elif kind == "seconds":
            yield from _times(text)
        elif kind == "list":
            parts = [part for part in re.split(r"[,;\s]+", text) if part]
            if parts and all(re.fullmatch(r"[\w.:-]+", part) for part in parts):
                yield [part if ":" in part else yaml.safe_load(part) for part in parts]  # host:2 is text
        elif kind == "bool":
            yield {"yes": True, "on": True, "y": True, "1": True,
                   "no": False, "off": False, "n": False, "0": False}.get(text.lower())
        if text.lower() in ("no", "off", "false", "none", "never"):
            yield from (None, "none")
    elif isinstance(value, bool):
        yield from (str(value).lower(), None if value is False else value)
    elif isinstance(value, int | float) and abs(value) < 1e18:
        yield int(value) if value == int(value) else value
        if abs(value) > 1:  # a part, in percent
            yield value / 100
        yield from (str(value), f"{value}-{value}", [value])
    elif isinstance(value, list) and len(value) == 1:
        yield value[0]


def _numbers(kind: str, text: str) -> Iterator[Any]:
    """0,05 and 1_000 and 10% and 1k and 10^-3 and 1/10, and a number in quotes."""
    whole = re.fullmatch(r"[-+]?\d{1,3}([_, ']\d{3})+", text)
    forms = [re.sub(r"[_, ']", "", text)] if whole else []
    forms += [text, text.replace("_", ""), text.replace(",", "."), re.sub(r"^10\s*(\^|\*\*)\s*", "1e", text)]
    for form in forms:
        yield from _number(form)
    if kind == "float" and whole and "," in text and text.count(",") == 1:
        yield from _number(text.replace(",", "."))
    if found := re.fullmatch(r"(.+?)\s*%", text):
        yield from (number / 100 for number in _number(found[1].replace(",", ".")))
    if found := re.fullmatch(r"(.+?)\s*([kKM])", text):
        yield from (int(number * _TIMES[found[2]]) for number in _number(found[1]))
    if (found := re.fullmatch(r"([\d.]+)\s*/\s*([\d.]+)", text)) and (below := list(_number(found[2]))):
        yield from (number / below[0] for number in _number(found[1]) if below[0])


def _number(text: str) -> Iterator[Any]:
    for convert in (int, float):
        try:
            yield convert(text)
        except (ValueError, OverflowError):
            continue


def _times(text: str) -> Iterator[str]:
    """1:30:00 and 1h30m and 1,5h and 90 minutes."""
    if re.fullmatch(r"\d+,\d+", text):
        yield text.replace(",", ".") + "s"
    if re.fullmatch(r"\d+:\d\d(:\d\d)?", text):
        hours, minutes, *rest = map(int, text.split(":"))
        yield f"{60 * hours + minutes}m" if not rest or not rest[0] else f"{3600 * hours + 60 * minutes + rest[0]}s"
    parts = re.findall(r"(\d+(?:[.,]\d+)?)\s*([A-Za-z]+)", text)
    units = [_WORDS.get(unit.lower().rstrip("s") or "s", unit.lower()) for _, unit in parts]
    if parts and all(unit in _SECONDS for unit in units):
        numbers = [float(number.replace(",", ".")) for number, _ in parts]
        seconds = sum(number * _SECONDS[unit] for number, unit in zip(numbers, units, strict=True))
        unit = units[-1] if units[-1] in ("ms", "s", "m", "h", "d") else "d"
        yield f"{seconds / _SECONDS[unit]:g}{unit}"
