"""Any dataset as four arrays in one file, in the layout of Keras's mnist.npz."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kuiper.data._images import standardise as _standardise
from kuiper.data.dataset import Dataset, as_names
from kuiper.errors import SpecError
from kuiper.places import in_full


def npz(
    seed: int, path: str, standardise: bool = True, channels_last: bool = False, augment: Sequence[str] = ()
) -> Dataset:
    """Arrays x_train, y_train, x_test, y_test of a file that `numpy.savez` or `savez_compressed` wrote.

    x: numbers, (N, features), (N, height, width) or (N, channels, height, width); kept as float32, four
    bytes each. y: whole numbers from 0, (N,) or (N, 1). The classes are those up to the highest label.

    Args:
        seed: unused; the split is the file's.
        path: of the file, absolute or from `~`: processes run in folders of their own.
        standardise: give each feature of tables, each channel of images mean 0 and deviation 1 over
            the training set; otherwise values stay as they are.
        channels_last: images are (N, height, width, channels).
        augment: augmentations of each training batch.

    Raises:
        SpecError: the file or an array is not there, holds Python objects (they are never unpickled),
            or has another shape or type; `path` is relative; an unknown augmentation.
    """
    names, file = as_names(augment), in_full("path", path)
    arrays = {}
    try:
        with np.load(file, allow_pickle=False) as archive:
            for key in ("x_train", "y_train", "x_test", "y_test"):
                arrays[key] = archive[key]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise SpecError(
            f"dataset.path: {file} cannot be read: {error}",
            "write it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...), numbers only",
        ) from error
    train_x, test_x = (_samples(key, arrays[key], channels_last) for key in ("x_train", "x_test"))
    train_y, test_y = (_labels(key, arrays[key]) for key in ("y_train", "y_test"))
    if standardise and len(train_x) and train_x.shape[1:] == test_x.shape[1:]:
        _standardise(train_x, test_x)
    classes = max(int(y.max()) + 1 if len(y) else 0 for y in (train_y, test_y))
    return Dataset(train_x, train_y, test_x, test_y, classes, names)


def _samples(key: str, array: np.ndarray, channels_last: bool) -> Tensor:
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3, 4):
        raise SpecError(
            f"dataset.path: {key} is {array.dtype} of shape {array.shape}",
            "make it numbers, (N, features), (N, height, width) or (N, channels, height, width)",
        )
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and channels_last:
        array = array.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.array(array, np.float32, order="C"))


def _labels(key: str, array: np.ndarray) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "ui" or array.ndim != 1:
        raise SpecError(
            f"dataset.path: {key} is {array.dtype} of shape {array.shape}",
            "make it whole numbers, one label per sample",
        )
    return torch.from_numpy(array.astype(np.int64))
