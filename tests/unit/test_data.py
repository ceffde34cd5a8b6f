"""Datasets: shapes, normalisation, seeds, errors; augmentation."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib
import inspect
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import kuiper.config
from kuiper import random
from kuiper.data.augment import augment, random_crop, random_flip
from kuiper.data.mnist import fashion_mnist, mnist
from kuiper.data.small import digits, iris
from kuiper.data.synthetic import synthetic
from kuiper.errors import SpecError
from kuiper.models._torchvision import import_torchvision

TABLE = {  # dataset -> function, training samples, test samples, shape, classes
    "iris": (iris, 120, 30, (4,), 3),
    "digits": (digits, 1500, 297, (1, 8, 8), 10),
    "synthetic": (synthetic, 2000, 500, (20,), 10),
}


@pytest.mark.parametrize("name", TABLE)
def test_sizes_normalisation_and_seed(name: str) -> None:
    function, train, test, shape, classes = TABLE[name]
    data = function(1)
    assert (len(data.train_x), len(data.test_x), data.shape, data.classes) == (train, test, shape, classes)
    assert data.train_y.unique().tolist() == list(range(classes))
    assert data.train_x.mean().abs() < 0.1 and 0.9 < data.train_x.std() < 1.1
    same, other = function(1), function(2)
    assert torch.equal(data.train_x, same.train_x) and torch.equal(data.test_y, same.test_y)
    assert not torch.equal(data.train_x, other.train_x)


@pytest.mark.parametrize("function", [iris, digits])
def test_a_split_drops_nothing_and_shares_nothing(function) -> None:
    """However large the test set, the same samples: equal label counts, equally many distinct rows."""

    def label_counts(test_samples: int) -> tuple[list[int], int]:
        data = function(5, test_samples=test_samples)
        x = torch.cat([data.train_x, data.test_x]).flatten(1)
        y = torch.cat([data.train_y, data.test_y])
        return y.bincount().tolist(), len(x.unique(dim=0))

    assert label_counts(1) == label_counts(100)
    with pytest.raises(SpecError, match="test_samples: 0"):
        function(1, test_samples=0)


def test_synthetic_is_learnable_and_noise_makes_it_harder() -> None:
    def nearest_centre_accuracy(noise: float) -> float:
        data = synthetic(3, noise=noise)
        centres = torch.stack([data.train_x[data.train_y == label].mean(0) for label in range(data.classes)])
        return (torch.cdist(data.test_x, centres).argmin(1) == data.test_y).double().mean().item()

    easy, hard = nearest_centre_accuracy(1.0), nearest_centre_accuracy(4.0)
    assert easy > 0.95 and 0.2 < hard < 0.8
    with pytest.raises(SpecError, match="dataset.features: 0 is below 1"):
        synthetic(1, features=0)


def test_mnist_is_read_whole(data_root: Path) -> None:
    data = mnist(1, root=str(data_root))
    assert data.train_x.shape == (60_000, 1, 28, 28) and data.test_x.shape == (10_000, 1, 28, 28)
    assert data.train_y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(data.train_x.mean()) < 1e-3 and abs(data.train_x.std() - 1) < 1e-3
    assert data.train_x.min() == pytest.approx(-0.1307 / 0.3081)
    assert data.train_x.max() == pytest.approx((1 - 0.1307) / 0.3081)


def test_mnist_root_defaults_to_the_environment(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUIPER_DATA", str(data_root))
    assert mnist(1, augment=["random_crop"]).augment == ("random_crop",)


both = pytest.mark.parametrize(
    ("function", "name", "white"),
    [(mnist, "MNIST", (1 - 0.1307) / 0.3081), (fashion_mnist, "FashionMNIST", (1 - 0.2860) / 0.3530)],
    ids=["mnist", "fashion_mnist"],
)


@both
def test_mnist_that_is_not_there_says_what_to_do(tmp_path: Path, function, name: str, white: float) -> None:
    with pytest.raises(SpecError, match=f": {name} is not in") as caught:
        function(1, root=str(tmp_path))
    assert f"holds {name}/raw" in caught.value.remedy and "dataset.download=true" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SpecError, match="'data' is relative"):
        function(1, root="data")


@both
def test_mnist_that_is_broken_says_so(tmp_path: Path, function, name: str, white: float) -> None:
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{kind}-ubyte").write_bytes(b"")
    with pytest.raises(SpecError, match="cannot be read"):
        function(1, root=str(tmp_path))


@both
def test_mnist_that_cannot_be_fetched_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function, name: str, white: float
) -> None:
    monkeypatch.setattr(getattr(import_torchvision().datasets, name), "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(SpecError, match="could not be fetched"):
        function(1, root=str(tmp_path / "new"), download=True)
    assert list((tmp_path / "new").iterdir()) == []


@both
def test_mnist_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function, name: str, white: float
) -> None:
    """From a mirror with one training and two test images, packed as the published files are."""
    mirror, root = tmp_path / "mirror", tmp_path / "root"
    mirror.mkdir()
    resources = []
    for part, size in (("train", 1), ("t10k", 2)):
        images = struct.pack(">IIII", 0x803, size, 28, 28) + bytes([0, 255] * 14) * 28 * size
        labels = struct.pack(">II", 0x801, size) + bytes([7] * size)
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            packed = gzip.compress(content)
            (mirror / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
            resources.append((f"{part}-{kind}-ubyte.gz", hashlib.md5(packed).hexdigest()))
    source = getattr(import_torchvision().datasets, name)
    monkeypatch.setattr(source, "resources", resources)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=mirror)) as server:
        monkeypatch.setattr(source, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            data = function(1, root=str(root), download=True)
        finally:
            server.shutdown()
            serving.join()
    assert (len(data.train_y), data.test_y.tolist()) == (1, [7, 7])
    assert data.train_x.max() == pytest.approx(white) and data.train_x.shape == (1, 1, 28, 28)
    assert [path.name for path in root.iterdir()] == [name]
    assert torch.equal(function(1, root=str(root), download=True).train_x, data.train_x)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classes": 1}, "classes is 1"),
        ({"classes": 2}, r"span \[0, 2\]"),
        ({"train_x": torch.zeros(120, 4, dtype=torch.float64)}, "train_x is torch.float64"),
        ({"train_x": torch.full((120, 4), torch.nan)}, "not finite"),
        ({"test_x": torch.zeros(30, 5)}, "test samples"),
        ({"test_y": torch.zeros(29, dtype=torch.int64)}, r"test_y is torch.int64 of shape \(29,\)"),
        ({"test_y": torch.zeros(30)}, "test_y is torch.float32"),
        ({"augment": ("random_flip",)}, "needs images"),
        ({"augment": ("random_flop",)}, "did you mean 'random_flip'"),
    ],
)
def test_a_wrong_dataset_is_refused(change: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(iris(1), **change)


def test_a_dataset_moves_and_is_frozen() -> None:
    data = digits(1, augment=["random_crop"])
    moved = data.to("cpu")
    assert moved.train_x is data.train_x and moved.augment == ("random_crop",)
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.classes = 3
    with pytest.raises(SpecError, match="is not a list"):
        digits(1, augment="random_crop")


def images(count: int = 6, channels: int = 2, height: int = 8, width: int = 10) -> torch.Tensor:
    return torch.arange(count * channels * height * width).float().reshape(count, channels, height, width)


def test_crop_shifts_and_repeats_the_edge() -> None:
    middle = random_crop(images(), torch.full((6, 2), 0.5), padding=2)
    assert torch.equal(middle, images())
    corner = random_crop(images(), torch.tensor([[0.0, 0.999]] * 6), padding=2)  # up by 2, right by 2
    assert torch.equal(corner[:, :, 2:, :-2], images()[:, :, :-2, 2:])
    assert torch.equal(corner[:, :, 0], corner[:, :, 2]) and torch.equal(corner[..., -1], corner[..., -3])


def test_flip_mirrors_where_the_draw_is_low() -> None:
    out = random_flip(images(2), torch.tensor([[0.49], [0.5]]))
    assert torch.equal(out[0], images(2)[0].flip(-1)) and torch.equal(out[1], images(2)[1])


def test_equal_keys_give_equal_augmentation_alone_and_in_a_block() -> None:
    names = ["random_crop", "random_flip"]
    block = torch.stack([images(64), images(64) + 1, images(64) + 2])
    together = augment(block, names, 7, np.array([4, 9, 2]), 11)
    for row, node in enumerate([4, 9, 2]):
        assert torch.equal(together[row], augment(block[row], names, 7, node, 11))
    for seed, node, step in [(8, 4, 11), (7, 5, 11), (7, 4, 12)]:
        assert not torch.equal(together[0], augment(block[0], names, seed, node, step))
    assert torch.equal(block[0], images(64))
    assert torch.equal(augment(block, [], 7, np.array([4, 9, 2]), 11), block)


def test_augmentation_draws_do_not_depend_on_the_others() -> None:
    flipped_last = augment(augment(images(64), ["random_crop"], 1, 0, 0), ["random_flip"], 1, 0, 0)
    assert torch.equal(flipped_last, augment(images(64), ["random_crop", "random_flip"], 1, 0, 0))
    draws = random.uniforms(1, "augment random_flip", 0, 0, np.arange(64), 0)
    changed = (augment(images(64), ["random_flip"], 1, 0, 0) != images(64)).flatten(1).any(1).numpy()
    assert (changed == (draws < 0.5)).all() and 16 < changed.sum() < 48


GROUPS = Path(kuiper.config.__file__).parent / "groups"
PURE = ("dataset", "partition", "model", "optimizer", "schedule")
YAMLS = sorted(path for group in PURE for path in GROUPS.glob(f"{group}/*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_yaml_and_function_agree_on_parameters_and_defaults(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    module, _, name = content["_target_"].rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    given = {"seed", "labels", "nodes", "rng", "shape", "classes", "step", "steps"}
    given = given if path.stem != "synthetic" else {"seed"}
    defaults = {
        key: "???" if p.default is p.empty else p.default  # Hydra's word for what must be given
        for key, p in signature.parameters.items()
        if key not in given
    }
    in_yaml = {key: value for key, value in content.items() if not key.startswith("_")}
    assert in_yaml == {key: list(v) if isinstance(v, tuple) else v for key, v in defaults.items()}
    assert content["_doc_"] and set(content.get("_bounds_", {})) <= set(in_yaml)


def test_small_tables_are_scikit_learns() -> None:
    from sklearn import datasets

    from kuiper.data.small import _table

    for name, skip, load in (("iris.csv", 1, datasets.load_iris), ("digits.csv.gz", 0, datasets.load_digits)):
        table, source = _table(name, skip), load()
        assert (table[:, :-1].numpy() == source.data).all() and (table[:, -1].numpy() == source.target).all()
