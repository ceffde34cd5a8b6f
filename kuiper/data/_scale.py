"""Arrays of any number type as float32 tensors, without losing what tells their samples apart.

All arithmetic is in float64: a column of timestamps has no spread left in float32, and one of 1e30 no finite
square. Arrays are read in blocks, so that no copy of a whole set is made in float64.

Letters: n samples, c features of a table or channels of images, p pixels (1 in a table).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kuiper.errors import SpecError

_BLOCK = 1 << 22  # values that are converted at once
_EXACT = 1e-3  # of a feature's spread: the largest error that float32 may bring in


def standardise(train: np.ndarray, test: np.ndarray, names: tuple[str, str] = ("x_train", "x_test")
                ) -> tuple[Tensor, Tensor]:
    """Give each feature (of tables) or channel (of images) mean 0 and deviation 1 over the training set.

    What is constant there is only centred.

    Args:
        train, test: (n, features) or (n, channels, height, width), any integers or floats, of any byte order.
        names: of the two in messages.

    Returns:
        Both as float32 tensors of their own.

    Raises:
        SpecError: a value is not finite, or too far from the training set's for float32.
    """
    scale = _Scale.of(train, test, names)
    mean_c, deviation_c = scale.moments(train)
    results = []
    for name, array in zip(names, (train, test), strict=True):
        result = np.empty(array.shape, np.float32)
        with np.errstate(over="ignore", divide="ignore"):
            for block, offset_ncp in scale.blocks(array):
                result[block] = ((offset_ncp - mean_c) / deviation_c).reshape(result[block].shape)
        _check_finite(name, result, "lies too far from the training samples for float32",
                      "remove such samples, or take the logarithm of that feature")
        results.append(torch.from_numpy(result))
    return results[0], results[1]


def as_float32(train: np.ndarray, test: np.ndarray, names: tuple[str, str] = ("x_train", "x_test")
               ) -> tuple[Tensor, Tensor]:
    """The same values in float32, where it can tell them apart.

    Args, returns: as `standardise`.

    Raises:
        SpecError: a value is not finite in float32, or the rounding is more than a thousandth of what its feature
            or channel spans.
    """
    for name, array in zip(names, (train, test), strict=True):
        _check_finite(name, array, "is not finite", "remove or replace such values")
    lows, highs = zip(*(_extremes(array) for array in (train, test) if len(array)), strict=True)
    low_c, high_c = np.minimum.reduce(lows), np.maximum.reduce(highs)
    results = []
    for name, array in zip(names, (train, test), strict=True):
        result = np.empty(array.shape, np.float32)
        for block in _blocks(array):
            with np.errstate(over="ignore", under="ignore"):
                result[block] = array[block]
                if np.can_cast(array.dtype, np.float32):
                    continue
                error_ncp = np.abs(_wide(_ncp(array[block])) - _ncp(result[block]))
            _check_rounding(name, error_ncp.max((0, 2), initial=0), _wide(low_c), _wide(high_c))
        results.append(torch.from_numpy(result))
    return results[0], results[1]


def rounds(values: np.ndarray) -> bool:
    """Tell if float32 rounds values of one quantity by more than a thousandth of what they span."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        wide = _wide(values)
        error = np.abs(wide - values.astype(np.float32)).max(initial=0)
        return not error <= _EXACT * (wide.max() - wide.min()) and wide.max() > wide.min()


@dataclass(frozen=True)
class _Scale:
    """Offsets from each feature's least value, in units of a power of two: exact, and neither large nor small.

    Attributes:
        low_c: (c,) the least value, in the type of the arrays.
        first_c, second_c: (c,) exponents by which the values and then their offsets are made at most 1.
        constant_c: (c,) features with one value over the training set.
    """

    low_c: np.ndarray
    first_c: np.ndarray
    second_c: np.ndarray
    constant_c: np.ndarray

    @classmethod
    def of(cls, train: np.ndarray, test: np.ndarray, names: tuple[str, str]) -> _Scale:
        for name, array in zip(names, (train, test), strict=True):
            _check_finite(name, array, "is not finite", "remove or replace such values")
        low_c, high_c = _extremes(train)
        first_c = np.zeros(len(low_c), np.int64)
        if _is_wide_float(train) or _is_wide_float(test):
            first_c = np.frexp(np.maximum(np.abs(_wide(low_c)), np.abs(_wide(high_c))))[1]
        start = cls(low_c, first_c, np.zeros_like(first_c), low_c == high_c)
        second_c = np.frexp(start.offsets(high_c[None, :, None])[0, :, 0])[1]
        return cls(low_c, first_c, second_c, low_c == high_c)

    def offsets(self, values_ncp: np.ndarray) -> np.ndarray:
        """(n, c, p) float64, the distance from the least value."""
        low_c = self.low_c[:, None]
        if values_ncp.dtype.kind in "iu" and low_c.dtype.kind in "iu":
            offset_ncp = _integer_offsets(values_ncp, low_c)
        else:
            offset_ncp = _shifted(_wide(values_ncp), -self.first_c) - _shifted(_wide(low_c), -self.first_c)
        return _shifted(offset_ncp, -self.second_c)

    def blocks(self, array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        for block in _blocks(array):
            yield block, self.offsets(_ncp(array[block]))

    def moments(self, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of the offsets, (c, 1). Both ends of the range occur: squares cancel nothing."""
        count, total_c, squares_c = 0, 0.0, 0.0
        for _, offset_ncp in self.blocks(array):
            count += offset_ncp.shape[0] * offset_ncp.shape[2]
            total_c = total_c + offset_ncp.sum((0, 2))
            squares_c = squares_c + np.square(offset_ncp).sum((0, 2))
        mean_c = total_c / count
        deviation_c = np.sqrt(np.maximum(squares_c / count - np.square(mean_c), 0))
        with np.errstate(over="ignore", under="ignore"):
            one_c = np.ldexp(np.ones(len(mean_c)), -(self.first_c + self.second_c))
        deviation_c = np.where(self.constant_c, one_c, deviation_c)
        return np.where(self.constant_c, 0, mean_c)[:, None], deviation_c[:, None]


def _integer_offsets(values_ncp: np.ndarray, low_c: np.ndarray) -> np.ndarray:
    """Distances of integers, exact up to 2^53 even where the integers are larger."""
    if values_ncp.dtype.itemsize < 8 and low_c.dtype.itemsize < 8:
        return values_ncp.astype(np.float64) - low_c
    # Modulo 2^64 the difference of two integers has the right bits, whatever their types and signs.
    words, low = values_ncp.astype(np.uint64), low_c.astype(np.uint64)
    above = np.greater_equal(values_ncp, low_c)
    return np.where(above, (words - low).astype(np.float64), -(low - words).astype(np.float64))


def _shifted(values: np.ndarray, exponents_c: np.ndarray) -> np.ndarray:
    """Values (..., c, p) times 2^exponents."""
    return np.ldexp(values, exponents_c[:, None]) if exponents_c.any() else values


def _is_wide_float(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and array.dtype.itemsize > 4


def _wide(array: np.ndarray) -> np.ndarray:
    """In float64, or the array's own type where it is wider."""
    return array.astype(np.promote_types(array.dtype.newbyteorder("="), np.float64))


def _ncp(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(*array.shape[:2], -1)


def _blocks(array: np.ndarray) -> Iterator[slice]:
    size = max(1, _BLOCK // max(1, array[:1].size))
    return (slice(start, start + size) for start in range(0, len(array), size))


def _extremes(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value of each feature, (c,), in the array's own type."""
    axes = (0, *range(2, array.ndim))
    return array.min(axes), array.max(axes)


def _check_finite(name: str, array: np.ndarray, what: str, remedy: str) -> None:
    if array.dtype.kind != "f":
        return
    bad = np.zeros(len(array), bool)
    for block in _blocks(array):
        bad[block] = ~np.isfinite(array[block]).all(tuple(range(1, array.ndim)))
    if bad.any():
        sample = int(np.flatnonzero(bad)[0])
        first = np.argwhere(~np.isfinite(array[sample]))[0].tolist()
        raise SpecError(f"dataset: {name} {what}: {int(bad.sum())} of {len(array)} samples, the first is sample "
                        f"{sample} at {first} ({array[(sample, *first)]})", remedy)


def _check_rounding(name: str, error_c: np.ndarray, low_c: np.ndarray, high_c: np.ndarray) -> None:
    with np.errstate(over="ignore"):
        wrong = (high_c > low_c) & ~(error_c <= _EXACT * (high_c - low_c)) | ~np.isfinite(error_c)
    if wrong.any():
        feature = int(np.flatnonzero(wrong)[0])
        raise SpecError(f"dataset: float32 cannot tell the values of feature {feature} of {name} apart: they span "
                        f"{low_c[feature]:.17g} to {high_c[feature]:.17g}",
                        "write standardise: true, or subtract an offset and scale them yourself")
