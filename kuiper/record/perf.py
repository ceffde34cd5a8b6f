"""`training_perf`: accuracy over time, a pickle of builtins that scripts written for Kuiper read.

Reading a pickle can run anything, so `load_perf` refuses every global. The one exception is
`collections.OrderedDict`, which older files hold; it is read as a dict.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kuiper.errors import RecordError
from kuiper.record.atomic import write_bytes
from kuiper.record.plain import find_foreign, plain

FORMAT = 2
PROTOCOL = 4  # Python 3.4 and later read it


@dataclass
class TrainingPerf:
    """Builds the content of a `training_perf`; the fields are its keys.

    Args:
        data_set: name of the dataset.
        model: name of the model.
        sample_mode: how clients are selected; the selector's name.
        gradient_policy: what turns gradients or updates into a model; the aggregator's name.
        task: cv, speech, nlp or text.
        job_name: of the job.
        run_id: of the run.
        seed: of the run.
        config: the resolved job_conf.
        diverged: the first step or round at which the run diverged; None while it has not.
    """

    data_set: str
    model: str
    sample_mode: str
    gradient_policy: str
    task: str
    job_name: str = ""
    run_id: str = ""
    seed: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    diverged: int | None = None

    def __post_init__(self) -> None:
        self.perf: dict[int, dict[str, Any]] = {}

    def add(self, round: int, clock: float, top_1: float, top_5: float, loss: float, **more: Any) -> None:
        """Record one evaluation; a second one of the same round replaces the first.

        Args:
            round: the round or step just ended; 0 is the initial model.
            clock: seconds since the start, virtual or wall.
            top_1: percent.
            top_5: percent.
            loss: mean test loss.
            more: further values, plain builtins or arrays.
        """
        self.perf[int(round)] = {
            "round": int(round),
            "clock": float(clock),
            "top_1: ": float(top_1),  # the colon and the space belong to Kuiper's key
            "top_5: ": float(top_5),
            "loss": float(loss),
            **plain(more),
        }

    def as_dict(self) -> dict[str, Any]:
        """The whole file as one dict of builtins."""
        return plain({**asdict(self), "perf": self.perf, "format": FORMAT})


def dump_perf(path: Path, perf: dict[str, Any]) -> None:
    """Write `perf` atomically.

    Raises:
        RecordError: something in it is not a plain builtin, or the file cannot be written.
    """
    foreign = find_foreign(perf)
    if foreign is not None:
        raise RecordError(
            f"cannot write {path}: {foreign} is not a plain builtin",
            "convert it to dict, list, tuple, str, int, float, bool or None first",
        )
    write_bytes(path, pickle.dumps(perf, protocol=PROTOCOL))


def load_perf(path: Path) -> dict[str, Any]:
    """Read a `training_perf`, this version's or an older one's; nothing in the file is ever run.

    Returns:
        The dict that federated learning scripts expect: data_set, model, ..., perf by round.

    Raises:
        RecordError: the file cannot be read, asks for a class or function, or holds no `perf`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RecordError(
            f"cannot read {path}: {error.strerror or error}",
            "give the run's ps/training_perf; it appears with the first evaluation",
        ) from error
    try:
        _check_memo(data)
        content = _BuiltinsOnly(io.BytesIO(data), encoding="utf-8").load()
    except Exception as error:  # pickle documents that damaged input may raise any exception
        raise _not_ours(path, str(error) or type(error).__name__) from error
    foreign = find_foreign(content)
    if foreign is not None:
        raise _not_ours(path, foreign)
    if not (isinstance(content, dict) and isinstance(content.get("perf"), dict)):
        raise _not_ours(path, "it has no 'perf' by round")
    return content


class _BuiltinsOnly(pickle.Unpickler):
    """Plain containers and scalars have opcodes of their own; whatever else a pickle names is refused."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _check_memo(data: bytes) -> None:
    """Refuse memo indices beyond the file's length: the unpickler would take memory up to the largest."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name.endswith("PUT") and argument > len(data):
            raise pickle.UnpicklingError(f"it asks for memo {argument}")


def _not_ours(path: Path, reason: str) -> RecordError:
    return RecordError(
        f"{path} is not a training_perf: {reason}",
        "it is damaged or was not written by kuiper; do not open it with pickle.load",
    )
