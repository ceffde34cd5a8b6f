"""A digest of a data set, by which processes and runs see that they hold the same one."""

from __future__ import annotations

import hashlib

from torch import Tensor

from kuiper.data.dataset import Dataset

_BYTES = 16


def digests(data: Dataset) -> dict[str, str]:
    """Digests of the training and of the test set, 32 hexadecimal digits each.

    They are of the samples as they are in memory, in their order: equal for files that hold the same
    samples in another folder, compression or order of arrays. Takes about 1 s a GB.

    Args:
        data: on the CPU, before samples are held out for validation or shared out among nodes.

    Returns:
        {"train": ..., "test": ...}
    """
    return {"train": _digest(data.train_x, data.train_y, data.classes),
            "test": _digest(data.test_x, data.test_y, data.classes)}  # fmt: skip


def _digest(x: Tensor, y: Tensor, classes: int) -> str:
    digest = hashlib.blake2b(f"{x.dtype} {tuple(x.shape)} {y.dtype} {classes}".encode(), digest_size=_BYTES)
    for tensor in (x, y):
        digest.update(memoryview(tensor.contiguous().numpy()).cast("B"))
    return digest.hexdigest()
