"""The learner: flat views, keyed batches, two engines that agree, and scores that change nothing."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from kuiper import random
from kuiper.attacks import alie, label_flip
from kuiper.attacks.adversary import Adversary
from kuiper.data import Dataset, hold_out
from kuiper.data.synthetic import synthetic
from kuiper.errors import SpecError
from kuiper.learner import Batches, FlatModel, Learner
from kuiper.learner.chain import Chain
from kuiper.learner.losses import LOSSES, VMAPPED
from kuiper.models.mlp import mlp
from kuiper.models.torchvision_model import torchvision_model
from kuiper.optim import SGD, Adam, Apart

N, BATCH = 5, 8
HONEST = Adversary(np.empty(0, np.int64))
NODES = np.arange(N)
DATA = synthetic(1, samples=157, test_samples=60, features=6, classes=4)


def images() -> Dataset:
    x = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = (x.flatten(1).sum(1) * 7).long() % 3
    return Dataset(x[:60], y[:60], x[60:], y[60:], 3, augment=("random_crop", "random_flip"))


def learner(module: nn.Module, data: Dataset = DATA, engine: str = "sequential", loss: str = "cross_entropy",
            adversary: Adversary = HONEST, **how: Any) -> Learner:
    order = random.permutation(1, "shards", 0, 0, len(data.train_y))
    shards = np.array_split(order, N)
    return Learner(FlatModel(module, loss, **how), data, Batches(data, shards, BATCH, 1, adversary), engine)


def dense(dropout: float = 0.0) -> nn.Module:
    random.seed_torch(1, "initial weights")
    return mlp(DATA.shape, DATA.classes, hidden=[9], dropout=dropout)


def convolutional() -> nn.Module:
    """With BatchNorm, and dropout of both kinds."""
    random.seed_torch(1, "initial weights")
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten(),
                         nn.Linear(144, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))


def samples(batches: Batches, node: int, number: int) -> np.ndarray:
    """(b,) indices of one node's batch."""
    return batches.indices(np.array([node]), number)[0]


def points(size: int, count: int = N) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(3)) * 0.3


# -- flat model ----------------------------------------------------------------------------


def test_parameters_are_views_into_one_buffer() -> None:
    module = dense()
    before = torch.cat([p.detach().reshape(-1).clone() for p in module.parameters()])
    model = FlatModel(module, "cross_entropy")
    assert torch.equal(model.theta, before) and model.size == 6 * 9 + 9 + 9 * 4 + 4
    model.theta.copy_(torch.arange(model.size))
    assert torch.equal(torch.cat([p.reshape(-1) for p in module.parameters()]), model.theta)
    assert all(torch.equal(*both) for both in zip(model.parts, module.parameters(), strict=True))
    named = dict(module.named_parameters())
    for name, part in model.unflatten(points(model.size)).items():
        assert part.shape == (N, *named[name].shape)
        assert torch.equal(part[2], model.unflatten(points(model.size)[2])[name])


def shared_layer() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)


def frozen_layer() -> nn.Module:
    module = dense()
    module[1].weight.requires_grad_(False)
    return module


@pytest.mark.parametrize("make, written_out", [
    (dense, True), (partial(mlp, DATA.shape, DATA.classes, hidden=[7, 5]), True),
    (partial(mlp, DATA.shape, DATA.classes, hidden=[]), True),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU()), True),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4, bias=False)), False),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh()), False),
    (lambda: nn.Linear(6, 4), False), (shared_layer, False), (frozen_layer, False), (nn.Sequential, False),
])
def test_a_chain_of_dense_layers_has_torchs_gradients(make: Callable[[], nn.Module],
                                                      written_out: bool) -> None:
    module = make()
    assert (Chain.of(module) is not None) == written_out
    if not list(module.parameters()):
        return
    model = FlatModel(module, "cross_entropy")
    loss, gradients = model.gradients(DATA.train_x[:9], DATA.train_y[:9])
    expected = functional.cross_entropy(module(DATA.train_x[:9]), DATA.train_y[:9])
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    theirs = dict(zip(map(id, trained), torch.autograd.grad(expected, trained), strict=True))
    torch.testing.assert_close(loss, expected.detach())
    for ours, parameter in zip(gradients, module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.get(id(parameter), torch.zeros_like(parameter)))


TORCHS = {  # loss -> torch's own, of what a model says, its labels, and those as ones and zeros
    "cross_entropy": lambda out, labels, ones: functional.cross_entropy(out, labels),
    "nll": lambda out, labels, ones: functional.nll_loss(out, labels),
    "mse": lambda out, labels, ones: functional.mse_loss(out, ones),
    "bce": lambda out, labels, ones: functional.binary_cross_entropy_with_logits(out, ones),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_torchs(loss: str) -> None:
    """In value and gradient, of small outputs and of large ones."""
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 3])
    for scale in (1.0, 60.0):
        logits = torch.randn(7, 4, generator=torch.Generator().manual_seed(1)) * scale
        ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
        value = LOSSES[loss](ours, labels)
        torch.testing.assert_close(value, VMAPPED[loss](ours, labels))
        expected = TORCHS[loss](theirs, labels, functional.one_hot(labels, 4).float())
        torch.testing.assert_close(value, expected)
        value.backward()
        expected.backward()
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_nll_of_logits_is_refused_before_the_first_step() -> None:
    with pytest.raises(SpecError, match="nll takes log-probabilities"):
        learner(dense(), loss="nll").evaluate(points(DATA.train_x.shape[1] * 9 + 9 + 9 * 4 + 4, 1)[0])
    ours, theirs = (learner(nn.Sequential(dense(), nn.LogSoftmax(1)), loss=loss)
                    for loss in ("nll", "cross_entropy"))
    theta = points(ours.size, 1)[0]
    assert ours.evaluate(theta) == pytest.approx(theirs.evaluate(theta))
    torch.testing.assert_close(ours.gradients(theta, NODES, 1)[0], theirs.gradients(theta, NODES, 1)[0])


# -- batches -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 8, 40], ids=lambda size: f"batch-{size}")
def test_epochs_are_walked_without_omission_or_repeat(size: int) -> None:
    """Shards of 31 and 32: batches wrap over epochs, and one of 40 is more than an epoch."""
    shards = np.array_split(random.permutation(1, "shards", 0, 0, len(DATA.train_y)), N)
    batches = Batches(DATA, shards, size, 1, HONEST)
    epochs = 9
    for node in (0, 4):
        held = len(shards[node])
        numbers = range(1, held * epochs // size + 1)
        walked = np.concatenate([samples(batches, node, number) for number in numbers])
        whole = len(walked) // held
        assert whole >= epochs - 2
        orders = [walked[epoch * held : (epoch + 1) * held] for epoch in range(whole)]
        assert all(sorted(order) == sorted(shards[node]) for order in orders)
        assert len({tuple(order) for order in orders}) == whole  # a fresh order each epoch
        assert set(Counter(walked[whole * held :]).values()) <= {1}


def test_a_batch_is_a_function_of_its_key() -> None:
    """Whatever was asked for before; nodes with equal shards draw apart."""
    ordered, shuffled = (learner(dense()).batches for _ in range(2))
    keys = [(node, number) for node in range(N) for number in range(1, 12)]
    expected = {key: samples(ordered, *key) for key in keys}
    for place in np.random.default_rng(0).permutation(len(keys)):
        np.testing.assert_array_equal(samples(shuffled, *keys[place]), expected[keys[place]])
    block = shuffled.indices(NODES, 3, count=9).reshape(N, 9, BATCH)  # over two ends of an epoch
    assert all((block[node, number - 3] == expected[node, number]).all() for node, number in keys if number > 2)
    twins = Batches(DATA, [np.arange(30)] * 2, BATCH, 1, HONEST)
    assert (twins.indices(np.arange(2), 1)[0] != twins.indices(np.arange(2), 1)[1]).any()


def test_only_byzantine_nodes_flip_their_labels() -> None:
    lying = Adversary(np.array([1, 3]), "labels", label_flip)
    honest, mixed = learner(dense()).batches, learner(dense(), adversary=lying).batches
    (x, y), (x_seen, y_seen) = honest.stacked(NODES, 2), mixed.stacked(NODES, 2)
    assert torch.equal(x, x_seen)
    for node in range(N):
        assert torch.equal(y_seen[node], DATA.classes - 1 - y[node] if node in (1, 3) else y[node])


@pytest.mark.parametrize("data", [DATA, images()], ids=["tabular", "augmented"])
def test_a_walk_is_the_same_batches_as_a_block(data: Dataset) -> None:
    batches = learner(dense(), data, adversary=Adversary(np.array([1, 3]), "labels", label_flip)).batches
    walks = [list(walk) for walk in batches.walks(NODES, range(2, 5))]
    for place, number in enumerate(range(2, 5)):
        x, y = batches.stacked(NODES, number)
        for node in range(N):
            assert torch.equal(walks[node][place][0], x[node]) and torch.equal(walks[node][place][1], y[node])


@pytest.mark.parametrize("engine", ["sequential", "batched"])
@pytest.mark.parametrize("local_steps", [None, 2])
def test_attackers_that_know_only_their_own_data(engine: str, local_steps: int | None) -> None:
    """Their rows are made of those of batches of their own; nobody else's change, whoever is beside them."""
    adversary = Adversary(np.array([1, 3]), "batches", partial(alie, z=1.5), batches=3, nodes=N)
    honest, attacked = (learner(dense(), engine=engine, adversary=one) for one in (HONEST, adversary))
    theta = honest.model.theta.clone()

    def rows(of: Learner, nodes: np.ndarray, number: int) -> torch.Tensor:
        if local_steps is None:
            return of.gradients(theta, nodes, number)[0]
        return of.updates(theta, nodes, (number - 1) * local_steps + 1, local_steps, SGD(0.1), 1.0)[0]

    for number in (1, 4):
        expected = rows(honest, NODES, number)
        for node in adversary.byzantine:
            own = [rows(honest, np.array([node]), 3 * (number - 1) + batch) for batch in (1, 2, 3)]
            expected[node] = alie(torch.cat(own), 1, z=1.5)[0]
        torch.testing.assert_close(rows(attacked, NODES, number), expected)
        torch.testing.assert_close(rows(attacked, NODES[2:4], number), expected[2:4])


# -- engines -------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("own", [False, True], ids=["shared-model", "own-models"])
def test_engines_agree_within_1e_4(own: bool, loss: str) -> None:
    sequential, batched = (learner(dense(), engine=engine, loss=loss) for engine in ("sequential", "batched"))
    thetas = points(sequential.size) if own else points(sequential.size, 1)[0]
    rows, losses = sequential.gradients(thetas, NODES, batch=3)
    rows_too, losses_too = batched.gradients(thetas, NODES, batch=3)
    torch.testing.assert_close(rows_too, rows, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses_too, losses, rtol=1e-4)
    assert losses_too.dtype == np.float64 and not rows_too.requires_grad


def test_batched_losses_import_nothing() -> None:
    """Under vmap some of torch's own import a compiler first: seconds, in every process of a job."""
    program = (
        "import sys, torch\n"
        "from kuiper.learner.losses import VMAPPED\n"
        "outputs = torch.randn(3, 5, 4).log_softmax(2).requires_grad_()\n"
        "before = set(sys.modules)\n"
        "for loss in VMAPPED.values():\n"
        "    values = torch.func.vmap(loss)(outputs, torch.zeros(3, 5, dtype=torch.int64))\n"
        "    torch.autograd.grad(values.sum(), outputs)\n"
        "sys.exit(set(sys.modules) != before)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_gradient_is_torchs() -> None:
    ours = learner(dense())
    theta = points(ours.size, 1)[0]
    rows, losses = ours.gradients(theta, NODES[2:3], batch=4)
    module = dense()
    nn.utils.vector_to_parameters(theta, module.parameters())
    index = samples(ours.batches, 2, 4)
    loss = functional.cross_entropy(module(DATA.train_x[index]), DATA.train_y[index])
    theirs = torch.autograd.grad(loss, list(module.parameters()))
    torch.testing.assert_close(rows[0], torch.cat([g.reshape(-1) for g in theirs]))
    assert losses[0] == pytest.approx(loss.item())


@pytest.mark.parametrize("own", [False, True], ids=["shared-model", "own-models"])
def test_a_node_alone_computes_the_same_bits_as_in_a_block(own: bool) -> None:
    """Dropout, BatchNorm and augmentation included: placement must not change a trajectory."""
    ours = learner(convolutional(), images())
    thetas = points(ours.size) if own else points(ours.size, 1)[0]
    block, block_losses = ours.gradients(thetas, NODES, batch=2)
    for node in (3, 0, 4):
        only = slice(node, node + 1)
        alone, loss = ours.gradients(thetas[only] if own else thetas, NODES[only], batch=2)
        assert torch.equal(alone[0], block[node]) and loss[0] == block_losses[node]


def test_the_same_batch_asked_twice_is_the_same() -> None:
    """At the same point the same bits; at another, the same samples, dropout and augmentation."""
    ours = learner(convolutional(), images())
    seen: list[torch.Tensor] = []
    dropped: list[torch.Tensor] = []
    ours.model.module.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    ours.model.module[-2].register_forward_hook(lambda _, args, out: dropped.append(out == 0))
    here, there = points(ours.size, 2)
    first, _ = ours.gradients(here, NODES[1:2], batch=2)
    ours.gradients(there, NODES[1:2], batch=2)
    ours.gradients(here, NODES, batch=5)
    again, _ = ours.gradients(here, NODES[1:2], batch=2)
    assert torch.equal(first, again)
    assert torch.equal(seen[0], seen[1]) and torch.equal(dropped[0], dropped[1])
    other_batch = 2 + 1  # of node 1, in the block
    assert not torch.equal(seen[0], seen[other_batch]) and not torch.equal(dropped[0], dropped[other_batch])
    augmented, index = seen[0], samples(ours.batches, 1, 2)
    assert not torch.equal(augmented, ours.data.train_x[index])


class Coin(nn.Module):
    """Draws without being a dropout layer, as stochastic depth does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.empty(len(x), 1).bernoulli_(0.5) if self.training else x


def test_whatever_draws_is_keyed() -> None:
    ours = learner(nn.Sequential(Coin(), dense()))
    theta = points(ours.size, 1)[0]
    block, _ = ours.gradients(theta, NODES, batch=1)
    torch.rand(17)
    alone, _ = ours.gradients(theta, NODES[3:4], batch=1)
    assert torch.equal(alone[0], block[3])


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's, before it comes to what draws
@pytest.mark.parametrize("drawing", ["dropout", "a module", "torchvision's stochastic depth"])
def test_batched_refuses_what_it_cannot_key(drawing: str) -> None:
    module, data = nn.Sequential(Coin(), dense()), DATA
    if drawing == "dropout":
        module = dense(dropout=0.5)
    elif drawing != "a module":
        x = torch.zeros(10, 3, 32, 32)
        data = Dataset(x, torch.zeros(10, dtype=torch.int64), x, torch.zeros(10, dtype=torch.int64), 2)
        module = torchvision_model(data.shape, 2, name="efficientnet_b0")
    with pytest.raises(SpecError, match="batched cannot compute .* random") as caught:
        learner(module, data, engine="batched")
    assert "sequential" in caught.value.remedy


# -- BatchNorm's statistics ------------------------------------------------------------------


def normalised() -> nn.Module:
    """Convolution and linear layer with BatchNorm; nothing draws."""
    random.seed_torch(1, "initial weights")
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Linear(144, 8), nn.BatchNorm1d(8, momentum=0.3), nn.Linear(8, 3))


def statistics(module: nn.Module) -> torch.Tensor:
    return torch.cat([b.flatten() for b in module.buffers() if b.is_floating_point()])


def test_statistics_lie_behind_the_parameters_where_asked() -> None:
    module = normalised()
    plain, kept = FlatModel(normalised(), "mse"), FlatModel(module, "mse", buffers=True)
    assert (kept.parameters, kept.size) == (plain.size, plain.size + 2 * (4 + 8)) and kept.keeps_statistics
    assert torch.equal(kept.theta[: plain.size], plain.theta) and not plain.keeps_statistics
    assert torch.equal(statistics(module), kept.theta[plain.size :])
    module(images().train_x)
    assert torch.equal(statistics(module), kept.theta[plain.size :]) and kept.theta[plain.size :].min() != 0
    without = FlatModel(dense(), "mse", buffers=True)
    assert without.size == without.parameters == FlatModel(dense(), "mse").size
    with pytest.raises(SpecError, match="layer of 0.running_mean has momentum None"):
        FlatModel(nn.Sequential(nn.BatchNorm1d(3, momentum=None)), "mse", buffers=True)


@pytest.mark.parametrize("buffers", [True, False], ids=["kept", "re-estimated"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_engines_agree_on_batchnorm(precision: torch.dtype, buffers: bool) -> None:
    sequential, batched = (learner(normalised(), images(), engine, buffers=buffers, precision=precision)
                           for engine in ("sequential", "batched"))
    thetas = points(sequential.size).abs_()
    assert sequential.evaluate(thetas[0]) == batched.evaluate(thetas[0])  # and train on as before
    rows, losses = sequential.gradients(thetas, NODES, batch=3)
    rows_too, losses_too = batched.gradients(thetas, NODES, batch=3)
    near = {"rtol": 1e-3, "atol": 1e-5} if precision is torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(rows_too, rows, **near)
    np.testing.assert_allclose(losses_too, losses, rtol=1e-2)
    assert rows.dtype == rows_too.dtype == torch.float32 and rows[:, sequential.parameters :].any() == buffers


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9, weight_decay=0.01), Adam(0.01, eps=0.1)],
                         ids=["sgd", "adam"])
@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_statistics_of_one_node_are_those_of_training_with_torch(engine: str, optimizer: Any) -> None:
    """Step by step as gradients, all at once as an update; the statistics know no learning rate."""
    data = replace(images(), augment=())
    ours, module, steps = learner(normalised(), data, engine, buffers=True), normalised(), 6
    apart = Apart(optimizer, ours.parameters)
    theta = start = ours.model.theta.clone()
    state = apart.init(theta)
    theirs = (torch.optim.SGD(module.parameters(), 0.05, 0.9, weight_decay=0.01)
              if isinstance(optimizer, SGD) else torch.optim.Adam(module.parameters(), 0.005, eps=0.1))
    for step in range(1, steps + 1):
        rows, _ = ours.gradients(theta, NODES[2:3], batch=step)
        theta, state = apart.step(theta, rows[0], state, lr_scale=0.5)
        index = samples(ours.batches, 2, step)
        theirs.zero_grad()
        functional.cross_entropy(module(data.train_x[index]), data.train_y[index]).backward()
        theirs.step()
    expected = torch.cat([FlatModel(module, "mse").theta, statistics(module)])
    torch.testing.assert_close(theta, expected, rtol=1e-3, atol=1e-4)
    (update,), _ = ours.updates(start, NODES[2:3], 1, steps, apart, lr_scale=0.5)
    torch.testing.assert_close(start + update, expected, rtol=1e-3, atol=1e-4)
    scores = ours.evaluate(theta)
    with torch.no_grad():
        loss = functional.cross_entropy(module.eval()(data.test_x), data.test_y)
    assert scores["loss"] == pytest.approx(loss.item(), rel=1e-3)


def test_a_variance_below_zero_is_none() -> None:
    ours = learner(normalised(), images(), buffers=True)
    theta = ours.model.theta.clone()
    theta[-8:] = -1.0  # the last layer's variances
    scores = ours.evaluate(theta)
    assert np.isfinite(scores["loss"]) and theta[-1] == -1.0
    theta[-8:] = 0.0
    assert ours.evaluate(theta) == scores


# -- precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_bfloat16_computes_less_exactly_and_keeps_float32(engine: str) -> None:
    exact, rough = (learner(dense(), engine=engine, precision=precision)
                    for precision in (torch.float32, torch.bfloat16))
    theta = points(exact.size, 1)[0]
    (rows, losses), (rows_too, losses_too) = (one.gradients(theta, NODES, batch=3) for one in (exact, rough))
    assert rows_too.dtype == torch.float32 and not torch.equal(rows, rows_too)
    assert (rows - rows_too).norm() < 0.05 * rows.norm()  # each product rounds by up to 2^-9
    np.testing.assert_allclose(losses_too, losses, rtol=0.01)
    (update,), _ = rough.updates(theta, NODES[:1], 1, 20, SGD(0.001), 1.0)
    assert update.bfloat16().float().ne(update).any()  # steps too small for bfloat16 are not lost
    assert exact.evaluate(theta) == rough.evaluate(theta)


def test_bfloat16_is_a_function_of_the_node_too() -> None:
    ours = learner(convolutional(), images(), buffers=True, precision=torch.bfloat16)
    theta = points(ours.size, 1)[0].abs_()
    block, _ = ours.gradients(theta, NODES, batch=2)
    alone, _ = ours.gradients(theta, NODES[3:4], batch=2)
    assert torch.equal(alone[0], block[3])


# -- updates -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sequential", "batched"])
def test_updates_are_local_sgd(engine: str) -> None:
    """Against the loop written out with torch's own optimiser, which starts afresh on every node."""
    ours = learner(dense(), engine=engine)
    theta, first, local_steps = points(ours.size, 1)[0], 7, 5
    settings = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}
    rows, losses = ours.updates(theta, NODES, first, local_steps, SGD(**settings), lr_scale=0.5)
    for node in NODES:
        module, seen = dense(), []
        nn.utils.vector_to_parameters(theta.clone(), module.parameters())
        optimizer = torch.optim.SGD(module.parameters(), **settings | {"lr": 0.1})
        for number in range(first, first + local_steps):
            index = samples(ours.batches, node, number)
            loss = functional.cross_entropy(module(DATA.train_x[index]), DATA.train_y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen.append(loss.item())
        moved = nn.utils.parameters_to_vector(module.parameters()).detach() - theta
        torch.testing.assert_close(rows[node], moved, rtol=1e-4, atol=1e-6)
        assert losses[node] == pytest.approx(np.mean(seen), rel=1e-5)
    again, _ = ours.updates(theta, NODES[4:], first, local_steps, SGD(**settings), lr_scale=0.5)
    torch.testing.assert_close(again[0], rows[4], rtol=1e-5, atol=1e-7)


# -- evaluation ----------------------------------------------------------------------------


def test_scores_are_those_of_the_definition() -> None:
    ours = learner(dense())
    theta = points(ours.size, 1)[0]
    scores = ours.evaluate(theta)
    module = dense()
    nn.utils.vector_to_parameters(theta, module.parameters())
    logits = module(DATA.test_x)
    assert scores["top_1"] == pytest.approx(100 * (logits.argmax(1) == DATA.test_y).float().mean().item())
    assert scores["top_5"] == 100.0  # of four classes
    assert scores["loss"] == pytest.approx(functional.cross_entropy(logits, DATA.test_y).item(), rel=1e-5)


def test_a_validation_set_is_apart_from_all_else() -> None:
    data = hold_out(DATA, 0.2, seed=1)
    assert (len(data.train_y), len(data.validation_y), len(data.test_y)) == (126, 31, 60)
    both = torch.cat([data.train_x, data.validation_x])
    whole, parts = (Counter(map(tuple, x.tolist())) for x in (DATA.train_x, both))
    assert whole == parts and torch.equal(data.test_x, DATA.test_x)
    assert torch.equal(hold_out(DATA, 0.2, 1).validation_x, data.validation_x)
    assert not torch.equal(hold_out(DATA, 0.2, 2).validation_x, data.validation_x)
    ours, plain = learner(dense(), data), learner(dense())
    theta = points(ours.size, 1)[0]
    scores, expected = ours.evaluate(theta), plain.evaluate(theta)
    as_test = replace(DATA, test_x=data.validation_x, test_y=data.validation_y)
    held_out = learner(dense(), as_test).evaluate(theta)
    assert scores == expected | {f"validation_{name}": value for name, value in held_out.items()}
    for fraction in (0.001, 0.999):
        with pytest.raises(SpecError, match="which empties a set"):
            hold_out(DATA, fraction, 1)


def test_evaluation_is_a_function_of_theta_and_leaves_training_alone() -> None:
    ours, data = learner(convolutional(), images()), images()
    here, there = points(ours.size, 2)
    undisturbed = [ours.gradients(here, NODES, batch=b)[0] for b in (1, 2)]
    scores = ours.evaluate(here)
    ours.evaluate(there)
    after = [ours.gradients(here, NODES, batch=b)[0] for b in (1, 2)]
    assert all(torch.equal(a, b) for a, b in zip(undisturbed, after, strict=True))
    torch.manual_seed(99)  # no dropout is drawn while statistics are estimated
    assert ours.evaluate(here) == scores
    fresh = learner(convolutional(), images())
    assert fresh.evaluate(here) == scores  # and nothing is left of what was trained before
    # By hand: statistics of the training set as the network sees it when it is scored.
    module = convolutional().eval()
    nn.utils.vector_to_parameters(here, module.parameters())
    with torch.no_grad():
        hidden = module[0](data.train_x)
        module[1].running_mean, module[1].running_var = hidden.mean((0, 2, 3)), hidden.var((0, 2, 3))
        hidden = module[:6](data.train_x)
        module[6].running_mean, module[6].running_var = hidden.mean(0), hidden.var(0)
        loss = functional.cross_entropy(module(data.test_x), data.test_y)
    assert scores["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_a_batchnorm_model_learns() -> None:
    data = images()
    easy = (data.train_x[:, 0, 0, 0] > 0.5).long(), (data.test_x[:, 0, 0, 0] > 0.5).long()
    data = replace(data, train_y=easy[0], test_y=easy[1], classes=2, augment=())
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    random.seed_torch(1, "initial weights")
    ours, optimizer = learner(module, data), SGD(lr=0.5)
    theta = ours.model.theta.clone()
    before = ours.evaluate(theta)["loss"]
    for step in range(1, 61):
        rows, _ = ours.gradients(theta, NODES, batch=step)
        theta, _ = optimizer.step(theta, rows.mean(0), {})
    assert ours.evaluate(theta)["loss"] < 0.8 * before
