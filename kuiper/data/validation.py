"""A validation set: training samples that no node trains on and that no test score is made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from kuiper.data.dataset import Dataset
from kuiper.data.sampling import stratified_order
from kuiper.errors import SpecError


def hold_out(data: Dataset, fraction: float, seed: int) -> Dataset:
    """The dataset with a part of its training set, drawn by seed, as its validation set.

    Both parts hold the classes in the proportion of the whole. What stays keeps its order.

    Args:
        fraction: of the training set, rounded to whole samples.

    Raises:
        SpecError: that is no sample at all, or leaves none to train on.
    """
    total = len(data.train_y)
    count = round(fraction * total)
    if not 0 < count < total:
        raise SpecError(f"validation: {fraction:g} of {total} training samples is {count}, which empties a set",
                        "write 0 for none, or another fraction")
    order = stratified_order(data.train_y.numpy(), seed, "validation")
    held, stays = (torch.from_numpy(np.sort(part)) for part in (order[:count], order[count:]))
    return replace(data, train_x=data.train_x[stays], train_y=data.train_y[stays],
                   validation_x=data.train_x[held], validation_y=data.train_y[held])
