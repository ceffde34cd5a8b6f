"""Garfield's small convolutional network."""

from __future__ import annotations

from torch import nn

from kuiper.errors import SpecError
from kuiper.models._shapes import batch_norm, image_shape


def convnet(shape: tuple[int, ...], classes: int, dropout: float = 0.5, norm: str = "none") -> nn.Module:
    """Two 5 x 5 convolutions of 10 and 20 channels, then 50 units: 21,840 parameters on MNIST.

    The network of Garfield's MNIST experiments (Guerraoui et al., DSN 2021), itself PyTorch's early
    MNIST example; ours ends in logits, theirs in log-probabilities.

    Args:
        shape: of one sample, (channels, height, width), at least 16 x 16.
        classes: logits per sample.
        dropout: probability, in [0, 1), for channels after the second convolution and for the 50 units.
        norm: batch for BatchNorm after each convolution, 60 parameters more; none as published.

    Raises:
        SpecError: samples that are not images or too small, a dropout out of range, an unknown norm.
    """
    channels, height, width = image_shape("convnet", shape, smallest=16)
    if not 0 <= dropout < 1:
        raise SpecError(f"model.dropout: {dropout} is not in [0, 1)", "choose 0 for none")
    height, width = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 10, 5), *batch_norm(norm, nn.BatchNorm2d, 10), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(10, 20, 5), *batch_norm(norm, nn.BatchNorm2d, 20), nn.Dropout2d(dropout), nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(), nn.Linear(20 * height * width, 50), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(50, classes),
    )  # fmt: skip
