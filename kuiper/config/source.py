"""YAML that remembers where every key stands, and that cannot surprise.

Scalars follow YAML 1.2's core schema: `1e-3` is a number; `no`, `on`, `1:30` and `2026-01-01`
are text. Tags, duplicate keys and documents that expand without bound are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kuiper.config import slips
from kuiper.config.schema import InvalidSpec, Problem

MAX_BYTES = 1 << 20
MAX_NODES = 50_000  # after aliases are expanded
MAX_DEPTH = 32

Place = tuple[str | int, ...]


@dataclass
class Document:
    """Plain data read from YAML, and the place of every key.

    Attributes:
        name: what the user called it: a path, or the option it came from.
        data: builtin types only.
        places: path of a key -> "conf.yml:12".
        problems: duplicate keys and the like, which do not keep the rest from being checked.
    """

    name: str
    data: Any
    places: dict[Place, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, *path: str | int) -> str:
        """The place of the key at `path`, or of its nearest ancestor that has one."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return self.places.get((), self.name)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list] = {}


for _tag, _pattern, _first in [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def load(path: str | Path) -> Document:
    """Read a YAML file.

    Raises:
        InvalidSpec: it is missing, unreadable, empty, not YAML, or expands beyond `MAX_NODES`.
    """
    name = str(path)
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise _invalid(name, "no such file", "give the path of a job spec: configs/quickstart.yml") from None
    except IsADirectoryError:
        raise _invalid(name, "is a folder", "give the path of the YAML file in it") from None
    except (OSError, ValueError) as error:
        raise _invalid(name, f"cannot be read: {error}", "check the path and its permissions") from None
    if len(raw) > MAX_BYTES:
        raise _invalid(name, f"has {len(raw)} bytes, and at most {MAX_BYTES} are read", "is it a job spec?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _invalid(f"{name}:{line}", "is not UTF-8 text", "save the file as UTF-8") from None
    document = parse(text, name)
    if document.data is None:
        raise _invalid(name, "is empty", "start from a copy of configs/quickstart.yml")
    return document


def parse(text: str, name: str, lines: bool = True) -> Document:
    """Read YAML from text; `lines` says whether places get line numbers (an option has none).

    Raises:
        InvalidSpec: not YAML, or it expands beyond `MAX_NODES`.
    """
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, text, name, lines) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid(name, f"is not YAML: {str(error).splitlines()[0]}", "remove that character") from None
    except RecursionError:
        raise _invalid(name, f"nests deeper than {MAX_DEPTH} levels", "write it flatter") from None
    document = Document(name, None)
    if node is not None:
        document.data = _Builder(document, lines).build(node, ())
    return document


def _invalid(where: str, message: str, remedy: str, key: str = "") -> InvalidSpec:
    return InvalidSpec([Problem(where, key, message, remedy)])


def _syntax(error: yaml.MarkedYAMLError, text: str, name: str, lines: bool) -> InvalidSpec:
    mark = error.problem_mark or error.context_mark
    if error.context_mark and "could not find expected ':'" in str(error.problem):
        mark = error.context_mark  # where that word is; the other is where the next one is
    if mark is None:
        return _invalid(name, f"is not YAML: {error.problem}", "correct the syntax")
    where = f"{name}:{mark.line + 1}" if lines else name
    line = (text.splitlines() or [""])[min(mark.line, len(text.splitlines()) - 1)]
    if text[mark.index : mark.index + 1] == "\t" or "\t" in line[: len(line) - len(line.lstrip())]:
        return _invalid(where, "has a tab where YAML wants spaces", "indent with spaces")
    remedy = f"look at column {mark.column + 1}: {line.strip()[:60]!r}"
    if re.search(r"\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%\w+)?\]", line):
        remedy += "; an IPv6 address in brackets needs quotes: '[::1]:2'"
    if odd := slips.invisible(line):
        return _invalid(where, f"has an invisible character, {odd}, where YAML wants a space",
                        f"type the spaces of that line again: {line.strip()[:60]!r}")
    if "could not find expected ':'" in str(error.problem):
        remedy += "; write a key, a colon, a space and its value: `seed: 1`"
    if "cannot start any token" in str(error.problem) or "undefined alias" in str(error.problem):
        remedy += "; a value that begins with one of * & @ % ` ! | > needs quotes"
    if "mapping values are not allowed" in str(error.problem):
        remedy += "; a value that holds ': ' needs quotes, and keys of one level the same indent"
    return _invalid(where, f"is not YAML: {error.problem}", remedy)


class _Builder:
    """Turns PyYAML's node graph into plain data, counting what aliases expand to."""

    def __init__(self, document: Document, lines: bool) -> None:
        self.document = document
        self.lines = lines
        self.count = 0

    def place(self, node: yaml.Node) -> str:
        name = self.document.name
        return f"{name}:{node.start_mark.line + 1}" if self.lines else name

    def build(self, node: yaml.Node, path: Place) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            remedy = "its anchors and aliases multiply; write the values out"
            raise _invalid(self.place(node), f"expands to more than {MAX_NODES} values", remedy)
        if len(path) > MAX_DEPTH:
            remedy = "write it flatter; an alias must not hold itself"
            raise _invalid(self.place(node), f"nests deeper than {MAX_DEPTH} levels", remedy)
        self.document.places.setdefault(path, self.place(node))
        if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        return self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        before: yaml.Node | None = None
        for key_node, value_node in node.value:
            if node.flow_style and self.split_number(before, key_node, value_node, path):
                continue
            before = value_node
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            where = self.place(key_node)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                name = key_node.value if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self.problem(where, path, f"has the key {name!r}, which is not a word", "put it in quotes")
                continue
            key = self.plain(key_node, (*path, key_node.value))
            here = (*path, key)
            if key in result:
                first = self.document.places[here]
                self.problem(where, here, f"is set twice; first at {first}", "keep one of the two")
                continue
            self.document.places[here] = where
            result[key] = self.build(value_node, here)
        for base in merged:
            inherited = self.build(base, (*path, "<<"))
            if not isinstance(inherited, dict):
                self.problem(self.place(base), (*path, "<<"), "merges what is no mapping", "write <<: *name")
                continue
            for key, value in inherited.items():
                if key not in result:
                    result[key] = value
                    self.document.places[(*path, key)] = self.place(base)
        return result

    def split_number(self, before: yaml.Node | None, key: yaml.Node, value: yaml.Node, path: Place) -> bool:
        """Whether a key is the second half of a number with a comma: {lr: 0,05}."""
        halves = [part.value if isinstance(part, yaml.ScalarNode) else "" for part in (before, key)]
        if value.value != "" or not re.fullmatch(r"[-+]?\d+", halves[0]) or not re.fullmatch(r"\d+\w*", halves[1]):
            return False
        self.problem(self.place(key), path, f"has a number with a comma, {','.join(halves)}, which ends a value here",
                     f"write {'.'.join(halves)}")
        return True

    def plain(self, node: yaml.ScalarNode, path: Place) -> str:
        """What a scalar says; of one without quotes, what it would say without invisible and curly characters."""
        text: str = node.value
        if node.style is not None:
            return text
        if odd := slips.invisible(text):
            self.problem(self.place(node), path, f"is {text!r}, with an invisible character, {odd}",
                         "type its spaces again")
        if text[:1] and text[0] in slips.QUOTES:
            self.problem(self.place(node), path, f"begins with the quotation mark {text[0]}, which YAML does not know",
                         "write \" or ', or no quotes")
        return text

    def scalar(self, node: yaml.Node, path: Place) -> Any:
        text, tag = node.value, node.tag.removeprefix("tag:yaml.org,2002:")
        try:
            if isinstance(node, yaml.ScalarNode):
                match tag:
                    case "str":
                        return self.plain(node, path)
                    case "null":
                        return None
                    case "bool":
                        return {"true": True, "false": False}[text.lower()]
                    case "int":
                        return int(text, 8 if text[:2] == "0o" else 16 if text[:2] == "0x" else 10)
                    case "float":
                        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            message = f"is {text!r}, which is not what its tag says"
        else:
            message = f"has the tag {node.tag!r}, and tags are not read"
        self.problem(self.place(node), path, message, "remove the tag")
        return None

    def problem(self, where: str, path: Place, message: str, remedy: str) -> None:
        key = ".".join(str(part) for part in path)
        self.document.problems.append(Problem(where, key, message, remedy))
