"""From encoded images to pixels, and from bytes of pixels to normalised tensors.

Letters: n images, h height, w width, c channels.
"""

from __future__ import annotations

import io
import logging
import struct
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kuiper.data._scale import rounds
from kuiper.errors import SpecError

log = logging.getLogger(__name__)

_CHUNK = 256  # images a thread decodes at a time
_DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # as Pillow reports it
_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_GROUND = (128, 128, 128, 255)  # behind what is transparent: black and white both show on it
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_DEEP_COLOUR = "have more than 8 bits a colour channel, of which 8 are read"
_PAGES = "have several pages, of which the first is read"


def decode(sources: Sequence[Path | bytes], size: int) -> np.ndarray:
    """Decode images in parallel threads (Pillow releases the interpreter's lock while it decodes).

    An image is turned as its EXIF says, laid on mid-grey where it is transparent, cropped to its central square
    and resized. Grey images of 16 or 32 bits keep their levels.

    Args:
        sources: files, or their contents, in any format that Pillow reads.
        size: pixels of a side.

    Returns:
        (n, size, size, 3), red, green and blue. uint8, or, where an image has more bits, float32: those of 8 and 16
        bits up to 255, those of 32 bits in their own unit.

    Raises:
        SpecError: an image cannot be decoded, has values that float32 cannot tell apart, or has 32 bits among others
            that have not.
    """
    pixels_nhwc = np.empty((len(sources), size, size, 3), np.uint8)
    deep: dict[int, np.ndarray] = {}
    units: dict[str, object] = {}  # of values, with an image that has it
    notes: list[str] = []

    def work(start: int) -> None:
        for index, source in enumerate(sources[start : start + _CHUNK], start):
            name = source if isinstance(source, Path) else f"number {index}"
            try:
                with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
                    notes.extend(_left_out(image))
                    image.load()
                    if image.mode[0] in "IF" or _is_signed(image):
                        deep[index], unit = _grey(image, size)
                    else:
                        pixels_nhwc[index], unit = _turned(_colour(image), image, size), "white"
            except _DAMAGED as error:
                raise SpecError(f"image {name} cannot be decoded: {error}", "replace it") from error
            units.setdefault(unit, name)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(work, range(0, len(sources), _CHUNK)):
            pass  # an error in a thread is raised here
    for note, count in Counter(notes).items():
        log.warning("%d of %d images %s", count, len(sources), note)
    if len(units) > 1:
        (one, its), (other, others) = sorted(units.items())[:2]
        raise SpecError(f"image {its} has {one} values, and image {others} {other} values: they have no common white",
                        "save all images in one format of 8 or 16 bits")
    if deep:
        pixels_nhwc = pixels_nhwc.astype(np.float32)
        for index, grey_hw in deep.items():
            pixels_nhwc[index] = grey_hw[..., None]
    return pixels_nhwc


def normalised(pixels_nhwc: np.ndarray, mean_c: Sequence[float], deviation_c: Sequence[float]) -> Tensor:
    """float32 (n, c, h, w): pixels over 255, less the mean, over the deviation of each channel."""
    pixels_nchw = torch.from_numpy(pixels_nhwc).permute(0, 3, 1, 2)
    x = pixels_nchw.to(torch.float32, memory_format=torch.contiguous_format)
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (mean_c, deviation_c))
    return x.mul_(1 / (255 * deviation)).sub_(mean / deviation)


def _colour(image: Image.Image) -> Image.Image:
    """An image of up to 8 bits a channel, in red, green and blue."""
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _GROUND), image)
    return image.convert("RGB")


def _grey(image: Image.Image, size: int) -> tuple[np.ndarray, str]:
    """float32 (size, size) of an image with one channel of 16 or 32 bits, and its unit: white, or its type."""
    values = np.asarray(image)
    if _sample_format(image) == 1 and values.dtype.itemsize == 4:
        values = values.view(np.uint32)  # Pillow has no unsigned type of 32 bits, and reads them as negative
    elif _is_signed(image) and values.dtype.itemsize == 1:
        values = values.view(np.int8)
    white = 65535.0 if image.mode.startswith("I;16") or image.format in ("PNG", "PPM") else None
    if "transparency" in image.info:
        values = np.where(values == image.info["transparency"], 0x8080, values)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    if rounds(values):
        raise ValueError(f"its values span {values.min():g} to {values.max():g}, which float32 cannot tell apart")
    grey = np.asarray(_turned(Image.fromarray(values.astype(np.float32)), image, size))
    return (grey / np.float32(257), "white") if white else (grey, str(values.dtype.newbyteorder("=")))


def _turned(pixels: Image.Image, image: Image.Image, size: int) -> Image.Image:
    """Pixels as the image's EXIF says they are held, in a square of `size`."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except (*_DAMAGED, LookupError, TypeError, struct.error):
        turn = None  # viewers pass over an EXIF part that is broken, too
    if turn is not None:
        pixels = pixels.transpose(turn)
    return pixels if pixels.size == (size, size) else ImageOps.fit(pixels, (size, size))


def _left_out(image: Image.Image) -> list[str]:
    """Name the parts of an image, not yet loaded, that Pillow leaves out."""
    notes = []
    arguments = image.tile[0][3] if image.tile else ()
    arguments = (arguments,) if isinstance(arguments, str) else tuple(arguments or ())
    deep = any(";16" in each if isinstance(each, str) else image.format == "PPM" and each > 255
               for each in arguments if isinstance(each, str | int))  # fmt: skip
    if deep and image.mode[0] not in "IF":
        notes.append(_DEEP_COLOUR)
    if getattr(image, "is_animated", False) and image.format != "MPO":  # a photograph, and previews of it
        notes.append(_PAGES)
    return notes


def _sample_format(image: Image.Image) -> int | None:
    """TIFF's: 1 for unsigned integers, 2 for signed ones, 3 for floats; None for other formats."""
    return getattr(image, "tag_v2", {}).get(339, (1,))[0] if image.format == "TIFF" else None


def _is_signed(image: Image.Image) -> bool:
    return _sample_format(image) == 2
