"""Any images in a folder per class."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import torch

from kuiper.data._images import decode
from kuiper.data._scale import standardise
from kuiper.data.dataset import Dataset, as_names
from kuiper.errors import SpecError
from kuiper.places import in_full

log = logging.getLogger(__name__)

_IMAGES = (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_NO_CLASS = ("__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_LAYOUT = "point dataset.root at a folder with train/<class>/ and test/<class>/, images in each"


def image_folder(seed: int, root: str, size: int = 32, augment: Sequence[str] = ()) -> Dataset:
    """Images `root/train/<class>/*` and `root/test/<class>/*`, (N, 3, size, size).

    Classes are numbered in the order of their folders' names below train; hidden folders, and those that systems
    leave behind, are none. An image is turned as its EXIF says, laid on mid-grey where it is transparent,
    converted to RGB, cropped to its central square and resized; channels are then standardised over the training
    set. Grey images of 16 or 32 bits keep their levels. All are kept in memory: 12 size^2 bytes each, 12 kB at
    32 x 32 and 600 kB at 224 x 224.

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
    train, test = _classes(folder / "train"), _classes(folder / "test")
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise SpecError(
            f"dataset.root: {folder / 'test'} has the class {unknown[0]!r}, which train has not",
            "give both the same class folders",
        )
    number = {name: index for index, name in enumerate(train)}
    paths, labels, counts = [], [], []
    for classes in (train, test):
        for name, images in classes.items():
            paths += images
            labels += [number[name]] * len(images)
        counts.append(len(paths))
    pixels_nchw = decode(paths, size).transpose(0, 3, 1, 2)
    y, first = torch.tensor(labels), counts[0]
    train_x, test_x = standardise(pixels_nchw[:first], pixels_nchw[first:],
                                  (f"image in {folder / 'train'}", f"image in {folder / 'test'}"))
    return Dataset(train_x, y[:first], test_x, y[first:], classes=len(train), augment=names)


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Files of each class, by name of the class, all in the order of their names."""
    try:
        found = {name: _files(folder / name) for name in sorted(filter(_is_class, os.listdir(folder)))
                 if stat.S_ISDIR((folder / name).stat().st_mode)}  # a link to nowhere is an error, no class less
    except OSError as error:
        raise SpecError(f"dataset.root: {folder} cannot be used: {error}", _LAYOUT) from error
    classes, others = {}, []
    for name, files in found.items():
        classes[name] = [path for path in files if path.suffix.lower() in _IMAGES]
        others += [path for path in files if path.suffix.lower() not in _IMAGES]
        if not classes[name]:
            raise SpecError(f"dataset.root: {folder / name} has no image (looked for {' '.join(_IMAGES)})",
                            "put images there, or remove that folder: each one is a class")
    if not classes:
        raise SpecError(f"dataset.root: {folder} cannot be used: it has no folder of a class", _LAYOUT)
    if others:
        log.warning("%s: %d files are no images and are left out, such as %s", folder, len(others), others[0])
    return classes


def _files(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, in one order everywhere; links are followed, each folder once."""
    def refuse(error: OSError) -> None:
        raise error

    found: list[Path] = []
    seen = set()
    for here, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(here)
        folders[:] = [] if real in seen else sorted(filter(_is_class, folders))
        if real not in seen:
            found += [Path(here, name) for name in names if _is_class(name)]
        seen.add(real)
    return sorted(found)


def _is_class(name: str) -> bool:
    return not name.startswith(".") and name not in _NO_CLASS
