"""The job spec: conf.yml and the options laid over it, checked, with the place of every key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kuiper.cluster import hostfile
from kuiper.cluster.host import LOCAL, Address
from kuiper.cluster.hostnames import LOOPBACK, BadHost, canonical, is_ipv6, split
from kuiper.cluster.plan import Process, place
from kuiper.config import kuiper_conf, kuiper_keys, schema, source
from kuiper.config.bounds import LENGTHS
from kuiper.config.schema import InvalidSpec, Key, Problem
from kuiper.config.source import Document, Place
from kuiper.errors import UsageError
from kuiper.places import expanded

_COUNTS = re.compile(r"\s*(\d{1,6}|\[\s*\d{1,6}\s*(,\s*\d{1,6}\s*)*\])\s*")


@dataclass(frozen=True)
class Worker:
    """One entry of worker_ips or ps_ip: processes on one host.

    Attributes:
        gpus: one device index per process; empty: all on the CPU.
        port: of sshd; None: the default.
        python: interpreter there; None: the submitter's own.
    """

    host: str
    processes: int = 1
    gpus: tuple[int, ...] = ()
    port: int | None = None
    python: str | None = None


@dataclass(frozen=True)
class Limits:
    """Seconds: the longest run (None: no limit), and the wait between TERM and KILL."""

    duration: float | None = None
    grace: float = 30.0


@dataclass(frozen=True)
class Spec:
    """A job as it was asked for, or one for each of several seeds.

    Attributes:
        job_conf: a mapping whose keys may be dotted; later ones win. Its seed may be a list.
        notes: what the user should know of how the file was read, a line each.
        host_files: contents of the files that were given for "servers" and "workers".
        smoke_test: whether it only tries that all of it works, with two steps or rounds.
    """

    path: Path
    job_name: str = ""
    ps_ip: list[Worker] = field(default_factory=list)
    worker_ips: list[Worker] = field(default_factory=list)
    exp_path: str = ""
    log_path: str = ""
    auth: dict[str, str] = field(default_factory=dict)
    setup_commands: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    limits: Limits = Limits()
    on_failure: dict[str, int] = field(default_factory=dict)
    allow: list[str] = field(default_factory=list)
    mode: str = "cluster"
    job_conf: dict[str, Any] = field(default_factory=dict)
    document: Document = field(default_factory=lambda: Document("", {}), repr=False, compare=False)
    notes: list[str] = field(default_factory=list, compare=False)
    host_files: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    smoke_test: bool = False

    def where(self, *path: str | int) -> str:
        """The place of a key, "conf.yml:12", or of what encloses it."""
        return self.document.where(*path)

    def each(self) -> list[Spec]:
        """A spec per job: NAME-seed1, NAME-seed2, ... where job_conf lists seeds, else this one."""
        seeds = self.job_conf.get("seed")
        if not isinstance(seeds, list):
            return [self]
        names = [schema.seed_name(self.job_name, seed) for seed in seeds]
        return [
            replace(self, job_name=name, job_conf={**self.job_conf, "seed": seed})
            for name, seed in zip(names, seeds, strict=True)
        ]

    def smoke(self) -> Spec:
        """With a length of two steps or rounds instead of its own."""
        conf = {key: value for key, value in self.job_conf.items() if key not in LENGTHS}
        lengths = [key for key in LENGTHS if self.job_conf.get(key) is not None]
        if len(lengths) == 1:  # if not, composing says what is wrong
            conf["rounds" if lengths == ["rounds"] else "steps"] = 2
        return replace(self, job_conf=conf, smoke_test=True)

    def address(self, host: str, **known: str) -> Address:
        """How a host of this spec is reached; `known` is what was found out about it."""
        entries = [entry for entry in (*self.ps_ip, *self.worker_ips) if entry.host == host]
        said = {name: value for name in ("port", "python")
                for value in [next((getattr(entry, name) for entry in entries if getattr(entry, name)), None)] if value}
        key = self.auth.get("ssh_private_key")
        login = {"user": self.auth.get("ssh_user") or None, "key": expanded(key) if key else None}
        return Address(host, **{**login, **said, **known})

    def python_of(self, host: str) -> str | None:
        """The interpreter that the spec gives for a host, None if it does not."""
        entries = (*self.ps_ip, *self.worker_ips)
        return next((entry.python for entry in entries if entry.host == host and entry.python), None)

    def processes(self, num_workers: int, simulate: bool) -> list[Process]:
        """Its processes by rank, when nodes 0..num_workers-1 are shared out among them."""
        return place(self, num_workers, simulate)


def load(path: str | Path, overrides: Sequence[str] = (), simulate: bool = False,
         servers: Path | None = None, workers: Path | None = None) -> Spec:
    """Read conf.yml, be it Kuiper's own or ours, and lay `key=value` options over it.

    An option whose key begins with a top-level key goes there, any other into job_conf.

    Args:
        path: of conf.yml.
        overrides: "key=value", the value in YAML.
        simulate: the job will run in one process whatever `mode` says; hosts may be missing.
        servers, workers: host files (see hostfile.py) in the place of ps_ip and worker_ips.

    Raises:
        InvalidSpec: with all that is wrong, job_conf included.
        UsageError: an option is not of the form key=value.
    """
    document = source.load(path)
    if not isinstance(document.data, dict):
        remedy = "write keys and values: job_name: ..., job_conf: ..."
        raise InvalidSpec([Problem(document.where(), "", "does not hold a mapping", remedy)])
    reader = _Reader(document)
    reader.flatten_job_conf()
    if kuiper_conf.is_kuipers(document.data.get("job_conf")):
        reader.notes, reader.unsettled = kuiper_conf.translate(document, Path(path).parent)
    reader.host_file("servers", "ps_ip", servers)
    reader.host_file("workers", "worker_ips", workers)
    for option in overrides:
        reader.override(option)
    spec = reader.spec(Path(path), simulate)
    if reader.problems:
        from kuiper.config import (
            compose,  # Hydra's import is paid for only by those who compose
        )

        more = compose.problems(spec.each()[0], simulate)
        unsettled = {f"job_conf.{group}" for group in reader.unsettled}
        raise InvalidSpec(reader.problems + [problem for problem in more if problem.key not in unsettled])
    return spec


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems = document.problems
        self.notes: list[str] = []
        self.unsettled: set[str] = set()
        self.host_files: dict[str, bytes] = {}
        self.spelled: dict[str, str] = {}
        """How a host was written first, by its name in lower case."""

    def problem(self, path: Sequence[str | int], message: str, remedy: str) -> None:
        key = ".".join(str(part) for part in path)
        self.problems.append(Problem(self.document.where(*path), key, message, remedy))

    def flatten_job_conf(self) -> None:
        """Kuiper's list of one-key maps becomes a mapping; keys keep their places."""
        conf = self.document.data.get("job_conf")
        if not isinstance(conf, list):
            return
        flat: dict[str, Any] = {}
        for index, item in enumerate(conf):
            if not isinstance(item, dict):
                message = f"is {schema.shown(item)}, and must be a key with its value"
                self.problem(("job_conf", index), message, "write each item as `- key: value`")
                continue
            for key, value in item.items():
                old, new = ("job_conf", index, key), ("job_conf", key)
                if key in flat:
                    message = f"is set twice; first at {self.document.where(*new)}"
                    self.problem(old, message, "keep one of the two")
                    continue
                flat[key] = value
                moved = {new + at[3:]: line for at, line in self.document.places.items() if at[:3] == old}
                self.document.places.update(moved)
        self.document.data["job_conf"] = flat

    def host_file(self, name: str, key: str, path: Path | None) -> None:
        """Put the hosts of a file in the place of a key."""
        if path is None:
            return
        try:
            entries, self.host_files[name] = hostfile.read(path)
        except InvalidSpec as error:
            self.problems += error.problems
            return
        self.document.data[key] = [entry for entry, _ in entries]
        places = self.document.places
        for at in [at for at in places if at[:1] == (key,)]:
            del places[at]
        places.update({(key,): str(path)} | {(key, index): where for index, (_, where) in enumerate(entries)})

    def override(self, option: str) -> None:
        name, equals, text = option.partition("=")
        name, where = name.strip(), f"-o {option}" if option.isprintable() else f"-o {option!r}"
        if not equals:
            raise UsageError(f"the option {where} has no '='", "write -o key=value, such as -o seed=3")
        if not re.fullmatch(rf"{schema.IDENTIFIER}(\.{schema.IDENTIFIER})*", name):
            self.problems.append(Problem(where, "", f"sets {name!r}, which is no key",
                                         "write -o key=value, such as -o seed=3 or -o optimizer.lr=0.1"))
            return
        try:
            parsed = source.parse(text, where, lines=False)
        except InvalidSpec as error:
            self.problems += error.problems
            return
        if parsed.problems:
            self.problems += parsed.problems
            return
        first, *rest = name.split(".")
        path: tuple[str, ...] = (first, *rest)
        if first not in schema.SPEC or first == "job_conf" and rest:
            path = ("job_conf", ".".join(rest if first == "job_conf" else path))
        target = self.document.data
        for part in path[:-1]:
            if not isinstance(target.get(part), dict):
                target[part] = {}
            target = target[part]
        target.pop(path[-1], None)  # set again at the end: what comes later wins
        target[path[-1]] = parsed.data
        places = self.document.places
        for old in [at for at in places if at[: len(path)] == path]:
            del places[old]
        places[path] = where
        if path == ("job_conf",):
            self.flatten_job_conf()

    def table(self, path: Place, keys: dict[str, Key], data: dict[str, Any]) -> dict[str, Any]:
        """Check a mapping against its keys; a value that is wrong is replaced by the default."""
        result = {}
        for name, key in keys.items():
            result[name] = key.default
            if name in data and not (data[name] is None and not key.required):
                value, wrong = schema.check(key, data[name])
                if wrong:
                    self.problem((*path, name), wrong, f"{name}: {key.doc}")
                else:
                    result[name] = value
            elif key.required:
                self.problem((*path, name), "is missing", f"add `{name}: ...`: {key.doc}")
        for name in data:
            if name not in keys:
                remedy = schema.nearest(name, keys)
                if path == () and name in kuiper_keys.TOP:
                    remedy = kuiper_keys.TOP[name]
                elif path == () and name.split(".")[0] in (*schema.VALUES, *schema.GROUPS):
                    remedy = f"move it into job_conf, indented below it: `{name}: ...`"
                self.problem((*path, name), "is not a key that kuiper knows", remedy)
        return result

    def spec(self, path: Path, simulate: bool) -> Spec:
        if isinstance(self.document.data.get("ps_ip"), (str, dict)):
            self.document.data["ps_ip"] = [self.document.data["ps_ip"]]
        top = self.table((), schema.SPEC, self.document.data)
        self.seeds(top["job_name"] or "", top["job_conf"] or {})
        simulate = simulate or top["mode"] == "simulate"
        limits = self.table(("limits",), schema.LIMITS, top["limits"])
        auth = self.table(("auth",), schema.AUTH, top["auth"])
        failure = top["on_failure"]
        if failure == "stop_all":
            failure = {"tolerate": 0}
        servers = [self.worker("ps_ip", index, entry) for index, entry in enumerate(top["ps_ip"])]
        workers = [self.worker("worker_ips", index, entry) for index, entry in enumerate(top["worker_ips"])]
        spec = Spec(
            path=path.absolute(),
            job_name=top["job_name"] or "",
            ps_ip=[server for server in servers if server],
            worker_ips=[worker for worker in workers if worker],
            exp_path=top["exp_path"],
            log_path=expanded(top["log_path"]),
            auth={name: value for name, value in auth.items() if value is not None},
            setup_commands=top["setup_commands"],
            secrets=top["secrets"],
            limits=Limits(**limits),
            on_failure=self.table(("on_failure",), schema.ON_FAILURE, failure),
            allow=[prefix.rstrip(".") + "." for prefix in top["allow"]],
            mode="simulate" if simulate else "cluster",
            job_conf=top["job_conf"] or {},
            document=self.document,
            notes=self.notes,
            host_files=self.host_files,
        )
        if not simulate:
            self.hosts(spec)
        return spec

    def seeds(self, job_name: str, job_conf: dict[str, Any]) -> None:
        """Check a list of seeds, and the names that its jobs get; one that is wrong is taken out."""
        at, seeds = ("job_conf", "seed"), job_conf.get("seed")
        if not isinstance(seeds, list):
            return
        remedy = "write `seed: [1, 2, 3]` for a job with each, or one whole number"
        wrong = schema.check(replace(schema.VALUES["seed"], kind="list", items="int"), seeds)[1]
        if not wrong and not seeds:
            wrong = "is an empty list: there is nothing to run"
        if not wrong and len(set(seeds)) < len(seeds):
            wrong = f"is {schema.shown(seeds)}, which names a seed twice"
        if wrong:
            self.problem(at, wrong, remedy)
            del job_conf["seed"]
            return
        longest = max((schema.seed_name(job_name, seed) for seed in seeds), key=len)
        if job_name and schema.check(schema.JOB_NAME, longest)[1]:
            self.problem(("job_name",), f"is too long for {longest!r}, the name of a job of one seed",
                         f"shorten it by {len(longest) - 100} characters")

    def hosts(self, spec: Spec) -> None:
        """What a job on hosts needs and a simulation does not."""
        for key, example in (("ps_ip", "localhost"), ("worker_ips", "[localhost:2]")):
            if not self.document.data.get(key):
                self.problem((key,), "is missing", f"add `{key}: {example}`, or run it with --simulate")
        if len(spec.ps_ip) > 1:
            message = f"names {len(spec.ps_ip)} servers, and this version runs one"
            self.problem(("ps_ip",), message, "name one")
        if len(spec.ps_ip) == 1 and (spec.ps_ip[0].processes != 1 or spec.ps_ip[0].gpus):
            self.problem(("ps_ip",), "must name one process", "write its host alone, or {host: ..., port: ...}")
        entries = [*spec.ps_ip, *spec.worker_ips]
        for name in ("port", "python"):
            for host in dict.fromkeys(entry.host for entry in entries):
                said = {getattr(entry, name) for entry in entries if entry.host == host} - {None}
                if len(said) > 1:
                    each = " and ".join(sorted(map(str, said)))
                    self.problem(("worker_ips",), f"gives the host {host} two values of {name}: {each}",
                                 "write it once, or alike")
        if spec.ps_ip and spec.ps_ip[0].host == LOCAL and any(entry.host != LOCAL for entry in entries):
            self.problem(("ps_ip",), "is localhost, where workers on other hosts cannot reach it",
                         "give the address of this machine that they see, or put the server on another host")

    def worker(self, key: str, index: int, entry: Any) -> Worker | None:
        """`host`, `host:n`, `host:[a,b]` (a processes on GPU 0, b on GPU 1), or a mapping."""
        at, given = (key, index), entry
        if isinstance(entry, str):
            try:
                host, count = split(entry)
            except BadHost as error:
                self.problem(at, f"is {schema.shown(given)}, {error}", error.remedy)
                return None
            entry = {"host": host}
            if count is not None:
                entry = {host: None}
                if _COUNTS.fullmatch(count):
                    numbers = [int(number) for number in re.findall(r"\d+", count)]
                    entry = {host: numbers if "[" in count else numbers[0]}
        if isinstance(entry, dict) and len(entry) == 1 and "host" not in entry:
            [(host, count)] = entry.items()
            entry = {"host": host, "processes": count}
            if isinstance(count, list):
                entry = {"host": host, "gpus": _in_turn(count)}
            if count is None or entry.get("gpus") == []:
                name = f"[{host}]" if is_ipv6(host) else host
                self.problem(at, f"is {schema.shown(given)}, and must count processes",
                             f"write {name}:2, or {name}:[2,2] for two on each of two GPUs")
                return None
        if not isinstance(entry, dict):
            self.problem(at, f"is {schema.shown(entry)}, and must name a host",
                         "write host:n, host:[a,b] or {host: ..., processes: ...}")
            return None
        before = len(self.problems)
        if isinstance(entry.get("host"), str):
            try:
                entry = {**entry, "host": self.one_spelling(split(entry["host"])[0], entry.get("port"))}
            except BadHost as error:
                self.problem(at, f"is {schema.shown(given)}, {error}", error.remedy)
                return None
        keys = self.table(at, schema.WORKER, entry)
        if len(self.problems) > before:
            return None
        gpus = keys["gpus"]
        count = keys["processes"] or len(gpus) or 1
        devices = tuple(gpus[process % len(gpus)] for process in range(count if gpus else 0))
        python = expanded(keys["python"]) if keys["host"] == LOCAL and keys["python"] else keys["python"]
        return Worker(keys["host"], count, devices, keys["port"], python)

    def one_spelling(self, host: str, port: Any) -> str:
        """A host as it was written first: `Node1`, `node1.` and `node1` are one, as are ways to write an address."""
        host = canonical(host)
        if host in LOOPBACK and port is None:
            note = f"{host} is this machine: no ssh; with a port, {{host: '{host}', port: 22}}, it is reached by ssh"
            self.notes += [note] if note not in self.notes else []
            return LOCAL
        return self.spelled.setdefault(host.lower(), host)


def _in_turn(counts: list[Any]) -> list[int]:
    """[2, 1] -> [0, 0, 1]: a device index per process; empty when these are not counts."""
    if any(schema.check(Key("int", low=0, high=4096), count)[1] for count in counts):
        return []
    return [device for device, count in enumerate(counts) for _ in range(count)]
