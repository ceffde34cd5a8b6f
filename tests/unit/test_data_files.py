"""Datasets of the user's files: CIFAR in both encodings, arrays, folders of images."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kuiper.data.cifar import cifar10, cifar100
from kuiper.data.image_folder import image_folder
from kuiper.data.npz import npz
from kuiper.errors import SpecError
from kuiper.models._torchvision import import_torchvision

COLOURS = ((250, 10, 10), (10, 250, 10), (10, 10, 250))


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Of one of three colours, a little uneven, so that labels can be told from pixels."""
    image = Image.new("RGB", size, COLOURS[seed % 3])
    image.putpixel((seed % size[0], 0), (128, 128, 128))
    return image


# -- CIFAR ---------------------------------------------------------------------------------


@pytest.fixture(params=["CIFAR10", "CIFAR100"])
def published(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple:
    """(function, root, pixels (8, 3, 32, 32), labels): six training and two test images as published."""
    source = getattr(import_torchvision().datasets, request.param)
    function, key = (cifar10, "labels") if request.param == "CIFAR10" else (cifar100, "fine_labels")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (8, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, 8).tolist()
    folder = tmp_path / source.base_folder
    folder.mkdir()

    def write(name: str, content: dict) -> str:
        packed = pickle.dumps(content)
        (folder / name).write_bytes(packed)
        return hashlib.md5(packed).hexdigest()

    def batch(name: str, part: slice) -> list[str]:
        return [name, write(name, {"data": pixels[part].reshape(-1, 3072), key: labels[part]})]

    halves = [batch("first", slice(0, 3)), batch("second", slice(3, 6))]
    monkeypatch.setattr(source, "train_list", halves)
    monkeypatch.setattr(source, "test_list", [batch("tested", slice(6, 8))])
    names = {"label_names": [], "fine_label_names": []}
    monkeypatch.setattr(source, "meta", source.meta | {"md5": write(source.meta["filename"], names)})
    return function, tmp_path, pixels, labels


def test_published_cifar_is_read_and_normalised(published: tuple) -> None:
    function, root, pixels, labels = published
    data = function(1, root=str(root), augment=["random_flip"])
    assert data.train_y.tolist() == labels[:6] and data.test_y.tolist() == labels[6:]
    assert data.classes == (10 if function is cifar10 else 100) and data.augment == ("random_flip",)
    mean, deviation = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)) if function is cifar10 else (
        (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))  # fmt: skip
    expected = (pixels / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(deviation, (3, 1, 1))
    torch.testing.assert_close(torch.cat([data.train_x, data.test_x]), torch.from_numpy(expected).float())
    assert data.train_x.is_contiguous()


def test_cifar_that_was_tampered_with_is_never_unpickled(published: tuple) -> None:
    function, root, _, _ = published
    touched = root / "touched"

    class Command:
        def __reduce__(self):
            return os.mkdir, (str(touched),)

    folder = next(root.glob("cifar*"))
    for file in folder.iterdir():
        file.write_bytes(pickle.dumps(Command()))
    with pytest.raises(SpecError, match="corrupted") as caught:
        function(1, root=str(root))
    assert "dataset.download=true" in caught.value.remedy and not touched.exists()
    next(folder.iterdir()).unlink()
    with pytest.raises(SpecError, match="is not in"):
        function(1, root=str(root))


def write_jpeg(path: Path, train: int = 400, test: int = 30, **change: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    arrays = {}
    for part, size in (("train", train), ("test", test)):
        encoded = []
        for seed in range(size):
            picture(seed).save(buffer := io.BytesIO(), "JPEG", quality=95)
            encoded.append(buffer.getvalue())
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(encoded), np.uint8)
        arrays[f"{part}_offset"] = np.cumsum([0, *map(len, encoded)])
        arrays[f"{part}_label"] = (np.arange(size) % 3).astype(np.uint8)
    np.savez(path, **arrays | change)


def test_cifar10_is_read_from_jpegs_where_the_original_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_jpeg(tmp_path / "CIFAR10" / "cifar10_jpeg.npz")
    data = cifar10(1, root=str(tmp_path))
    assert data.train_x.shape == (400, 3, 32, 32) and data.test_x.shape == (30, 3, 32, 32)
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):  # threads keep the order
        assert torch.equal(x.mean((2, 3)).argmax(1), y)
    assert "lossy re-encoding: decoded in" in caplog.text
    with pytest.raises(SpecError, match="CIFAR100 is not in"):
        cifar100(1, root=str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_jpeg": np.zeros(10**6, np.uint8)}, "image number 0 cannot be decoded"),
        ({"train_offset": np.array([0, 1, 2])}, "image number 0 cannot be decoded"),
        ({"train_label": np.array([{}])}, "allow_pickle"),
        ({"train_offset": np.array(0.5)}, "cannot be read"),
        ({"train_label": np.arange(5)}, "train_y is"),
    ],
    ids=["garbage", "cut", "objects", "no-offsets", "labels"],
)
def test_a_damaged_archive_of_jpegs_says_so(tmp_path: Path, change: dict, message: str) -> None:
    write_jpeg(tmp_path / "CIFAR10" / "cifar10_jpeg.npz", 4, 2, **change)
    with pytest.raises(SpecError, match=message):
        cifar10(1, root=str(tmp_path))


def test_cifar_that_is_not_there_or_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="CIFAR10 is not in .*py or CIFAR10/cifar10_jpeg.npz") as caught:
        cifar10(1, root=str(tmp_path))
    assert "dataset.download=true" in caught.value.remedy
    monkeypatch.setattr(import_torchvision().datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    with pytest.raises(SpecError, match="could not be fetched"):
        cifar10(1, root=str(tmp_path), download=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_real_cifar10(data_root: Path) -> None:
    """Its known statistics, and loading in seconds (7 s of an idle processor's time to decode)."""
    if not (data_root / "CIFAR10" / "cifar10_jpeg.npz").is_file():
        pytest.skip(f"no CIFAR10/cifar10_jpeg.npz in {data_root}")
    began = time.process_time()
    data = cifar10(1, root=str(data_root))
    assert time.process_time() - began < 30
    assert data.train_x.shape == (50_000, 3, 32, 32) and data.test_x.shape == (10_000, 3, 32, 32)
    assert data.train_y.bincount().tolist() == [5000] * 10 and data.test_y.bincount().tolist() == [1000] * 10
    variance, mean = torch.var_mean(data.train_x, (0, 2, 3))
    assert mean.abs().max() < 0.02 and (variance.sqrt() - 1).abs().max() < 0.02


# -- arrays --------------------------------------------------------------------------------


def arrays(*shape: int, dtype: str = "uint8") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "x_train": rng.integers(0, 256, (60, *shape)).astype(dtype),
        "y_train": np.arange(60, dtype=np.uint8) % 4,
        "x_test": rng.integers(0, 256, (20, *shape)).astype(dtype),
        "y_test": np.arange(20).reshape(20, 1) % 4,  # as Keras ships CIFAR
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


@pytest.mark.parametrize("dtype", ["uint8", "float64", "int16"])
@pytest.mark.parametrize(
    ("shape", "channels_last", "seen"),
    [
        ((5,), False, (5,)),
        ((8, 9), False, (1, 8, 9)),
        ((3, 8, 9), False, (3, 8, 9)),
        ((8, 9, 3), True, (3, 8, 9)),
    ],
    ids=["table", "grey", "colour", "channels-last"],
)
def test_arrays_are_standardised_over_the_training_set(
    file: Path, shape: tuple[int, ...], channels_last: bool, seen: tuple[int, ...], dtype: str
) -> None:
    content = arrays(*shape, dtype=dtype)
    np.savez_compressed(file, **content)
    data = npz(1, str(file), channels_last=channels_last)
    assert (data.shape, data.classes, len(data.test_y)) == (seen, 4, 20) and data.train_x.is_contiguous()
    axes = (0,) if len(seen) == 1 else (0, 2, 3)
    variance, mean = torch.var_mean(data.train_x, axes, correction=0)
    assert mean.abs().max() < 1e-5 and (variance - 1).abs().max() < 1e-5
    raw = npz(1, str(file), standardise=False, channels_last=channels_last)
    ours = raw.test_x.permute(0, 2, 3, 1) if channels_last else raw.test_x
    assert torch.equal(ours.reshape(20, *shape), torch.from_numpy(content["x_test"]).float())


def test_a_constant_feature_is_only_centred(file: Path) -> None:
    content = arrays(3, dtype="float32")
    content["x_train"][:, 1] = content["x_test"][:, 1] = 7
    content["x_test"][0, 1] = 9
    np.savez(file, **content)
    data = npz(1, str(file))
    assert not data.train_x[:, 1].any() and data.test_x[:2, 1].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": np.array([{}] * 60)}, "it holds Python objects"),
        ({"x_train": np.array(["a"] * 60)}, "x_train is <U1"),
        ({"x_train": np.zeros((60, 0)), "x_test": np.zeros((20, 0))}, r"x_train is float64 of shape \(60, 0\)"),
        ({"x_test": np.zeros((20, 6))}, "test samples"),
        ({"x_train": np.full((60, 5), np.nan)}, "not finite"),
        ({"y_train": np.arange(59)}, "train_y is"),
        ({"x_train": np.zeros((0, 5)), "y_train": np.zeros(0, int)}, "0 training and 20 test samples"),
    ],
)
def test_arrays_that_are_no_dataset(file: Path, change: dict, message: str) -> None:
    np.savez(file, **arrays(5) | change)
    with pytest.raises(SpecError, match=message):
        npz(1, str(file))


def test_a_file_that_is_no_npz(file: Path) -> None:
    def refused(message: str, path: Path = file) -> None:
        with pytest.raises(SpecError, match=message) as caught:
            npz(1, str(path))
        assert "numpy.savez" in caught.value.remedy

    refused("No such file")
    for content in (b"", b"PK\x03\x04 and then something else", pickle.dumps([1])):
        file.write_bytes(content)
        refused("cannot be read: it is no .npz file")
    np.save(file.with_suffix(".npy"), np.zeros(3))
    refused("cannot be read: it is no .npz file", file.with_suffix(".npy"))
    np.savez(file, **{key: value for key, value in arrays(5).items() if key != "y_test"})
    refused("y_test")
    with pytest.raises(SpecError, match="'data.npz' is relative"):
        npz(1, "data.npz")


# -- folders of images -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of two to four training images of several formats and sizes; two of them tested."""
    root = tmp_path / "a 'hostile' ${name}"
    for part, kinds in (("train", "rgb"), ("test", "gb")):
        for name in kinds:
            here = root / part / name
            here.mkdir(parents=True)
            for number in range(2 + "rgb".index(name)):
                image = picture("rgb".index(name), (40 + 7 * number, 33))
                image.save(here / f"{number}.png") if number % 2 else image.save(here / f"{number}.JPG")
    (root / "train" / "r" / "notes.txt").write_text("no image")
    return root


def test_a_folder_per_class(folder: Path) -> None:
    data = image_folder(1, str(folder), size=16, augment=["random_crop"])
    assert (data.shape, data.classes, data.augment) == ((3, 16, 16), 3, ("random_crop",))
    # Classes in the order of their names: b, g, r, whatever test has of them.
    assert data.train_y.tolist() == [0] * 4 + [1] * 3 + [2] * 2 and data.test_y.tolist() == [0] * 4 + [1] * 3
    for x, y in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert torch.equal(2 - x.mean((2, 3)).argmax(1), y)
    variance, mean = torch.var_mean(data.train_x, (0, 2, 3), correction=0)
    assert mean.abs().max() < 1e-5 and (variance - 1).abs().max() < 1e-5


def test_an_image_is_cropped_to_its_central_square(tmp_path: Path) -> None:
    wide = Image.new("RGB", (96, 32), (255, 255, 255))
    wide.paste((0, 0, 0), (32, 0, 64, 32))
    for part in ("train", "test"):
        for name, image in (("black", wide), ("white", Image.new("L", (32, 32), 255))):
            (tmp_path / part / name).mkdir(parents=True)
            image.save(tmp_path / part / name / "0.png")
    data = image_folder(1, str(tmp_path), size=8)
    black, white = data.train_x  # but for a tenth that the resizing filter brings in at the border
    torch.testing.assert_close(black, torch.full_like(black, -1), atol=0.2, rtol=0)
    torch.testing.assert_close(white, torch.full_like(white, 1), atol=0.2, rtol=0)


def test_folders_that_are_no_dataset(folder: Path) -> None:
    def refused(message: str, root: Path = folder, **params: int) -> None:
        with pytest.raises(SpecError, match=message) as caught:
            image_folder(1, str(root), **params)
        assert caught.value.remedy

    refused("size: 0", size=0)
    refused("train cannot be used", folder / "train")
    (folder / "test" / "x").mkdir()
    refused("x has no image")
    picture(0).save(folder / "test" / "x" / "0.png")
    refused("has the class 'x', which train has not")
    (folder / "test" / "x" / "0.png").unlink()
    (folder / "test" / "x").rmdir()
    (folder / "train" / "r" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    refused("1.png cannot be decoded")
    with pytest.raises(SpecError, match="is relative"):
        image_folder(1, "images")
