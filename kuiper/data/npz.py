"""Any dataset as four arrays in one file, in the layout of Keras's mnist.npz."""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kuiper.data._labels import class_numbers
from kuiper.data._scale import as_float32
from kuiper.data._scale import standardise as _standardise
from kuiper.data.dataset import Dataset, as_names
from kuiper.errors import SpecError
from kuiper.places import in_full

_KEYS = ("x_train", "y_train", "x_test", "y_test")
_UNLIKE = 30  # times: a training set that is this much brighter than its test set is in other units
_FAR = 100  # deviations from the training set's mean: a test set that lies so far away may be in other units
log = logging.getLogger(__name__)


def npz(
    seed: int, path: str, standardise: bool = True, channels_last: bool = False, augment: Sequence[str] = ()
) -> Dataset:
    """Arrays x_train, y_train, x_test, y_test of a file that `numpy.savez` or `savez_compressed` wrote.

    x: numbers of any type, (N, features), (N, height, width) or (N, channels, height, width). They are
    standardised as they are, in float64, and then kept as float32, four bytes each. y: (N,) or (N, 1); whole
    numbers from 0 (floats and booleans too), the classes being those up to the highest, or names, in their order.

    Args:
        seed: unused; the split is the file's.
        path: of the file, absolute or from `~`: processes run in folders of their own.
        standardise: give each feature of tables, each channel of images mean 0 and deviation 1 over
            the training set; otherwise values stay as they are.
        channels_last: images are (N, height, width, channels).
        augment: augmentations of each training batch.

    Raises:
        SpecError: the file or an array is not there, holds Python objects (they are never unpickled),
            or has another shape or type; a value is not finite, or float32 cannot tell values apart that are not
            standardised; both sets are in different units; `path` is relative; an unknown augmentation.
    """
    names, file = as_names(augment), in_full("path", path)
    arrays = _read(file)
    train, test = (_samples(key, arrays[key], channels_last, file) for key in ("x_train", "x_test"))
    if not len(train) or not len(test):
        raise SpecError(f"dataset.path: {file} has {len(train)} training and {len(test)} test samples: an empty set",
                        "give both at least one sample")
    if train.shape[1:] != test.shape[1:]:
        raise SpecError(
            f"dataset.path: training samples of {file} have shape {train.shape[1:]}, test samples {test.shape[1:]}",
            "prepare both sets in the same way",
        )
    _check_units(train, test, file)
    convert = _standardise if standardise else as_float32
    train_x, test_x = convert(train, test, (f"x_train of {file}", f"x_test of {file}"))
    if standardise:
        _warn_of_units(test_x, file)
    train_y, test_y, classes = class_numbers(arrays["y_train"], arrays["y_test"], file)
    return Dataset(train_x, train_y, test_x, test_y, classes, names)


def _read(file: Path) -> dict[str, np.ndarray]:
    key, arrays = "", {}
    try:
        with file.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise ValueError("it is no .npz file")
        with np.load(file, allow_pickle=False) as archive:
            for key in _KEYS:
                arrays[key] = archive[key]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error,
            MemoryError) as error:  # fmt: skip
        reason = "it holds Python objects" if "allow_pickle" in str(error) else error
        raise SpecError(
            f"dataset.path: {f'{key} of ' if key else ''}{file} cannot be read: {reason}",
            "write it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...), numbers only",
        ) from error
    return arrays


def _samples(key: str, array: np.ndarray, channels_last: bool, file: Path) -> np.ndarray:
    """As (n, features) or (n, channels, height, width), in the type that it has."""
    if array.dtype.kind not in "buif" or array.ndim not in (2, 3, 4) or 0 in array.shape[1:]:
        raise SpecError(
            f"dataset.path: {key} is {array.dtype} of shape {array.shape} in {file}",
            "make it numbers, (N, features), (N, height, width) or (N, channels, height, width)",
        )
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and channels_last:
        array = array.transpose(0, 3, 1, 2)
    if array.ndim == 4 and array.shape[1] > 4 and array.shape[2 if channels_last else 3] in (1, 3, 4):
        log.warning("%s of %s is read as images of %d channels, %d x %d; if that is wrong, write "
                    "dataset.channels_last: %s", key, file, *array.shape[1:], str(not channels_last).lower())
    return array


def _check_units(train: np.ndarray, test: np.ndarray, file: Path) -> None:
    """Refuse sets of which one is in 0..255, say, and the other in 0..1: a model would learn nothing of it.

    Images are compared always, tables where one set has integers and the other fractions.
    """
    if train.ndim == 2 and (train.dtype.kind == "f") == (test.dtype.kind == "f"):
        return
    most = [max(abs(float(array.min())), abs(float(array.max()))) for array in (train, test)]
    if np.isfinite(most).all() and min(most) > 0 and max(most) > _UNLIKE * min(most):
        raise SpecError(
            f"dataset.path: x_train of {file} is {train.dtype} up to {most[0]:g}, x_test {test.dtype} up to "
            f"{most[1]:g}",
            "bring both to one scale: divide both by the same number",
        )


def _warn_of_units(test_x: torch.Tensor, file: Path) -> None:
    """Tell of a feature or channel whose test samples lie so far off that both sets may be in different units."""
    far_c = test_x.abs().flatten(2).mean((0, 2)) if test_x.ndim == 4 else test_x.abs().mean(0)
    if float(far_c.max()) > _FAR:
        index = int(far_c.argmax())
        log.warning("%s: %s %d of x_test lies %.3g standard deviations of x_train from its mean; are both in the same "
                    "units?", file, "channel" if test_x.ndim == 4 else "feature", index, float(far_c[index]))
