"""What networks have in common: what they ask of their samples, and their BatchNorm."""

from __future__ import annotations

from torch import nn

from kuiper.errors import SpecError


def image_shape(model: str, shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """(channels, height, width) of a sample.

    Raises:
        SpecError: the samples are not images, or are smaller than `smallest` pixels a side.
    """
    if len(shape) != 3:
        raise SpecError(
            f"model: {model} needs images (channels, height, width), the samples have shape {tuple(shape)}",
            "choose model=mlp or model=softmax, which take any shape",
        )
    channels, height, width = shape
    if min(height, width) < smallest:
        raise SpecError(
            f"model: {model} needs images of at least {smallest} x {smallest} pixels, got {height} x {width}",
            "choose model=mlp, or a dataset with larger images",
        )
    return channels, height, width


def batch_norm(norm: str, kind: type[nn.Module], features: int) -> list[nn.Module]:
    """What a model's `norm` puts behind a layer of so many features: nothing, or one BatchNorm.

    Raises:
        SpecError: an unknown norm.
    """
    if norm not in ("none", "batch"):
        raise SpecError(f"model.norm: {norm!r} is not known", "choose none or batch")
    return [kind(features)] if norm == "batch" else []
