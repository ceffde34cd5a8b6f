"""What every dataset function returns: sets of samples in memory, checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kuiper.data.augment import check_names
from kuiper.errors import SpecError


@dataclass(frozen=True)
class Dataset:
    """A classification dataset, normalised and ready to be indexed.

    Attributes:
        train_x: float32 (N, features) for tables or (N, channels, height, width) for images.
        train_y: int64 (N,), in [0, classes).
        test_x: float32 (M, ...), samples of the same shape.
        test_y: int64 (M,).
        classes: how many there are, at least 2.
        augment: augmentations of each training batch, in order (`kuiper.data.augment`).
        validation_x, validation_y: as the test set; None where nothing is held out (`kuiper.data.hold_out`).

    Raises:
        SpecError: a tensor has the wrong dtype, shape or length, holds a value that is not finite or
            a label out of range, or `augment` does not fit.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int
    augment: tuple[str, ...] = ()
    validation_x: Tensor | None = None
    validation_y: Tensor | None = None

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise SpecError(f"dataset: classes is {self.classes}, at least 2 are needed")
        _check_set("train", self.train_x, self.train_y, self.classes)
        _check_set("test", self.test_x, self.test_y, self.classes)
        if self.train_x.shape[1:] != self.test_x.shape[1:]:
            raise SpecError(
                f"dataset: training samples have shape {tuple(self.train_x.shape[1:])}, "
                f"test samples {tuple(self.test_x.shape[1:])}",
                "prepare both sets in the same way",
            )
        check_names(self.augment, self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (features,) or (channels, height, width)."""
        return tuple(self.train_x.shape[1:])

    def to(self, device: torch.device | str) -> Dataset:
        """The same samples on another device; samples already there are not copied."""
        sets = {one.name: getattr(self, one.name) for one in fields(self) if one.name.endswith(("_x", "_y"))}
        return replace(self, **{name: each.to(device) for name, each in sets.items() if each is not None})


def as_names(augment: Sequence[str]) -> tuple[str, ...]:
    """The `augment` parameter of a dataset as a tuple; a lone string is an error, not its letters.

    Raises:
        SpecError: `augment` is not a list.
    """
    if isinstance(augment, str):
        raise SpecError(f"dataset.augment: {augment!r} is not a list", f"write [{augment}]")
    return tuple(augment)


def _check_set(name: str, x: Tensor, y: Tensor, classes: int) -> None:
    if x.dtype != torch.float32 or x.ndim not in (2, 4):
        raise SpecError(
            f"dataset: {name}_x is {x.dtype} of shape {tuple(x.shape)}",
            "make it float32, (N, features) for tables or (N, channels, height, width) for images",
        )
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise SpecError(
            f"dataset: {name}_y is {y.dtype} of shape {tuple(y.shape)} beside {len(x)} samples",
            "make it int64, one label per sample",
        )
    if len(x) == 0:
        raise SpecError(f"dataset: the {name} set is empty", "give it at least one sample")
    if not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise SpecError(
            f"dataset: labels of {name}_y span [{int(y.min())}, {int(y.max())}], classes is {classes}",
            "number the classes from 0 to classes - 1",
        )
    # One pass without a mask of the set's size: a NaN or an infinity survives any sum, and no float64 sum overflows.
    if not x.sum(dtype=torch.float64).isfinite():
        raise SpecError(f"dataset: {name}_x has values that are not finite", "clean the data first")
