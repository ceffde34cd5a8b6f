"""No conversion of the user's data loses what tells samples apart: it is kept, or refused with what to do."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from kuiper.data.image_folder import image_folder
from kuiper.data.npz import npz
from kuiper.data.small import iris
from kuiper.errors import SpecError

RNG = np.random.default_rng(1)
A, B = RNG.normal(size=(200, 4)), RNG.normal(size=(50, 4))
WHOLE = [np.rint(1000 * part).astype(np.int64) for part in (A, B)]
Y, Z = np.arange(200) % 3, np.arange(50) % 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


def load(file: Path, train: Any = A, test: Any = B, y: Any = Y, z: Any = Z, **how: Any) -> Any:
    np.savez(file, x_train=train, y_train=y, x_test=test, y_test=z)
    return npz(1, str(file), **how)


def standard(train: np.ndarray, test: np.ndarray) -> torch.Tensor:
    both = np.concatenate([train, test]).astype(np.float64)
    return torch.from_numpy((both - train.mean(0)) / train.std(0)).float()


# -- tables ----------------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [
    lambda x: x * 1e20, lambda x: x * 1e-30, lambda x: x * 1e300, lambda x: x * 1e-300, lambda x: x * 1e-318,
    lambda x: 1.7e9 + x, lambda x: -1.7e9 + x, lambda x: x * 4e307, lambda x: x.astype(">f8"),
    lambda x: np.asfortranarray(x), lambda x: x.astype(np.longdouble) + np.longdouble(1e12),
], ids=["1e20", "1e-30", "1e300", "1e-300", "subnormal", "timestamps", "negative", "near-the-end", "big-endian",
        "fortran", "longdouble"])  # fmt: skip
def test_a_table_of_any_magnitude_is_standardised_alike(file: Path, convert: Any) -> None:
    data = load(file, convert(A), convert(B))
    got = torch.cat([data.train_x, data.test_x])
    torch.testing.assert_close(got, standard(A, B), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("convert", [
    lambda x: x, lambda x: x + 10**18, lambda x: x - 9 * 10**18, lambda x: (x + 10_000).astype(np.uint64) + 2**63,
    lambda x: x.astype(">i8") + 2**60, lambda x: x.astype(">i2"), lambda x: x.astype(np.int32) + 2_000_000_000,
], ids=["int64", "nanoseconds", "negative", "uint64", "big-endian", "short", "int32"])  # fmt: skip
def test_a_table_of_integers_keeps_each(file: Path, convert: Any) -> None:
    data = load(file, convert(WHOLE[0]), convert(WHOLE[1]))
    torch.testing.assert_close(torch.cat([data.train_x, data.test_x]), standard(*WHOLE), rtol=1e-5, atol=1e-5)


def test_features_of_different_magnitudes_in_one_table(file: Path) -> None:
    factors, offsets = np.array([1e200, 1e-200, 1.0, 1e9]), np.array([0, 0, 1e6, 1e16])
    data = load(file, A * factors + offsets, B * factors + offsets)
    torch.testing.assert_close(torch.cat([data.train_x, data.test_x]), standard(A, B), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [0.1, 0.0, 1e20, -1e-30, 7])
def test_a_constant_feature_is_exactly_zero(file: Path, value: float) -> None:
    train, test = A.copy(), B.copy()
    train[:, 2] = test[:, 2] = value
    data = load(file, train, test)
    assert not data.train_x[:, 2].any() and not data.test_x[:, 2].any()


@pytest.mark.parametrize(("train", "words"), [
    (np.where(A > 2, np.nan, A), "x_train .*is not finite: .* of 200 samples"),
    (np.where(A > 2, -np.inf, A).astype(np.float16), "is not finite"),
    (np.where(np.arange(4) == 1, 3.0, A), "x_test .*too far from the training samples .* at .1."),
])  # fmt: skip
def test_values_without_a_place_on_the_scale_are_named(file: Path, train: np.ndarray, words: str) -> None:
    test = B.copy()
    test[7, 1] = 1e50
    with pytest.raises(SpecError, match=words) as caught:
        load(file, train, test)
    assert "data.npz" in caught.value.message and caught.value.remedy


@pytest.mark.parametrize(("convert", "kept"), [
    (lambda x: x, True), (lambda x: x * 1e30, True), (lambda x: x + 1000, True), (lambda x: WHOLE[0][: len(x)], True),
    (lambda x: 1.7e9 + x, False), (lambda x: x * 1e-50, False), (lambda x: x * 1e50, False),
    (lambda x: WHOLE[0][: len(x)] + 10**18, False),
], ids=["plain", "1e30", "offset", "integers", "timestamps", "tiny", "huge", "nanoseconds"])  # fmt: skip
def test_values_as_they_are_fit_float32_or_are_refused(file: Path, convert: Any, kept: bool) -> None:
    if kept:
        data = load(file, convert(A), convert(B), standardise=False)
        assert torch.equal(data.train_x, torch.from_numpy(convert(A).astype(np.float32)))
        return
    with pytest.raises(SpecError, match=r"float32 cannot tell the values of feature 0 of x_train .*data.npz") as caught:
        load(file, convert(A), convert(B), standardise=False)
    assert "standardise: true" in caught.value.remedy


def test_large_values_are_no_overflow_of_their_sum(file: Path) -> None:
    data = load(file, np.abs(A) * 1e38 / 5, np.abs(B) * 1e38 / 5, standardise=False)
    assert data.train_x.isfinite().all()


@pytest.mark.parametrize(("change", "how", "words"), [
    ({"test": 255 * B}, {}, "of x_test lies .* standard deviations of x_train from its mean; are both in the same units"),
    ({"train": np.where(np.arange(4) == 1, 5.0, A), "test": B * 1e9}, {}, "feature 1 of x_test lies"),
    ({"train": np.ones((200, 8, 9, 3)), "test": np.ones((50, 8, 9, 3))}, {},
     "x_train .* images of 8 channels, 9 x 3; .*channels_last: true"),
    ({"train": np.ones((200, 1, 8, 9)), "test": np.ones((50, 1, 8, 9))}, {"channels_last": True},
     "x_test .* images of 9 channels, 1 x 8; .*channels_last: false"),
    ({}, {}, None), ({"test": B + 5}, {}, None),
    ({"train": np.ones((200, 3, 8, 8)), "test": np.ones((50, 3, 8, 8))}, {}, None),
    ({"train": np.ones((200, 8, 8, 3)), "test": np.ones((50, 8, 8, 3))}, {"channels_last": True}, None),
])  # fmt: skip
def test_what_may_be_meant_otherwise_is_told(file: Path, caplog: pytest.LogCaptureFixture, change: dict, how: dict,
                                             words: str | None) -> None:
    load(file, **change, **how)
    assert re.search(words, caplog.text) if words else not caplog.records


def test_iris_with_hardly_anything_to_train_on() -> None:
    for test_samples in (147, 148, 149):
        assert iris(1, test_samples=test_samples).train_x.isfinite().all()


# -- arrays of images, labels ------------------------------------------------------------------

PIXELS = RNG.integers(0, 256, (60, 6, 6))
PIXELS[0, 0, 0], PIXELS[59, 0, 0] = 255, 255


def test_images_of_every_type_are_the_same_images(file: Path) -> None:
    types = ("uint8", ">u2", "int64", "float16", "float32", ">f8", "uint64")
    sets = [load(file, PIXELS[:40].astype(one), PIXELS[40:].astype(other), Y[:40], Z[:20]).train_x
            for one, other in zip(types, types[::-1], strict=True)]
    sets += [load(file, PIXELS[:40] / 255, PIXELS[40:] / 255, Y[:40], Z[:20]).train_x,
             load(file, (PIXELS[:40] * 257).astype(np.uint16), PIXELS[40:] * 257, Y[:40], Z[:20]).train_x]
    for one in sets[1:]:
        torch.testing.assert_close(one, sets[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("test", [PIXELS / 255, PIXELS * 257, (PIXELS / 255 - 0.5).astype(np.float16)])
def test_sets_in_different_units_are_refused(file: Path, test: np.ndarray) -> None:
    with pytest.raises(SpecError, match=r"x_train of .*data.npz is uint8 up to 255, x_test .* up to"):
        load(file, PIXELS.astype(np.uint8), test, Y[:60], Y[:60])
    with pytest.raises(SpecError, match="bring both to one scale"):
        load(file, PIXELS.reshape(60, -1), PIXELS.reshape(60, -1) / 1e4, Y[:60], Y[:60])


@pytest.mark.parametrize(("y", "z", "classes"), [
    (Y.astype(bool), Z.astype(bool), 2), (Y.astype(float), Z.astype(">i8"), 3), (Y.astype(np.uint64), Z, 3),
    (Y[:, None].astype(np.float16), Z, 3), (np.array(["cat", "dog", "owl"])[Y], np.array(["cat", "dog", "owl"])[Z], 3),
    (np.array([b"a", b"bb", b"c"])[Y], np.array([b"a", b"bb", b"c"])[Z], 3), (Y + 1, Z + 1, 4),
], ids=["bool", "float", "uint64", "column", "names", "bytes", "from-1"])  # fmt: skip
def test_labels_of_other_types(file: Path, y: np.ndarray, z: np.ndarray, classes: int,
                               caplog: pytest.LogCaptureFixture) -> None:
    data = load(file, y=y, z=z)
    offset = classes - len(data.train_y.unique())
    expected = [torch.from_numpy(each.astype(bool).astype(int) if y.dtype == bool else each + offset)
                for each in (Y, Z)]
    assert data.classes == classes
    assert torch.equal(data.train_y, expected[0]) and torch.equal(data.test_y, expected[1])
    assert ("y_train has no sample of 1 of the classes 0 to 3: 0" in caplog.text) == (offset == 1)


@pytest.mark.parametrize(("y", "z", "words"), [
    (Y - 1, Z, "y_train .*holds -1; classes count from 0"),
    (Y + 0.5, Z, r"y_train .*holds 0\.5, which is no class"), (np.where(Y > 1, np.nan, Y), Z, "holds nan"),
    (Y, Z + 1e30, "y_test .*no class number"), (np.eye(3)[Y], Z, r"shape \(200, 3\), one label per sample"),
    (Y * 10**9, Z, "are numbered up to 2000000000"), (Y.astype(np.uint64) + 2**63, Z, "no class number"),
    (Y.astype(str), Z, "y_train .*is <U.*, y_test int64"), (Y.astype(str), (Z + 1).astype(str), "has the class '3'"),
    (Y.astype(object), Z, "y_train of .*it holds Python objects"), (Y.astype("M8[s]"), Z, "y_train .*is datetime64"),
    (Y + 1j, Z, "y_train .*is complex"),
])  # fmt: skip
def test_labels_that_are_no_classes(file: Path, y: np.ndarray, z: np.ndarray, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        load(file, y=y, z=z)
    assert caught.value.remedy and "data.npz" in caught.value.message


# -- pictures ----------------------------------------------------------------------------------

RAMP = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
F_SHAPE = np.zeros((32, 32), np.uint8)
F_SHAPE[4:28, 6:12], F_SHAPE[4:10, 6:26], F_SHAPE[14:19, 6:20] = 255, 255, 255


def saved(pixels: np.ndarray | Image.Image, kind: str, **how: Any) -> bytes:
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    image.save(buffer := io.BytesIO(), kind, **how)
    return buffer.getvalue()


def tiff(values: np.ndarray, sample_format: int) -> bytes:
    """A plain TIFF of one channel; 1 unsigned, 2 signed."""
    height, width = values.shape
    tags = {256: width, 257: height, 258: 8 * values.itemsize, 259: 1, 262: 1, 273: 8, 277: 1, 278: height,
            279: values.nbytes, 339: sample_format}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    where = struct.pack("<I", 8 + values.nbytes)
    return b"II*\0" + where + values.tobytes() + struct.pack("<H", len(tags)) + entries + bytes(4)


def png16(values: np.ndarray, colour: int) -> bytes:
    """A PNG of 16 bits a channel, (h, w, c)."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def folder(root: Path, **classes: bytes) -> Path:
    """One picture of each class, to train and to test on; the suffix is that of its contents."""
    for part in ("train", "test"):
        for name, content in classes.items():
            (root / part / name).mkdir(parents=True, exist_ok=True)
            suffix = {b"\x89P": "png", b"II": "tif", b"MM": "tif", b"P5": "pgm", b"\xff\xd8": "jpg", b"P6": "ppm",
                      b"GI": "gif"}[content[:2]]  # fmt: skip
            (root / part / name / f"0.{suffix}").write_bytes(content)
    return root


def seen(root: Path, content: bytes, other: bytes = b"") -> torch.Tensor:
    """(32, 32) of a picture as a model sees it, beside another one."""
    return image_folder(1, str(folder(root, a=content, b=other or content))).train_x[0, 0]


@pytest.mark.parametrize("content", [
    saved(RAMP, "PNG"), saved(RAMP, "TIFF"), saved(RAMP.astype(">u2"), "TIFF"), saved(RAMP // 16, "PNG"),
    saved(RAMP // 64 + 3, "PNG"), b"P5 32 32 65535\n" + RAMP.astype(">u2").tobytes(),
    saved(RAMP.astype(np.int32), "TIFF"), saved(RAMP.astype(np.int32) * 30_000 - 10**9, "TIFF"),
    saved(RAMP / np.float32(65535), "TIFF"), saved(RAMP * np.float32(1e30), "TIFF"),
    tiff(RAMP.astype("<u4") * 65537, 1), tiff((RAMP.astype("<i4") - 32768).astype("<i2"), 2),
    tiff(((RAMP // 257).astype(int) - 128).astype("i1"), 2),
], ids=["png", "tiff", "big-endian", "12-bit", "10-bit", "pgm", "int32", "signed-int32", "fractions", "1e30", "uint32",
        "int16", "int8"])  # fmt: skip
def test_a_ramp_keeps_its_levels(tmp_path: Path, content: bytes) -> None:
    got = seen(tmp_path, content)
    assert len(got[0].unique()) == 32 and (got[:, 1:] > got[:, :-1]).all() and torch.equal(got[0], got[31])


def test_pictures_of_8_and_16_bits_have_one_white(tmp_path: Path) -> None:
    eight = (RAMP >> 8).astype(np.uint8)
    root = folder(tmp_path, a=saved(eight, "PNG"), b=saved(eight.astype(np.uint16) * 257, "PNG"),
                  c=saved(Image.fromarray(eight).convert("CMYK"), "TIFF"))
    data = image_folder(1, str(root))
    torch.testing.assert_close(data.train_x[1], data.train_x[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(data.train_x[2], data.train_x[0], rtol=1e-5, atol=0.02)


@pytest.mark.parametrize(("content", "words"), [
    (saved(RAMP.astype(np.float32), "TIFF"), "has float32 values, and image .* white values"),
    (saved(np.full((32, 32), np.nan, np.float32), "TIFF"), "not finite"),
    (saved(RAMP.astype(np.int32) // 600 + 2 * 10**9, "TIFF"), "float32 cannot tell apart"),
])  # fmt: skip
def test_pictures_without_a_common_unit_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        seen(tmp_path, content, saved(F_SHAPE, "PNG"))
    assert ".tif" in caught.value.message and caught.value.remedy


def transparent(colour: int, mode: str) -> Image.Image:
    """A shape that only the alpha channel tells from its surroundings."""
    alpha = Image.fromarray(F_SHAPE)
    image = Image.new("RGBA", (32, 32), (colour,) * 3 + (0,))
    image.putalpha(alpha)
    return image.convert(mode)


def keyed(colour: int) -> dict[str, Any]:
    """A grey image of which one value is transparent."""
    return {"pixels": np.where(F_SHAPE > 0, colour, 7).astype(np.uint8), "kind": "PNG", "transparency": 7}


@pytest.mark.parametrize("content", [
    *(saved(transparent(colour, mode), "PNG") for colour in (0, 255) for mode in ("RGBA", "LA")),
    *(saved(**keyed(colour)) for colour in (0, 255)),
    saved(Image.fromarray((F_SHAPE > 0).astype(np.uint8), "P"), "PNG", transparency=0),
    saved(np.where(F_SHAPE > 0, 65535, 300).astype(np.uint16), "PNG", transparency=300),
], ids=["black-RGBA", "black-LA", "white-RGBA", "white-LA", "black-key", "white-key", "palette", "16-bit-key"])
def test_a_shape_that_only_transparency_tells_is_seen(tmp_path: Path, content: bytes) -> None:
    got = seen(tmp_path, content, saved(F_SHAPE, "PNG"))
    inside, outside = got[torch.from_numpy(F_SHAPE > 0)], got[torch.from_numpy(F_SHAPE == 0)]
    assert (inside.mean() - outside.mean()).abs() > 0.8 and inside.std() < 0.01 > outside.std()


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    opaque = Image.fromarray(F_SHAPE).convert("RGBA")
    root = folder(tmp_path, a=saved(opaque, "PNG"), b=saved(F_SHAPE, "PNG"), c=saved(opaque.convert("1"), "PNG"))
    data = image_folder(1, str(root))
    assert torch.equal(data.train_x[0], data.train_x[1]) and torch.equal(data.train_x[0], data.train_x[2])


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("depth", [8, 16])
def test_pictures_are_turned_as_their_camera_says(tmp_path: Path, orientation: int, depth: int) -> None:
    pixels = F_SHAPE if depth == 8 else F_SHAPE.astype(np.uint16) * 257
    exif = Image.Exif()
    exif[0x0112] = orientation
    held = saved(pixels, "PNG", exif=exif)
    with Image.open(io.BytesIO(saved(F_SHAPE, "PNG", exif=exif))) as image:
        upright = saved(np.asarray(ImageOps.exif_transpose(image)), "PNG")
    data = image_folder(1, str(folder(tmp_path, a=held, b=upright)))
    torch.testing.assert_close(data.train_x[0], data.train_x[1], rtol=1e-5, atol=1e-5)
    assert not torch.equal(data.train_x[0, 0] > 0, torch.from_numpy(F_SHAPE > 0))


def test_a_part_that_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    colour = np.stack([RAMP] * 3, -1)
    pages = saved(F_SHAPE, "TIFF", save_all=True, append_images=[Image.fromarray(F_SHAPE)])
    root = folder(tmp_path, a=png16(colour, 2), b=pages, c=png16(np.stack([RAMP] * 4, -1), 6),
                  d=b"P6 32 32 65535\n" + colour.astype(">u2").tobytes(), e=saved(F_SHAPE, "PNG"))
    assert image_folder(1, str(root)).classes == 5
    assert "6 of 10 images have more than 8 bits a colour channel, of which 8 are read" in caplog.text
    assert "2 of 10 images have several pages, of which the first is read" in caplog.text


def test_what_systems_leave_in_a_folder_is_no_class_and_no_picture(tmp_path: Path,
                                                                   caplog: pytest.LogCaptureFixture) -> None:
    root = folder(tmp_path, down=saved(RAMP[:, ::-1].copy(), "PNG"), up=saved(RAMP, "PNG"))
    for part in ("train", "test"):
        for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "up/.thumbnails", "up/more"):
            (root / part / name).mkdir()
            (root / part / name / "0.png").write_bytes(saved(F_SHAPE, "PNG"))
        for name in (".DS_Store", "up/._0.png", "up/Thumbs.db", "stray.png"):
            (root / part / name).write_bytes(b"nothing")
    (root / "train" / "up" / "more" / "round").symlink_to(root / "train" / "up")  # a circle
    data = image_folder(1, str(root))
    assert (data.classes, data.train_y.tolist(), data.test_y.tolist()) == (2, [0, 1, 1], [0, 1, 1])
    assert caplog.text.count("1 files are no images and are left out") == 2 and "Thumbs.db" in caplog.text
    (root / "train" / "elsewhere").symlink_to(root / "not mounted")
    with pytest.raises(SpecError, match="train cannot be used: .*elsewhere"):
        image_folder(1, str(root))
    (root / "train" / "elsewhere").unlink()
    (root / "train" / "empty").mkdir()
    with pytest.raises(SpecError, match="empty has no image"):
        image_folder(1, str(root))
