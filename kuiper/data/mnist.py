"""MNIST and Fashion-MNIST through torchvision, as two tensors: no loader, no transform per sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kuiper.data._files import fetch
from kuiper.data.dataset import Dataset, as_names
from kuiper.errors import SpecError
from kuiper.models._torchvision import import_torchvision
from kuiper.places import data_folder


def mnist(seed: int, root: str | None = None, download: bool = False, augment: Sequence[str] = ()) -> Dataset:
    """Handwritten digits: 60,000 + 10,000 grey images of 28 x 28 pixels, (N, 1, 28, 28), 10 classes.

    Pixels in [0, 1] less .1307, over .3081: the mean and deviation of the training set. 220 MB.

    Args:
        seed: unused; the split is the published one.
        root: the folder that holds `MNIST/raw`; null takes $KUIPER_DATA, and without it
            `~/.cache/kuiper/data`. Absolute or from `~`: processes run in folders of their own.
        download: fetch the files into `root` when they are not there.
        augment: augmentations of each training batch.

    Raises:
        SpecError: the files are not there, cannot be fetched or cannot be read; `root` is
            relative; an unknown augmentation.
    """
    return _load("MNIST", 10, data_folder(root), download, as_names(augment), 0.1307, 0.3081)


def fashion_mnist(
    seed: int, root: str | None = None, download: bool = False, augment: Sequence[str] = ()
) -> Dataset:
    """Articles of clothing in MNIST's format (Xiao, Rasul & Vollgraf 2017), and harder: (N, 1, 28, 28).

    Pixels in [0, 1] less .2860, over .3530: the mean and deviation of the training set. 220 MB.

    Args:
        seed: unused; the split is the published one.
        root: the folder that holds `FashionMNIST/raw`; null as for `mnist`.
        download: fetch the files into `root` when they are not there.
        augment: augmentations of each training batch.

    Raises:
        SpecError: as for `mnist`.
    """
    return _load("FashionMNIST", 30, data_folder(root), download, as_names(augment), 0.2860, 0.3530)


def _load(
    name: str,
    megabytes: int,
    folder: Path,
    download: bool,
    augment: tuple[str, ...],
    mean: float,
    deviation: float,
) -> Dataset:
    """`name`: torchvision's, of the class and of the folder."""
    if not _complete(folder, name):
        if not download:
            raise SpecError(
                f"dataset.root: {name} is not in {folder} (looked for {name}/raw/train-images-idx3-ubyte "
                "and its three companions)",
                "point dataset.root (or the environment variable KUIPER_DATA) at the folder that holds "
                f"{name}/raw, or set dataset.download=true to fetch {megabytes} MB into it once",
            )
        source = getattr(import_torchvision().datasets, name)
        fetch(folder, f"{name}/raw", lambda: _complete(folder, name),
              lambda into: source(into, download=True))  # fmt: skip
    sets = [part for train in (True, False) for part in _read(folder, name, train, mean, deviation)]
    return Dataset(*sets, classes=10, augment=augment)


def _complete(folder: Path, name: str) -> bool:
    stems = (f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
    raw = folder / name / "raw"
    return all((raw / stem).is_file() or (raw / f"{stem}.gz").is_file() for stem in stems)


def _read(folder: Path, name: str, train: bool, mean: float, deviation: float) -> tuple[Tensor, Tensor]:
    try:
        source = getattr(import_torchvision().datasets, name)(folder, train=train)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise SpecError(
            f"dataset.root: the {name} files in {folder} cannot be read: {error}",
            f"remove that {name} folder and fetch it again with dataset.download=true",
        ) from error
    # In place after one conversion: arithmetic that mixes uint8 with float is six times slower.
    x = source.data.unsqueeze(1).float().mul_(1 / (255 * deviation)).sub_(mean / deviation)
    return x, source.targets.to(torch.int64)
