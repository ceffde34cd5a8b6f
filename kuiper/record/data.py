"""data.json of a run: digests of the data set that each process held when it first joined."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from kuiper.errors import RecordError
from kuiper.record.atomic import write_json

Digests = Mapping[str, str]


def write_data(path: Path, dataset: str, source: Mapping[str, str], held: Mapping[str, Digests]) -> None:
    """Write the record.

    Args:
        dataset: its name.
        source: where rank 0 read it, by parameter.
        held: digests of the parts of the data set, by the name of the process.

    Raises:
        RecordError: it cannot be written.
    """
    write_json(path, {"dataset": dataset, "source": source, "held": held})


def read_data(path: Path) -> dict[str, Digests]:
    """What each process held, by its name; empty where nothing is on record.

    Raises:
        RecordError: the record is damaged.
    """
    try:
        held: dict[str, Digests] = json.loads(path.read_bytes())["held"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RecordError(f"cannot read {path}: {error}", "submit the job again") from error
    return held
