"""Any of torchvision's image classifiers, by name."""

from __future__ import annotations

from difflib import get_close_matches

import torch
from torch import Tensor, nn

from kuiper.errors import SpecError
from kuiper.models._shapes import image_shape
from kuiper.models._torchvision import import_torchvision

# These two return a tuple while training unless told not to, and warn unless told how to start.
_EXTRA = dict.fromkeys(("googlenet", "inception_v3"), {"aux_logits": False, "init_weights": True})


class GreyToColour(nn.Module):
    """Repeats the one channel of (B, 1, H, W) three times, without a copy."""

    def forward(self, images_bchw: Tensor) -> Tensor:
        return images_bchw.expand(-1, 3, -1, -1)


def torchvision_model(shape: tuple[int, ...], classes: int, name: str = "resnet18") -> nn.Module:
    """The classifier that `torchvision.models.get_model` calls `name`, untrained.

    Images with one channel are repeated over the three that these networks expect. One image
    is tried at once, so that a network made for larger images fails here and not at the first step.

    Args:
        shape: of one sample, (1 or 3, height, width).
        classes: logits per sample.
        name: as in `torchvision.models.list_models(module=torchvision.models)`.

    Raises:
        SpecError: an unknown name (with the nearest known one), samples that are not images of 1 or
            3 channels, or images that the network cannot take.
    """
    models = import_torchvision().models
    known = models.list_models(module=models)
    if name not in known:
        near = get_close_matches(str(name), known, n=1, cutoff=0.5)
        raise SpecError(
            f"model.name: torchvision has no classifier {name!r}",
            f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(known)}",
        )
    channels, height, width = image_shape(name, shape)
    if channels not in (1, 3):
        raise SpecError(
            f"model: {name} needs images of 1 or 3 channels, the samples have {channels}",
            "choose model=mlp, which takes any shape",
        )
    network = models.get_model(name, weights=None, num_classes=classes, **_EXTRA.get(name, {}))
    model = nn.Sequential(GreyToColour(), network) if channels == 1 else network
    _try(model, name, shape)
    return model


def _try(model: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    model.eval()  # no draw is made and no statistic of BatchNorm moves
    try:
        with torch.no_grad():
            model(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError) as error:
        raise SpecError(
            f"model.name: {name} cannot take images of {shape[1]} x {shape[2]} pixels: {error}",
            "choose a network for small images, such as resnet18, or a dataset with larger ones",
        ) from error
    model.train()
