"""Noise in the shape of MNIST: all that a benchmark of speed needs of a dataset."""

from __future__ import annotations

import torch

from kuiper.data import Dataset


def random_images(seed: int, samples: int, test_samples: int) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples + test_samples, 1, 28, 28, generator=generator)
    y = torch.randint(10, (samples + test_samples,), generator=generator)
    return Dataset(x[:samples], y[:samples], x[samples:], y[samples:], classes=10)
