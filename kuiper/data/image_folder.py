"""Any images in a folder per class, read through torchvision's ImageFolder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kuiper.data._images import decode, normalised, standardise
from kuiper.data.dataset import Dataset, as_names
from kuiper.errors import SpecError
from kuiper.models._torchvision import import_torchvision
from kuiper.places import in_full


def image_folder(seed: int, root: str, size: int = 32, augment: Sequence[str] = ()) -> Dataset:
    """Images `root/train/<class>/*` and `root/test/<class>/*`, (N, 3, size, size).

    Classes are numbered in the order of their folders' names below train. An image is converted to
    RGB, cropped to its central square and resized; channels are then standardised over the training
    set. All are kept in memory: 12 size^2 bytes each, 12 kB at 32 x 32 and 600 kB at 224 x 224.

    Args:
        seed: unused; the split is that of the folders.
        root: absolute or from `~`: processes run in folders of their own.
        size: pixels of a side.
        augment: augmentations of each training batch.

    Raises:
        SpecError: a folder is not there or has no images, test has a class that train has not, an
            image cannot be decoded; `root` is relative; size is below 1; an unknown augmentation.
    """
    names, folder = as_names(augment), in_full("root", root)
    if size < 1:
        raise SpecError(f"dataset.size: {size} is below 1", "choose at least 1 pixel")
    train, test = _listed(folder / "train"), _listed(folder / "test")
    unknown = sorted(set(test.classes) - set(train.classes))
    if unknown:
        raise SpecError(
            f"dataset.root: {folder / 'test'} has the class {unknown[0]!r}, which train has not",
            "give both the same class folders",
        )
    sets = []
    for source in (train, test):
        pixels_nhwc = decode([Path(path) for path, _ in source.samples], size)
        labels = [train.class_to_idx[source.classes[label]] for label in source.targets]
        sets += [normalised(pixels_nhwc, (0.0,) * 3, (1.0,) * 3), torch.tensor(labels)]
    standardise(sets[0], sets[2])
    return Dataset(*sets, classes=len(train.classes), augment=names)


def _listed(folder: Path) -> Any:
    """torchvision's ImageFolder over `folder`, of which nothing is decoded yet."""
    try:
        return import_torchvision().datasets.ImageFolder(folder)
    except OSError as error:
        raise SpecError(
            f"dataset.root: {folder} cannot be used: {error}",
            "point dataset.root at a folder with train/<class>/ and test/<class>/, images in each",
        ) from error
