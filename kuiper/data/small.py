"""Two real datasets that ship inside scikit-learn: nothing to download, seconds to train on."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kuiper import random
from kuiper.data.dataset import Dataset, as_names
from kuiper.errors import SpecError


def iris(seed: int, test_samples: int = 30) -> Dataset:
    """Fisher's iris: 150 flowers, 4 features, 3 classes; each feature standardised over the training set.

    The split is 120/30 and drawn by seed. The elastic-gossip thesis (arXiv 1812.02407) has
    100/25/25; there is no validation set here, so its 25 samples are trained and tested on
    instead of being dropped.

    Args:
        seed: of the job.
        test_samples: how many of the 150 are tested on.

    Raises:
        SpecError: no sample is left to train or to test on.
    """
    table = _table("iris.csv", skip=1)
    x, y = table[:, :-1], table[:, -1].long()
    train, test = _split(seed, "iris", len(x), test_samples)
    deviation = x[train].std(0, correction=min(1, len(train) - 1))  # may be zero over few samples
    x = (x - x[train].mean(0)) / torch.where(deviation > 0, deviation, 1.0)
    return _dataset(x, y, train, test, classes=3)


def digits(seed: int, test_samples: int = 297, augment: Sequence[str] = ()) -> Dataset:
    """Handwritten digits from UCI: 1,797 grey images of 8 x 8 pixels, 10 classes, (N, 1, 8, 8).

    Pixels are standardised by the mean and deviation of the training set. The split, 1500/297
    by default, is drawn by seed.

    Args:
        seed: of the job.
        test_samples: how many of the 1,797 are tested on.
        augment: augmentations of each training batch; a flip turns a digit into something else.

    Raises:
        SpecError: no sample is left to train or to test on; an unknown augmentation.
    """
    table = _table("digits.csv.gz")
    x, y = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].long()
    train, test = _split(seed, "digits", len(x), test_samples)
    x = (x - x[train].mean()) / x[train].std()
    return _dataset(x, y, train, test, classes=10, augment=as_names(augment))


def _table(name: str, skip: int = 0) -> Tensor:
    """A table inside scikit-learn, float64, the label last; read without importing it (1 s a process)."""
    [package] = importlib.util.find_spec("sklearn").submodule_search_locations
    path = Path(package) / "datasets" / "data" / name
    return torch.from_numpy(np.loadtxt(path, delimiter=",", skiprows=skip))


def _split(seed: int, name: str, size: int, test_samples: int) -> tuple[Tensor, Tensor]:
    if not 1 <= test_samples < size:
        raise SpecError(
            f"dataset.test_samples: {test_samples} of {name}'s {size} samples",
            f"choose 1 to {size - 1}, so that both sets have a sample",
        )
    order = torch.from_numpy(random.permutation(seed, f"split {name}", 0, 0, size))
    return order[test_samples:], order[:test_samples]


def _dataset(
    x: Tensor, y: Tensor, train: Tensor, test: Tensor, classes: int, augment: tuple[str, ...] = ()
) -> Dataset:
    x = x.float()
    return Dataset(x[train], y[train], x[test], y[test], classes, augment)
