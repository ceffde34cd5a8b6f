"""Live augmentation: tensor operations over whole batches, with one draw per sample.

Draws are a function of (seed, augmentation, node, step, sample): the same batch asked for twice is
augmented equally, wherever its node is placed, and adding one augmentation leaves the draws of
another unchanged.

Letters: k nodes of a block, b samples, c channels, h height, w width, u draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor

from kuiper import random
from kuiper.errors import SpecError


def random_crop(images_bchw: Tensor, uniforms_b2: Tensor, padding: int | None = None) -> Tensor:
    """Shift every image by up to `padding` pixels along each axis, which crops what leaves the frame.

    What enters is the nearest edge pixel. torchvision's RandomCrop pads with black before the
    normalisation; after it black has no common value, and zero would be the mean grey.

    Args:
        images_bchw: the batch.
        uniforms_b2: in [0, 1), the vertical and the horizontal draw of each image.
        padding: pixels; None takes an eighth of the height, the customary 4 at 32 x 32.
    """
    count, channels, height, width = images_bchw.shape
    padding = max(1, height // 8) if padding is None else padding
    shift_b2 = (uniforms_b2 * (2 * padding + 1)).floor().long() - padding
    device = images_bchw.device
    rows_bh = (torch.arange(height, device=device) + shift_b2[:, :1]).clamp(0, height - 1)
    columns_bw = (torch.arange(width, device=device) + shift_b2[:, 1:]).clamp(0, width - 1)
    return images_bchw[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        rows_bh[:, None, :, None],
        columns_bw[:, None, None, :],
    ]


def random_flip(images_bchw: Tensor, uniforms_b1: Tensor) -> Tensor:
    """Mirror an image left to right where its draw in [0, 1) is below one half."""
    return torch.where(uniforms_b1[:, :, None, None] < 0.5, images_bchw.flip(-1), images_bchw)


# name -> (function of a batch and its draws, draws per image)
AUGMENTATIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "random_crop": (random_crop, 2),
    "random_flip": (random_flip, 1),
}


def augment(
    images_bchw: Tensor, names: Sequence[str], seed: int, node: int | np.ndarray, step: int
) -> Tensor:
    """Apply the named augmentations, in order, to a node's batch or to the batches of a block.

    Args:
        images_bchw: (b, c, h, w) of one node, or (k, b, c, h, w) of k nodes.
        names: keys of `AUGMENTATIONS`; the images are returned as they are where there are none.
        seed: of the job.
        node: the node's id, or the k ids; a node draws the same alone and in a block.
        step: of the batch: asked again for the same step, the same comes back.

    Returns:
        a tensor like `images_bchw`, which is left unchanged.
    """
    nodes_k = np.atleast_1d(node)
    samples_b = np.arange(images_bchw.shape[-4])
    flat = images_bchw.flatten(0, -4)
    for name in names:
        function, draws = AUGMENTATIONS[name]
        uniforms_kbu = random.uniforms(
            seed, f"augment {name}", nodes_k[:, None, None], step, samples_b[:, None], np.arange(draws)
        )
        flat = function(flat, torch.from_numpy(uniforms_kbu.reshape(-1, draws)).to(flat.device))
    return flat.reshape(images_bchw.shape)


def check_names(names: Sequence[str], shape: tuple[int, ...]) -> None:
    """Refuse unknown augmentations, and any augmentation of samples that are not images.

    Raises:
        SpecError: which name, and what could stand instead.
    """
    for name in names:
        if name not in AUGMENTATIONS:
            near = get_close_matches(str(name), AUGMENTATIONS, n=1, cutoff=0.5)
            raise SpecError(
                f"dataset.augment: {name!r} is not an augmentation",
                f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(AUGMENTATIONS)}",
            )
    if names and len(shape) != 3:
        raise SpecError(
            f"dataset.augment: {list(names)} needs images, the samples have shape {shape}",
            "leave augment empty for tables",
        )
