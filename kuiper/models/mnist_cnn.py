"""ByzFL's convolutional network for MNIST."""

from __future__ import annotations

from torch import nn

from kuiper.models._shapes import image_shape


def mnist_cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Two 5 x 5 convolutions of 20 and 50 channels, then 500 units: 431,080 parameters on MNIST.

    ByzFL's `cnn_mnist` (Gonzalez et al. 2025); ours ends in logits, theirs in log-probabilities.

    Args:
        shape: of one sample, (channels, height, width), at least 16 x 16.
        classes: logits per sample.

    Raises:
        SpecError: samples that are not images or too small.
    """
    channels, height, width = image_shape("mnist_cnn", shape, smallest=16)
    height, width = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5), nn.MaxPool2d(2), nn.ReLU(),  # the same as ReLU first, on a quarter of the values
        nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(50 * height * width, 500), nn.ReLU(),
        nn.Linear(500, classes),
    )  # fmt: skip
