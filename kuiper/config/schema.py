"""What a job spec may say: its keys, their types and bounds, as data; and problems with it.

The defaults of the values of job_conf are in groups/config.yaml, with Hydra's other defaults.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kuiper.config import slips
from kuiper.errors import SpecError


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a spec.

    Attributes:
        where: "conf.yml:12", or the option it came from.
        key: path of the key, "job_conf.seed"; "" when it concerns the whole file.
        message: what is wrong: the value and the bound that it breaks.
        remedy: what to do about it.
    """

    where: str
    key: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return " ".join(filter(None, (f"{self.where}:", self.key, self.message))) + f"\n  -> {self.remedy}"


class InvalidSpec(SpecError):
    """Everything that is wrong with a spec, in the order of its lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(dict.fromkeys(problems), key=lambda problem: _line(problem.where))
        super().__init__("\n\n".join(str(problem) for problem in self.problems))


def _line(where: str) -> tuple[int, int]:
    """Lines of the spec first and in order; options and other files after them."""
    found = re.search(r":(\d+)\Z", where)
    return (0, int(found[1])) if found else (1, 0)


@dataclass(frozen=True)
class Key:
    """What one key may hold.

    Attributes:
        kind: int, float, bool, text, list, mapping, seconds, choice (of a group), or any (a scalar).
        doc: one line for the user.
        default: of a top-level key (the values' own are in groups/config.yaml).
        low, high: inclusive bounds; of each item when kind is list.
        above: exclusive lower bound.
        choices: the only texts allowed.
        words: texts allowed beside values of `kind`.
        null: whether it may be left empty.
        items: kind of a list's items; empty: not checked here.
        pattern, shape: of a text: a regular expression, and what it means in words.
        required: whether it must be there.
    """

    kind: str
    doc: str = ""
    default: Any = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    null: bool = False
    items: str = ""
    pattern: str = ""
    shape: str = ""
    required: bool = False


JOB_NAME = Key(
    "text", "names the run directory and is what stop, logs and status take", required=True,
    pattern=r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
    shape="1 to 100 letters, digits, '.', '_' or '-', beginning with a letter or digit, without '..'",
)
HOST = r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?"
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
PATH = r"(?:[^\x00-\x1f\x7f$]|\$(?:HOME|USER)\b|\$\{(?:HOME|USER)\}|\$(?![A-Za-z_{]))+"
A_PATH = "text without control characters; of variables, only $HOME and $USER"

SPEC: dict[str, Key] = {
    "job_name": JOB_NAME,
    "ps_ip": Key("list", "host of the server (of the observer, in a peer-to-peer job), or a mapping", default=[]),
    "worker_ips": Key("list", "hosts of the workers: host:n, host:[a,b] or a mapping", default=[]),
    "exp_path": Key("text", "where the code snapshot goes on every host", default="~/kuiper",
                    pattern=PATH, shape=A_PATH),
    "log_path": Key("text", "where run directories are made", default="logs", pattern=PATH, shape=A_PATH),
    "auth": Key("mapping", "ssh_user and ssh_private_key", default={}),
    "setup_commands": Key("list", "shell commands before python starts", default=[], items="text"),
    "secrets": Key("list", "names of environment variables to carry along", default=[], items="text",
                   pattern=IDENTIFIER, shape="names of environment variables, never their values"),
    "limits": Key("mapping", "duration and grace", default={}),
    "on_failure": Key("mapping", "{tolerate: n processes, retry: n times}, or stop_all", default={},
                      words=("stop_all",)),
    "allow": Key("list", "further prefixes of what may be built from a config", default=[], items="text",
                 pattern=rf"{IDENTIFIER}(\.{IDENTIFIER})*\.?", shape="module names such as mypackage.rules"),
    "mode": Key("text", "cluster, or simulate: the same job in one process", default="cluster",
                choices=("cluster", "simulate")),
    "job_conf": Key("mapping", "the experiment: groups and values", required=True),
}
AUTH: dict[str, Key] = {
    "ssh_user": Key("text", "who logs in on the hosts"),
    "ssh_private_key": Key("text", "path of the key, on the submitter", pattern=rf"({PATH})?", shape=A_PATH),
}
LIMITS: dict[str, Key] = {
    "duration": Key("seconds", "the run is stopped after this long", above=0, null=True),
    "grace": Key("seconds", "from asking a process to end to killing it", default=30.0, low=0),
}
ON_FAILURE: dict[str, Key] = {
    "tolerate": Key("int", "worker processes that may be gone at once; null: as many as leave n - f nodes",
                    low=0),
    "retry": Key("int", "how often a worker process that died is started again; waited for if too few are left",
                 low=0, high=1000, default=0),
}
WORKER: dict[str, Key] = {
    "host": Key("text", "name or address", required=True, pattern=HOST, shape="a host name or address"),
    "processes": Key("int", "how many", low=1, high=4096),
    "gpus": Key("list", "a device for each process, in turn", items="int", low=0, high=63, default=[]),
    "port": Key("int", "of sshd", low=1, high=65535),
    "python": Key("text", "interpreter on that host", pattern=rf"(?=/|~/|\$HOME/|\$\{{HOME\}}/){PATH}",
                  shape="an absolute path; `~`, $HOME and $USER are that host's"),
}

TRACKERS = ("wandb", "tensorboard")

VALUES: dict[str, Key] = {
    "seed": Key("int", "every draw is a function of it; a list: a job with each", low=0, high=2**63 - 1),
    "num_workers": Key("int", "workers, peers or clients", low=1, high=10_000_000, required=True),
    "num_byzantine": Key("int", "how many of them are Byzantine in truth", low=0),
    "f": Key("int", "how many the rule is told to expect; empty: num_byzantine", low=0, null=True),
    "byzantine": Key("list", "their node ids; empty: drawn by seed", items="int", low=0, null=True),
    "quorum": Key("int", "rows a gather waits for; empty: all; n-f", low=1, words=("n-f",), null=True),
    "pre_aggregator": Key("list", "applied to rows before the rule, in this order: nnm, arc and so on"),
    "deadline": Key("seconds", "longest wait of a gather", above=0, null=True),
    "on_nan": Key("text", "when a node's loss or row is not finite; empty: left to the rule", null=True,
                  choices=("stop", "drop")),
    "on_divergence": Key("text", "when the run's loss or model is not finite, or its loss 1000 times the first: "
                         "go on and mark the run, or end it as FAILED", choices=("go_on", "stop")),
    "steps": Key("int", "length of the run", low=1, null=True),
    "epochs": Key("float", "length of the run, in passes over the training set", above=0, null=True),
    "rounds": Key("int", "length of a federated run", low=1, null=True),
    "eval_interval": Key("int", "steps or rounds between evaluations", low=1),
    "checkpoint_interval": Key("int", "steps or rounds between checkpoints, which `resume` goes on from",
                               low=1, null=True),
    "batch_size": Key("int", "samples per node and step", low=1),
    "validation": Key("float", "part of the training set that is held out, and scored beside the test set",
                      low=0, high=0.99),
    "allow_different_data": Key("bool", "whether processes may hold different data sets; each must keep its own"),
    "loss": Key("text", "of the model's logits; nll: of log-probabilities",
                choices=("cross_entropy", "nll", "mse", "bce")),
    "buffers": Key("text", "BatchNorm's running statistics: estimated from training samples at evaluation, "
                   "part of every row, or each peer's own", choices=("reestimate", "aggregate", "local")),
    "precision": Key("text", "of the forward and backward pass; parameters and gradients stay float32",
                     choices=("float32", "bfloat16")),
    "engine": Key("text", "how gradients are computed; auto: the model's own choice",
                  choices=("auto", "sequential", "batched")),
    "clock": Key("text", "auto: virtual when simulated, wall otherwise; processes of a server can be virtual too",
                 choices=("auto", "virtual", "wall")),
    "transport": Key("text", "mesh, or collective: torch.distributed, every row, between trusted hosts",
                     choices=("mesh", "collective")),
    "row_dtype": Key("text", "gradients, updates and peers' parameters as they travel; models stay float32",
                     choices=("float32", "bfloat16", "float16")),
    "security": Key("text", "of the mesh; none only on an isolated network", choices=("tls", "none")),
    "threads": Key("int", "torch threads per process", low=1, high=1024),
    "pool": Key("int", "processes that share a simulation's computing, one per core; empty: none",
                low=1, high=1024, null=True),
    "join_timeout": Key("seconds", "how long the server waits for the processes to join", above=0),
    "tracker": Key("list", "dashboards beside metrics.jsonl; wandb is online where WANDB_API_KEY is", items="text",
                   words=("none", *TRACKERS), pattern="none|" + "|".join(TRACKERS),
                   shape=" or ".join(("none", *TRACKERS))),
    "ports": Key("text", "the server binds one of them; empty: any free one", null=True,
                 pattern=r"\d{1,5}-\d{1,5}", shape="a range such as '29600-29650'"),
}
GROUPS = ("algorithm", "aggregator", "attack", "model", "dataset", "partition", "optimizer", "schedule",
          "selector", "devices")
FOLDERS = (*GROUPS, "pre_aggregator")  # of choices; several pre-aggregators can be chosen at once
REQUIRED_GROUPS = ("algorithm", "model", "dataset")

_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "text": "text",
          "list": "a list", "mapping": "a mapping", "seconds": "a time such as 30s, 5m, 2h or 1d (a number alone: seconds), below 30 years",
          "any": "a number, a text, or true or false", "choice": "a name or {name: {parameter: value}}"}
_MOST_SECONDS = 30 * 365 * 86400.0  # what clocks and certificates can be asked to add
_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def nearest(word: str, known: Iterable[str]) -> str:
    """Advice for an unknown word: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(str(word).lower(), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(known)}" if known else "none is known here"


def seed_name(job_name: str, seed: int) -> str:
    """What the job of one of several seeds is called."""
    return f"{job_name}-seed{seed}"


def expects(key: Key) -> str:
    """What a key may hold, in words."""
    if key.choices:
        return "one of " + ", ".join(key.choices)
    if key.kind == "list":
        each = f"a list, each item {_NAMES[key.items]}" if key.items else "a list"
        return f"a list of {key.shape}" if key.shape else each
    text = key.shape or _NAMES[key.kind]
    if key.kind in ("int", "float", "seconds"):
        if key.low is not None and key.high is not None:
            text += f" from {key.low} to {key.high}"
        elif key.low is not None or key.above is not None:
            text += f" of at least {key.low}" if key.low is not None else f" above {key.above}"
        elif key.high is not None:
            text += f" of at most {key.high}"
    for word in key.words:
        text += f", or {word}"
    return text + (", or empty" if key.null else "")


def check(key: Key, value: Any) -> tuple[Any, str]:
    """The value in its own type, and "" or what is wrong with it ("is -1, and must be ...")."""
    checked, wrong = _check(key, value)
    if wrong:
        wrong += slips.meant(key.kind, value, lambda other: not _check(key, other)[1])
    return checked, wrong


def _check(key: Key, value: Any) -> tuple[Any, str]:
    if value is None and key.null or isinstance(value, str) and value in key.words:
        return value, ""
    wrong = f"is {shown(value)}, and must be {expects(key)}"
    if key.kind == "list" and key.items and isinstance(value, list):
        item = Key(key.items, low=key.low, high=key.high, choices=key.choices, pattern=key.pattern, shape=key.shape)
        checked = [_check(item, one) for one in value]
        bad = next((index for index, one in enumerate(checked) if one[1]), None)
        if bad is not None:
            return value, f"has an item that {checked[bad][1]} (item {bad}, counted from 0)"
        return [one[0] for one in checked], ""
    converted = _convert(key.kind, value)
    if converted is None or key.choices and converted not in key.choices:
        return value, wrong
    if key.pattern and not re.fullmatch(key.pattern, converted):
        return value, wrong
    if key.kind in ("int", "float", "seconds"):
        low = key.low is not None and converted < key.low or key.above is not None and converted <= key.above
        if low or key.high is not None and converted > key.high:
            return value, wrong
    return converted, ""


def shown(value: Any) -> str:
    """A value as it may stand in a message: short, and on one line."""
    if value is None:
        return "empty"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def seconds(text: str) -> float | None:
    """'30s', '1.5h', '200ms' as seconds; None when it is no time."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)", text.strip())
    return float(found[1]) * _UNITS[found[2]] if found else None


def _convert(kind: str, value: Any) -> Any:
    """The value as `kind`, or None when it is something else (a bool is no number here)."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    match kind:
        case "int":
            return value if number and isinstance(value, int) else None
        case "float":
            return float(value) if number and abs(value) < 1e300 else None
        case "seconds":
            time = seconds(value) if isinstance(value, str) else value if number else None
            return None if time is None or time > _MOST_SECONDS else float(time)
        case "bool":
            return value if isinstance(value, bool) else None
        case "text":
            return value if isinstance(value, str) and "\x00" not in value else None
        case "list":
            return value if isinstance(value, list) else None
        case "mapping":
            return value if isinstance(value, dict) else None
        case "choice":
            return value if isinstance(value, dict | str) else None
    return value if number or isinstance(value, str | bool) else None
