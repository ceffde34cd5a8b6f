"""Class numbers from labels of any type."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from kuiper.errors import SpecError

log = logging.getLogger(__name__)

_SPARSE = 100  # times as many classes as occur are taken for numbers that count something else
_MOST = 1 << 20
_COUNT = "number the classes from 0: numpy.unique(y_train, return_inverse=True)[1]"


def class_numbers(train: np.ndarray, test: np.ndarray, file: object) -> tuple[Tensor, Tensor, int]:
    """Number the classes: whole numbers count from 0 as they are, names go by their order.

    Args:
        train, test: (n,) or (n, 1): integers, booleans, floats that are whole numbers, or names.
        file: that they come from, for messages.

    Returns:
        int64 (n,) labels of both sets, and how many classes there are: up to the highest label.

    Raises:
        SpecError: labels of another type or shape, below 0, not whole, or far from one another; names in test
            that train has not.
    """
    train, test = (_column(key, y, file) for key, y in (("y_train", train), ("y_test", test)))
    if (train.dtype.kind in "US") != (test.dtype.kind in "US"):
        raise SpecError(f"dataset.path: y_train of {file} is {train.dtype}, y_test {test.dtype}",
                        "give both the same labels")
    if train.dtype.kind in "US":
        return _named(train, test, file)
    numbers = [_whole(key, y, file) for key, y in (("y_train", train), ("y_test", test))]
    occurring = np.unique(np.concatenate(numbers))
    classes = int(occurring[-1]) + 1 if len(occurring) else 0
    if classes > _MOST or classes > _SPARSE * len(occurring):
        raise SpecError(f"dataset.path: {len(occurring)} classes of {file} are numbered up to {classes - 1}", _COUNT)
    lacking = np.setdiff1d(np.arange(classes), numbers[0])
    if len(lacking) and len(numbers[0]):
        log.warning("%s: y_train has no sample of %d of the classes 0 to %d: %s", file, len(lacking), classes - 1,
                    ", ".join(map(str, lacking[:10])))
    return torch.from_numpy(numbers[0]), torch.from_numpy(numbers[1]), classes


def _column(key: str, y: np.ndarray, file: object) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "buif":
        raise SpecError(f"dataset.path: {key} of {file} has shape {y.shape}, one label per sample is needed",
                        f"where a row has a one at its class, write {key}.argmax(1)")
    if y.ndim != 1 or y.dtype.kind not in "buifUS":
        raise SpecError(f"dataset.path: {key} of {file} is {y.dtype} of shape {y.shape}",
                        "make it whole numbers or names, one label per sample")
    return y


def _whole(key: str, y: np.ndarray, file: object) -> np.ndarray:
    if y.dtype.kind == "f" and not (np.isfinite(y) & (y == np.floor(y))).all():
        wrong = y[~(np.isfinite(y) & (y == np.floor(y)))]
        raise SpecError(f"dataset.path: {key} of {file} holds {wrong[0]:g}, which is no class number",
                        "labels are classes here; cut what is measured into classes")
    y = y.astype(np.float64) if y.dtype.kind == "f" else y
    if len(y) and y.min() < 0:
        raise SpecError(f"dataset.path: {key} of {file} holds {y.min()}; classes count from 0", _COUNT)
    if len(y) and y.max() >= 2**62:
        raise SpecError(f"dataset.path: {key} of {file} holds {y.max()}, which is no class number", _COUNT)
    return y.astype(np.int64)


def _named(train: np.ndarray, test: np.ndarray, file: object) -> tuple[Tensor, Tensor, int]:
    names = np.unique(train)
    unknown = np.setdiff1d(test, names)
    if len(unknown):
        raise SpecError(f"dataset.path: y_test of {file} has the class {unknown[0].item()!r}, which y_train has not",
                        "give both the same classes")
    return *(torch.from_numpy(np.searchsorted(names, y).astype(np.int64)) for y in (train, test)), len(names)
