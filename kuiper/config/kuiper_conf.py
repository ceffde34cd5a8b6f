"""Kuiper's own conf.yml read as ours: key by key, each with a line that says so, each at its place."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from kuiper.config import choices, schema
from kuiper.config.kuiper_keys import DEFAULTS, JOB_CONF, LEAST_RATE, TORCHVISION, Word
from kuiper.config.schema import GROUPS, Problem
from kuiper.config.source import Document

OURS = {"algorithm", "dataset"}  # without which no spec of ours can be
HOME = re.compile(r"\$(HOME|\{HOME\})(?=/|\Z)")


def is_kuipers(job_conf: Any) -> bool:
    """Whether a job_conf is in Kuiper's words: each of its files has data_set, and none of ours does."""
    return isinstance(job_conf, dict) and "data_set" in job_conf and not OURS & job_conf.keys()


def translate(document: Document, folder: Path) -> tuple[list[str], set[str]]:
    """Put our keys in the place of Kuiper's, which job_conf (a mapping by now) holds.

    Args:
        document: its data and places are changed, and what is wrong is added to its problems.
        folder: of the spec, beside which there may be more choices.

    Returns:
        A line for each key that was renamed; and the groups that are missing now because what Kuiper's key
        chose is not there.
    """
    work = _Translation(document, folder)
    work.run()
    return sorted(work.notes, key=_line), work.unsettled


class _Translation:
    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.names = choices.catalogue(folder).files
        self.theirs: dict[str, Any] = document.data["job_conf"]
        self.ours: dict[str, Any] = {}
        self.notes: list[str] = []
        self.unsettled: set[str] = set()

    def run(self) -> None:
        data = self.document.data
        data["job_conf"] = self.ours
        for name, value in self.theirs.items():
            if name not in JOB_CONF:
                self.set(name, name, value)
        words = [name for name in self.theirs if name in JOB_CONF]
        words.sort(key=lambda name: "." in JOB_CONF[name].to)  # choices before their parameters
        for name in words:
            self.one(name, JOB_CONF[name], self.theirs[name])
        self.defaults()
        self.devices()
        self.environment()

    def one(self, name: str, key: Word, value: Any) -> None:
        """Translate one key of theirs."""
        group = key.to.partition(".")[0]
        if not key.to and not key.only:
            self.problem(name, "is a key of Kuiper's that has no meaning here", key.remedy)
        elif key.only and value not in key.only:
            self.problem(name, f"is {schema.shown(value)}", key.remedy)
        elif key.to == "worker_ips":
            pass  # see devices()
        elif not key.to:
            self.note(name, "as always here")
        elif key.to in GROUPS:
            self.choice(name, key, value)
        elif key.of and group not in self.unsettled and key.of != self.chosen(group):
            self.note(name, f"no effect, {group} is {self.chosen(group)}")
        elif group not in self.unsettled:
            self.set(name, key.to, self.fraction(name, key, value) if key.over else value)

    def choice(self, name: str, key: Word, value: Any) -> None:
        """A choice of a group: by Kuiper's name, by ours, or a classifier of torchvision by its own."""
        known = self.names[key.to]
        text = "" if value is None else value
        if not isinstance(text, str):  # a choice with its parameters, as we write it
            self.set(name, key.to, value)
            return
        ours = key.values.get(text, text)
        if ours in known:
            self.set(name, key.to, ours)
        elif key.to == "model" and ours.startswith(TORCHVISION):
            self.set(name, key.to, {"torchvision": {"name": ours}})
        else:
            self.unsettled.add(key.to)
            remedy = "; ".join(filter(None, (schema.nearest("", known), key.remedy)))
            self.problem(name, f"is {schema.shown(value)}, and there is no such {key.to} here", remedy)

    def set(self, name: str, to: str, value: Any) -> None:
        """Give our key the value and the place of theirs."""
        place = self.document.places
        top = to in schema.SPEC
        target, at = (self.document.data, (to,)) if top else (self.ours, ("job_conf", to))
        if to in target:
            first = self.document.where(*at)
            self.problem(name, f"sets {to}, which is set already at {first}", "keep one of the two")
            return
        if isinstance(value, str):
            value = HOME.sub("~", value)
        target[to] = value
        changed, old = f": {schema.shown(value)}" * (value != self.theirs[name]), ("job_conf", name)
        if name == to and not top and not changed:
            return
        place.update({at + path[2:]: line for path, line in place.items() if path[:2] == old})
        self.note(name, f"{'' if top else 'job_conf.'}{to}{changed}{JOB_CONF[name].says}")

    def fraction(self, name: str, key: Word, value: Any) -> Any:
        """The value over that of `key.over`; as it is, for others to complain of, if one is no number."""
        of = self.theirs.get(key.over, DEFAULTS[JOB_CONF[key.over].to])
        if any(schema.check(schema.Key("float", above=0), number)[1] for number in (value, of)):
            return value
        return value / of

    def chosen(self, group: str) -> str:
        """The choice of a group by now, by default Kuiper's."""
        choice = self.ours.get(group, DEFAULTS[group])
        return next(iter(choice), "") if isinstance(choice, dict) else choice

    def defaults(self) -> None:
        """What Kuiper does unasked; of a group, only where its choice is Kuiper's."""
        rate = self.ours.get("optimizer.lr", DEFAULTS["optimizer.lr"])
        number = isinstance(rate, int | float) and rate > LEAST_RATE
        least = {"schedule.floor": LEAST_RATE / rate} if number else {}
        count = self.theirs.get("total_worker", self.theirs.get("num_participants"))
        clients = {"num_workers": count} if isinstance(count, int) else {}
        added = []
        for to, value in {**DEFAULTS, **least, **clients}.items():
            group = to.partition(".")[0]
            if to in self.ours or group in self.unsettled:
                continue
            if "." in to and self.chosen(group) != DEFAULTS[group]:
                continue
            self.ours[to] = value
            added.append(f"{to} {value:.6g}" if isinstance(value, float) else f"{to} {value}")
        if added:
            self.notes.append(f"{self.document.name}: not said, so as in Kuiper: {', '.join(added)}")

    def devices(self) -> None:
        """In Kuiper's files host:n is a process on each of n GPUs, unless the devices are CPUs."""
        for name in ("to_device", "use_cuda"):
            if str(self.theirs.get(name)) in ("cpu", "False"):
                self.note(name, "worker_ips: processes on the CPU")
                return
        entries = self.document.data.get("worker_ips")
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            found = re.fullmatch(r"([^:]+):\s*(\d{1,2})\s*", entry) if isinstance(entry, str) else None
            if found and int(found[2]):
                entries[index] = {"host": found[1], "gpus": list(range(int(found[2])))}
                where = self.document.where("worker_ips", index)
                self.notes.append(f"{where}: {entry} -> a process on each of {found[2]} GPUs; "
                                  "for processes on the CPU write `to_device: cpu` in job_conf")

    def environment(self) -> None:
        """In Kuiper a setup command chose the interpreter."""
        commands = self.document.data.get("setup_commands")
        for index, command in enumerate(commands if isinstance(commands, list) else ()):
            if "activate" in str(command):
                where = self.document.where("setup_commands", index)
                self.notes.append(f"{where}: whatever it activates, processes run the `python` of their "
                                  "host, {host: ..., python: /path/to/python}")

    def note(self, name: str, becomes: str) -> None:
        where, value = self.document.where("job_conf", name), schema.shown(self.theirs[name])
        self.notes.append(f"{where}: {name}: {value} -> {becomes}")

    def problem(self, name: str, message: str, remedy: str) -> None:
        where = self.document.where("job_conf", name)
        self.document.problems.append(Problem(where, f"job_conf.{name}", message, remedy))


def _line(note: str) -> float:
    found = re.search(r":(\d+): ", note)
    return float(found[1]) if found else math.inf


def advice(key: str) -> str:
    """About a key of Kuiper's in a spec of ours; "" about any other."""
    if key not in JOB_CONF:
        return ""
    to = JOB_CONF[key].to
    return f"what Kuiper calls {key} is `{to}` here" if to else JOB_CONF[key].remedy
