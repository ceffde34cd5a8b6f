"""No result depends on the order a data set is stored in: what stands for it is drawn, and spread over classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kuiper import random
from kuiper.attacks.adversary import Adversary
from kuiper.data import Dataset, hold_out
from kuiper.data.sampling import stratified_order
from kuiper.data.synthetic import synthetic
from kuiper.learner import Batches, FlatModel, Learner
from kuiper.learner.evaluate import trusted_batches
from kuiper.models.mlp import mlp
from kuiper.optim import SGD

LABELS = np.repeat([0, 1, 2, 7], [600, 300, 95, 5])  # sorted, and of unequal classes
DATA = synthetic(1, samples=6000, test_samples=1000, features=10, classes=10, noise=0.6)


def in_order(data: Dataset, order: np.ndarray) -> Dataset:
    return replace(data, train_x=data.train_x[torch.from_numpy(order)], train_y=data.train_y[torch.from_numpy(order)])


def learner(module: nn.Module, data: Dataset, nodes: int = 1) -> Learner:
    shards = np.array_split(random.permutation(1, "shards", 0, 0, len(data.train_y)), nodes)
    batches = Batches(data, shards, 50, 1, Adversary(np.empty(0, np.int64)))
    return Learner(FlatModel(module, "cross_entropy"), data, batches, "sequential")


def test_every_part_of_a_stratified_order_has_the_proportions_of_the_whole() -> None:
    order = stratified_order(LABELS, 1, "test")
    assert sorted(order.tolist()) == list(range(1000))
    for start, end in ((0, 100), (0, 10), (450, 650), (900, 1000)):
        counts = np.bincount(LABELS[order[start:end]], minlength=8)
        expected = np.bincount(LABELS, minlength=8) * (end - start) / 1000
        assert (np.abs(counts - expected) <= 2).all(), (start, end, counts)
    assert np.array_equal(order, stratified_order(LABELS, 1, "test"))
    for other in (stratified_order(LABELS, 2, "test"), stratified_order(LABELS, 1, "other")):
        assert (order != other).mean() > 0.9
    assert len(set(order[:600].tolist()) & set(range(300))) < 250  # of a class, any: not the first


@pytest.mark.parametrize("order", [
    np.argsort(DATA.train_y.numpy(), kind="stable"),
    np.argsort(-DATA.train_y.numpy(), kind="stable"),
    np.lexsort((DATA.train_x[:, 0].numpy(), DATA.train_y.numpy() % 2)),
], ids=["sorted", "descending", "two-groups"])  # fmt: skip
def test_a_model_with_batchnorm_scores_alike_on_one_set_in_two_orders(order: np.ndarray) -> None:
    random.seed_torch(1, "initial weights")
    module, optimizer = mlp(DATA.shape, 10, hidden=[32], norm="batch"), SGD(lr=0.5)
    shuffled = learner(module, DATA)
    theta = shuffled.model.theta.clone()
    for step in range(1, 101):
        rows, _ = shuffled.gradients(theta, np.arange(1), batch=step)
        theta, _ = optimizer.step(theta, rows[0], {})
    expected, scores = shuffled.evaluate(theta), learner(module, in_order(DATA, order)).evaluate(theta)
    assert expected["top_1"] > 85
    assert abs(scores["top_1"] - expected["top_1"]) < 1.5 and abs(scores["loss"] - expected["loss"]) < 0.05


@pytest.mark.parametrize("samples", [1, 2, 251, 260, 1999, 2001, 5000])
def test_batches_of_trusted_samples_count_the_same(samples: int) -> None:
    batches = trusted_batches(torch.arange(samples) % 3, seed=1)
    sizes = [len(batch) for batch in batches]
    assert sum(sizes) == (0 if samples == 1 else min(samples, 2000))
    assert max(sizes, default=0) - min(sizes, default=0) <= 1 and max(sizes, default=0) <= 250
    assert len(torch.cat([*batches, torch.tensor([], dtype=torch.int64)]).unique()) == sum(sizes)


def test_a_last_batch_of_few_samples_does_not_weigh_as_much_as_a_whole_one() -> None:
    x = torch.randn(260, 4, generator=torch.Generator().manual_seed(1))
    x[250:] += 10
    data = Dataset(x, torch.arange(260) % 2, x[:50], torch.arange(50) % 2, 2)
    layer = nn.BatchNorm1d(4)
    module = nn.Sequential(layer, nn.Linear(4, 2))
    ours = learner(module, data)
    ours.evaluate(ours.model.theta.clone())
    torch.testing.assert_close(layer.running_mean, x.mean(0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("fraction", [0.1, 0.37])
def test_a_validation_set_has_every_class_in_proportion(fraction: float) -> None:
    x = torch.arange(1000.0)[:, None]
    data = Dataset(x, torch.from_numpy(LABELS), x[:9], torch.from_numpy(LABELS[:9]), 8)
    for seed in range(5):
        held = hold_out(data, fraction, seed).validation_y
        expected = torch.from_numpy(LABELS).bincount(minlength=8) * fraction
        assert ((held.bincount(minlength=8) - expected).abs() <= 2).all()
