"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) through torchvision, as two tensors."""

from __future__ import annotations

import logging
import time
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kuiper.data._files import fetch
from kuiper.data._images import decode, normalised
from kuiper.data.dataset import Dataset, as_names
from kuiper.errors import SpecError
from kuiper.models._torchvision import import_torchvision
from kuiper.places import data_folder

log = logging.getLogger(__name__)

_JPEG = Path("CIFAR10") / "cifar10_jpeg.npz"
# Mean and deviation of each channel over the training set, pixels in [0, 1].
_CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_CIFAR100 = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)


def cifar10(
    seed: int, root: str | None = None, download: bool = False, augment: Sequence[str] = ()
) -> Dataset:
    """50,000 + 10,000 colour photographs of 32 x 32 pixels, (N, 3, 32, 32), 10 classes.

    Each channel is standardised by its mean and deviation over the training set. 740 MB, while
    loading 920.

    Where the published files are not there and `CIFAR10/cifar10_jpeg.npz` is, that re-encoding is
    read (and the log says so): arrays {train,test}_jpeg, the bytes of all images one after the
    other, {train,test}_offset (n + 1) and {train,test}_label. Decoding takes 7 s of processor time,
    shared by all cores.

    Args:
        seed: unused; the split is the published one.
        root: the folder that holds `cifar-10-batches-py`; null takes $KUIPER_DATA, and without it
            `~/.cache/kuiper/data`. Absolute or from `~`: processes run in folders of their own.
        download: fetch the published files into `root` when they are not there.
        augment: augmentations of each training batch.

    Raises:
        SpecError: the files are not there, cannot be fetched, cannot be read or are not the published
            ones; `root` is relative; an unknown augmentation.
    """
    names, folder = as_names(augment), data_folder(root)
    source = import_torchvision().datasets.CIFAR10
    if not download and not _complete(folder, source) and (folder / _JPEG).is_file():
        sets = _read_jpeg(folder / _JPEG)
    else:
        sets = _load(source, folder, download, _CIFAR10)
    return Dataset(*sets, classes=10, augment=names)


def cifar100(
    seed: int, root: str | None = None, download: bool = False, augment: Sequence[str] = ()
) -> Dataset:
    """As CIFAR-10, with 100 classes of 500 + 100 images each (the fine labels).

    Args:
        seed: unused; the split is the published one.
        root: the folder that holds `cifar-100-python`; null as for `cifar10`.
        download: fetch the files into `root` when they are not there.
        augment: augmentations of each training batch.

    Raises:
        SpecError: as for `cifar10`.
    """
    names = as_names(augment)
    sets = _load(import_torchvision().datasets.CIFAR100, data_folder(root), download, _CIFAR100)
    return Dataset(*sets, classes=100, augment=names)


def _load(
    source: Any, folder: Path, download: bool, scale: tuple[Sequence[float], Sequence[float]]
) -> list[Tensor]:
    """Training images and labels, test images and labels, of torchvision's class `source`."""
    if not _complete(folder, source):
        if not download:
            also = f" or {_JPEG}" if source.base_folder == "cifar-10-batches-py" else ""
            raise SpecError(
                f"dataset.root: {source.__name__} is not in {folder} (looked for {source.base_folder}{also})",
                "point dataset.root (or the environment variable KUIPER_DATA) at the folder that holds "
                f"{source.base_folder}, or set dataset.download=true to fetch 170 MB into it once",
            )
        fetch(folder, source.base_folder, lambda: _complete(folder, source),
              lambda into: source(into, download=True))  # fmt: skip
    sets = []
    for train in (True, False):
        try:
            # torchvision unpickles these files only after it has compared them with the published checksums.
            read = source(folder, train=train)
        except (OSError, RuntimeError) as error:
            raise SpecError(
                f"dataset.root: {folder / source.base_folder} cannot be read: {error}",
                "remove that folder and fetch it again with dataset.download=true",
            ) from error
        sets += [normalised(read.data, *scale), torch.tensor(read.targets)]
    return sets


def _complete(folder: Path, source: Any) -> bool:
    files = [name for name, _ in source.train_list + source.test_list] + [source.meta["filename"]]
    return all((folder / source.base_folder / name).is_file() for name in files)


def _read_jpeg(path: Path) -> list[Tensor]:
    began, sets = time.monotonic(), []
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for part in ("train", "test"):
                joined, offsets, labels = (arrays[f"{part}_{kind}"] for kind in ("jpeg", "offset", "label"))
                encoded = [joined[start:end].tobytes() for start, end in pairwise(offsets)]
                sets += [normalised(decode(encoded, 32), *_CIFAR10), torch.from_numpy(labels).long()]
    except SpecError as error:
        message = f"dataset.root: {path} cannot be read: {error.message}"
        raise SpecError(message, "copy the file again") from error
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise SpecError(f"dataset.root: {path} cannot be read: {error}", "copy the file again") from error
    log.warning("read CIFAR-10 from %s, a slightly lossy re-encoding: decoded in %.1f s", path,
                time.monotonic() - began)  # fmt: skip
    return sets
