"""Garfield's small network for CIFAR-10."""

from __future__ import annotations

from torch import nn

from kuiper.models._shapes import image_shape


def cifarnet(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two 5 x 5 convolutions of 6 and 16 channels, then 120 and 84 units: 62,006 parameters on CIFAR-10.

    `Cifarnet` of Garfield's experiments (Guerraoui et al., DSN 2021): LeNet-5 with ReLU and max pooling.

    Args:
        shape: of one sample, (channels, height, width), at least 16 x 16.
        classes: logits per sample.

    Raises:
        SpecError: samples that are not images or too small.
    """
    channels, height, width = image_shape("cifarnet", shape, smallest=16)
    height, width = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 6, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * height * width, 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
    )  # fmt: skip
