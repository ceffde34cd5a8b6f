"""TensorBoard: event files in `tensorboard/` of rank 0's folder; `tensorboard --logdir logs` shows all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """See `kuiper.record.trackers.Tracker`."""

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        self._writer.close()


def start(folder: Path, config: Mapping[str, Any]) -> TensorBoard:
    writer = SummaryWriter(str(folder / "tensorboard"))
    text = yaml.safe_dump(dict(config), sort_keys=False)
    writer.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))  # Markdown for code
    return TensorBoard(writer)
