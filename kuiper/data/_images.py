"""From encoded images to bytes of pixels, and from those to normalised tensors.

Letters: n images, h height, w width, c channels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kuiper.errors import SpecError

_CHUNK = 256  # images a thread decodes at a time
_DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # as Pillow reports it


def decode(sources: Sequence[Path | bytes], size: int) -> np.ndarray:
    """Decode images in parallel threads (Pillow releases the interpreter's lock while it decodes).

    An image of another size is cropped to its central square, then resized.

    Args:
        sources: files, or their contents, in any format that Pillow reads.
        size: pixels of a side.

    Returns:
        uint8 (n, size, size, 3), red, green and blue.

    Raises:
        SpecError: an image cannot be decoded.
    """
    pixels_nhwc = np.empty((len(sources), size, size, 3), np.uint8)

    def work(start: int) -> None:
        for index, source in enumerate(sources[start : start + _CHUNK], start):
            try:
                with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as opened:
                    image = opened.convert("RGB")
                    if image.size != (size, size):
                        image = ImageOps.fit(image, (size, size))
            except _DAMAGED as error:
                name = source if isinstance(source, Path) else f"number {index}"
                raise SpecError(f"image {name} cannot be decoded: {error}", "replace it") from error
            pixels_nhwc[index] = image

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(work, range(0, len(sources), _CHUNK)):
            pass  # an error in a thread is raised here
    return pixels_nhwc


def normalised(pixels_nhwc: np.ndarray, mean_c: Sequence[float], deviation_c: Sequence[float]) -> Tensor:
    """float32 (n, c, h, w): pixels over 255, less the mean, over the deviation of each channel."""
    pixels_nchw = torch.from_numpy(pixels_nhwc).permute(0, 3, 1, 2)
    x = pixels_nchw.to(torch.float32, memory_format=torch.contiguous_format)
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (mean_c, deviation_c))
    return x.mul_(1 / (255 * deviation)).sub_(mean / deviation)


def standardise(train_x: Tensor, test_x: Tensor) -> None:
    """Give each feature (of tables) or channel (of images) mean 0 and deviation 1 over the training set.

    In place; float32 (n, features) or (n, c, h, w). What is constant there is only centred.
    """
    axes = (0, *range(2, train_x.ndim))
    variance, mean = torch.var_mean(train_x, axes, correction=0, keepdim=True)
    deviation = torch.where(variance > 0, variance.sqrt(), 1.0)
    for x in (train_x, test_x):
        x.sub_(mean).div_(deviation)
