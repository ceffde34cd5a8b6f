"""MNIST through torchvision, as two tensors: no loader, no transform per sample."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kuiper.data.dataset import Dataset, as_names
from kuiper.errors import SpecError
from kuiper.models._torchvision import import_torchvision

MEAN, DEVIATION = 0.1307, 0.3081
DEFAULT_ROOT = "~/.cache/kuiper/data"


def mnist(seed: int, root: str | None = None, download: bool = False, augment: Sequence[str] = ()) -> Dataset:
    """Handwritten digits: 60,000 + 10,000 grey images of 28 x 28 pixels, (N, 1, 28, 28), 10 classes.

    Pixels in [0, 1] less .1307, over .3081: the mean and deviation of the training set.

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
    names = as_names(augment)
    folder = _folder(root)
    if not _complete(folder):
        if not download:
            raise SpecError(
                f"dataset.root: MNIST is not in {folder} (looked for MNIST/raw/train-images-idx3-ubyte "
                "and its three companions)",
                "point dataset.root (or the environment variable KUIPER_DATA) at the folder that holds "
                "MNIST/raw, or set dataset.download=true to fetch 10 MB into it once",
            )
        _download(folder)
    return Dataset(*_read(folder, train=True), *_read(folder, train=False), classes=10, augment=names)


def _folder(root: str | None) -> Path:
    # An empty variable means unset, as it does for every XDG folder.
    chosen = root if root is not None else os.environ.get("KUIPER_DATA") or DEFAULT_ROOT
    folder = Path(chosen).expanduser()
    if not folder.is_absolute():
        raise SpecError(
            f"dataset.root: {chosen!r} is relative, and processes run in folders of their own",
            f"write it in full: {folder.absolute()}",
        )
    return folder


def _complete(folder: Path) -> bool:
    stems = (f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
    raw = folder / "MNIST" / "raw"
    return all((raw / stem).is_file() or (raw / f"{stem}.gz").is_file() for stem in stems)


def _download(folder: Path) -> None:
    """Fetch beside the goal, then rename: processes that start together never read half a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mnist-", dir=folder) as partial:
            import_torchvision().datasets.MNIST(partial, train=True, download=True)
            (folder / "MNIST").mkdir(exist_ok=True)
            try:
                os.rename(Path(partial) / "MNIST" / "raw", folder / "MNIST" / "raw")
            except OSError:
                if not _complete(folder):  # otherwise another process was first
                    raise
    except (OSError, RuntimeError) as error:
        raise SpecError(
            f"dataset.download: MNIST could not be fetched into {folder}: {error}",
            "check the network and the permissions of that folder, or copy MNIST/raw there by hand",
        ) from error


def _read(folder: Path, train: bool) -> tuple[Tensor, Tensor]:
    try:
        source = import_torchvision().datasets.MNIST(folder, train=train)
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise SpecError(
            f"dataset.root: the MNIST files in {folder} cannot be read: {error}",
            "remove that MNIST folder and fetch it again with dataset.download=true",
        ) from error
    # In place after one conversion: arithmetic that mixes uint8 with float is six times slower.
    x = source.data.unsqueeze(1).float().mul_(1 / (255 * DEVIATION)).sub_(MEAN / DEVIATION)
    return x, source.targets.to(torch.int64)
