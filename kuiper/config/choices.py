"""Hydra's groups as data: which choices there are, which a job makes, what their parameters may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from kuiper.config import schema, source
from kuiper.config.schema import FOLDERS, InvalidSpec, Problem

PACKAGE = Path(__file__).parent / "groups"


@dataclass
class Catalogue:
    """group -> choice -> its file, kuiper's own and those beside the spec; and which cannot be read."""

    files: dict[str, dict[str, Path]]
    defaults: dict[str, str]
    folder: Path | None = None
    broken: set[Path] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


@dataclass
class Choice:
    """What a job says about one group: the choice, and parameters laid over its defaults."""

    name: str
    where: str
    parameters: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


@cache
def _defaults() -> dict[str, str]:
    """group -> choice, of Hydra's primary config."""
    entries = source.load(PACKAGE / "config.yaml").data["defaults"]
    return {group: name for entry in entries if entry != "_self_" for group, name in entry.items()}


def catalogue(spec_folder: Path) -> Catalogue:
    """All choices: the package's, then those in `groups/` beside the spec, which may only add."""
    files = {group: {path.stem: path for path in (PACKAGE / group).glob("*.yaml")} for group in FOLDERS}
    files = {group: dict(sorted(names.items())) for group, names in files.items()}
    found = Catalogue(files, _defaults())
    folder = spec_folder / "groups"
    if not folder.is_dir() or folder.samefile(PACKAGE):
        return found
    found.folder = folder
    for path in sorted(folder.rglob("*")):
        group, where = path.relative_to(folder).parts[0], str(path)
        if path.is_dir() and path.parent == folder and group not in FOLDERS:
            remedy = schema.nearest(group, FOLDERS)
            found.problems.append(Problem(where, "", "is the folder of no group that kuiper has", remedy))
        if group not in FOLDERS or path.is_dir() or path.suffix not in (".yaml", ".yml"):
            continue
        if path.suffix == ".yml" or not path.stem.isidentifier() or path.parent != folder / group:
            remedy = f"name it groups/{group}/<name>.yaml, the name of letters, digits and '_'"
            found.problems.append(Problem(where, "", "cannot be chosen under this name", remedy))
        elif path.stem in files[group]:
            message = f"has the name of kuiper's own {group} {path.stem!r}"
            found.problems.append(Problem(where, "", message, "give it a name of its own"))
        else:
            files[group][path.stem] = path
            _read(path, found)
    return found


def _read(path: Path, found: Catalogue) -> None:
    try:
        document = source.load(path)
    except InvalidSpec as error:
        problems = error.problems
    else:
        problems = document.problems
        if not isinstance(document.data, dict):
            problems = [Problem(str(path), "", "does not hold a mapping", "write _target_: and parameters")]
    if problems:
        found.broken.add(path)
        found.problems += problems


def choose(group: str, key: str, value: Any, where: Callable[..., str], known: Catalogue,
           choice: Choice | None) -> Choice:
    """Read one setting of a group.

    It is `name`, `{name: {parameters}}`, `{parameters}` or, with a dotted key, one parameter.

    Args:
        key: as in job_conf, the group or "group.parameter".
        where: the places of what is below the key: where("sgd", "lr").
        choice: what earlier settings made of it.

    Raises:
        InvalidSpec: it is none of these, or sets a parameter again.
    """
    names, at = known.files[group], where()
    choice = choice or Choice(known.defaults[group], at)
    path, parameters = (), {}
    if key != group:
        parameters = {key.partition(".")[2]: value}
    elif isinstance(value, str):
        choice.name, choice.where = value, at
    elif isinstance(value, dict) and value:
        first, inner = next(iter(value.items()))
        if "_target_" in value:
            raise _invalid(at, group, "names a _target_; job_conf chooses by name and builds nothing else",
                           f"choose by name ({schema.nearest('', names)}); for an object of your own write "
                           f"groups/{group}/<name>.yaml beside the spec, and its module into `allow:`")
        if len(value) == 1 and (first in names or isinstance(inner, dict)):
            choice.name, choice.where, path = first, where(first), (first,)
            parameters = {} if inner is None else inner
        elif any(name in names for name in value):
            raise _invalid(at, group, f"makes a choice and has more keys ({', '.join(value)})",
                           f"write the parameters below the choice: `{group}: {{name: {{parameter: ...}}}}`")
        else:
            parameters = value
    else:
        raise _invalid(at, group, f"is {schema.shown(value)}, and must be a choice",
                       f"write `{group}: name` or `{group}: {{name: {{parameter: value}}}}`; "
                       f"{schema.nearest('', names)}")
    if not isinstance(parameters, dict):
        raise _invalid(where(*path), f"{group}.{choice.name}",
                       f"is {schema.shown(parameters)}, and must hold parameters",
                       f"write `{group}: {{{choice.name}: {{parameter: value}}}}`")
    for name, given in parameters.items():
        place = where(*path, name) if key == group else at
        if name in choice.parameters and not place.startswith("-o"):
            raise _invalid(place, f"{group}.{name}", f"is set twice; first at {choice.places[name]}",
                           "keep one of the two")
        choice.parameters[name], choice.places[name] = given, place
    return choice


def _invalid(where: str, key: str, message: str, remedy: str) -> InvalidSpec:
    return InvalidSpec([Problem(where, f"job_conf.{key}", message, remedy)])
