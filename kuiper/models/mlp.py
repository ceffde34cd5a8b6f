"""Multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from kuiper.errors import SpecError
from kuiper.models._shapes import batch_norm


def mlp(
    shape: tuple[int, ...], classes: int, hidden: Sequence[int] = (200,), dropout: float = 0.0,
    norm: str = "none",
) -> nn.Module:
    """Linear layers with ReLU between them, over the flattened sample.

    Args:
        shape: of one sample, any.
        classes: logits per sample.
        hidden: widths of the hidden layers; none leaves one linear layer.
        dropout: probability, in [0, 1), of dropping an activation of a hidden layer.
        norm: batch for BatchNorm before each ReLU, none for none.

    Raises:
        SpecError: a width below 1, a dropout out of range or an unknown norm.
    """
    if isinstance(hidden, (int, str)) or any(width < 1 for width in hidden):
        raise SpecError(f"model.hidden: {hidden!r} is not a list of widths of at least 1", "write [200, 100]")
    if not 0 <= dropout < 1:
        raise SpecError(f"model.dropout: {dropout} is not in [0, 1)", "choose 0 for none")
    widths = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), *batch_norm(norm, nn.BatchNorm1d, outputs), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))
