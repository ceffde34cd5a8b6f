"""The elastic-gossip thesis' network for MNIST."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from kuiper.errors import SpecError


def thesis_mnist(
    shape: tuple[int, ...],
    classes: int,
    hidden: Sequence[int] = (1024, 1024, 1024),
    input_dropout: float = 0.2,
    dropout: float = 0.5,
) -> nn.Module:
    """784-1024-1024-1024-10 with ReLU and dropout: 2,913,290 parameters on MNIST (arXiv 1812.02407).

    Weights are drawn as He et al. (2015) do, normal with variance 2 / fan-in, biases zero. The thesis'
    network for iris, 4-10-3, is `mlp` with hidden: [10].

    Args:
        shape: of one sample, any.
        classes: logits per sample.
        hidden: widths of the hidden layers.
        input_dropout: probability, in [0, 1), of dropping an input.
        dropout: of dropping an activation of a hidden layer.

    Raises:
        SpecError: a width below 1 or a dropout out of range.
    """
    if isinstance(hidden, (int, str)) or any(width < 1 for width in hidden):
        raise SpecError(f"model.hidden: {hidden!r} is not a list of widths of at least 1", "write [1024]")
    for key, value in (("input_dropout", input_dropout), ("dropout", dropout)):
        if not 0 <= value < 1:
            raise SpecError(f"model.{key}: {value} is not in [0, 1)", "choose 0 for none")
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten(), nn.Dropout(input_dropout)]
    for inputs, outputs in pairwise(widths):
        layers += [_he(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, _he(widths[-1], classes))


def _he(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer
