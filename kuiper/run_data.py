"""The data set of a run: one for all its processes, from its beginning to its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kuiper.errors import DifferentData
from kuiper.link.holding import REMEDY, Holding, difference, pack, unpack
from kuiper.places import data_folder
from kuiper.record.data import Digests, read_data, write_data

RECORD = "data.json"
NAMED = 3
"""Processes with other data that an error names."""


class RunData:
    """What a process of a run holds; on rank 0, also what all others must hold, and the record of it.

    Attributes:
        holding: as the mesh compares it.
    """

    def __init__(self, config: Mapping[str, Any], run_dir: Path, rank: int) -> None:
        self.holding = Holding(same=not config["conf"].get("allow_different_data"))
        self._dataset = config["conf"]["dataset"]
        self._processes = config["processes"]
        self._record = run_dir / RECORD
        self._rank = rank

    @property
    def digests(self) -> Digests:
        """Of the data set of this process, by its parts."""
        return unpack(self.holding.data)

    def hold(self, digests: Digests) -> None:
        """Take note of the data set that was loaded; rank 0 compares it with what the run began with.

        Raises:
            DifferentData: it has changed since then.
        """
        holding = self.holding
        files = (f"{parameter} {path}" for parameter, path in self._source().items())
        holding.data, holding.source = pack(digests), ", ".join([self._dataset["_name_"], *files])
        held = {} if self._rank else read_data(self._record)
        ranks = {process["name"]: rank for rank, process in enumerate(self._processes)}
        holding.known |= {ranks[name]: pack(parts) for name, parts in held.items()}
        began = holding.known.pop(0, holding.data)
        if began != holding.data:
            changed = difference(began, holding.data, "on record", "now")
            raise DifferentData(f"the data of this run has changed since it began: of {holding.source} {changed}",
                                "bring back the files that it began with, or submit the job again for a new run")

    def require_same(self, different: Mapping[int, bytes]) -> None:
        """Raise DifferentData if processes may not join for what they hold, by rank."""
        if not different:
            return
        processes = [(rank, self._processes[rank]) for rank in sorted(different)]
        refusals = [self.holding.refusal(rank, f"{process['name']} on {process['host']}", different[rank])
                    for rank, process in processes]
        if len(refusals) > NAMED:
            refusals[NAMED:] = [f"and so do {len(refusals) - NAMED} more"]
        raise DifferentData("; ".join(refusals) + f" ({self.holding.source})", REMEDY)

    def keep(self) -> None:
        """Write what all processes that have joined hold."""
        held = {0: self.holding.data, **self.holding.known}
        named = {self._processes[rank]["name"]: unpack(data) for rank, data in sorted(held.items())}
        write_data(self._record, self._dataset["_name_"], self._source(), named)

    def _source(self) -> dict[str, str]:
        """Where this process reads the files of the data set, by the parameter that says so."""
        parameters = self._dataset.get("_files_") or ()
        return {parameter: str(data_folder(self._dataset[parameter])) for parameter in parameters}
