"""Gaussian blobs: a dataset of any size and difficulty, made from the seed alone."""

from __future__ import annotations

import numpy as np
import torch

from kuiper import random
from kuiper.data.dataset import Dataset
from kuiper.errors import SpecError


def synthetic(
    seed: int,
    samples: int = 2000,
    test_samples: int = 500,
    features: int = 20,
    classes: int = 10,
    noise: float = 1.0,
) -> Dataset:
    """Balanced Gaussian blobs: x = (centre of y + noise * normal) / sqrt(1 + noise^2), unit variance.

    Centres are standard normal, so two of them lie sqrt(2 features) apart on average: linearly
    separable while `noise` is well below sqrt(features / 2), and harder as it grows.

    Args:
        seed: of the job.
        samples: to train on.
        test_samples: to test on, from the same blobs.
        features: per sample.
        classes: at least 2.
        noise: deviation within a blob, in units of the deviation between centres.

    Raises:
        SpecError: a size below 1, fewer than 2 classes, or a negative noise.
    """
    bounds = {"samples": (samples, 1), "test_samples": (test_samples, 1), "features": (features, 1),
              "classes": (classes, 2), "noise": (noise, 0)}  # fmt: skip
    for key, (value, least) in bounds.items():
        if value < least:
            raise SpecError(f"dataset.{key}: {value} is below {least}", f"choose at least {least}")
    rng = random.numpy_generator(seed, "synthetic")
    centres = rng.standard_normal((classes, features))

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = rng.permutation(np.arange(count) % classes)
        x = (centres[y] + noise * rng.standard_normal((count, features))) / np.sqrt(1 + noise**2)
        return torch.from_numpy(x).float(), torch.from_numpy(y).long()

    return Dataset(*draw(samples), *draw(test_samples), classes=classes)
