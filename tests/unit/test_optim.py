"""Optimisers equal torch's, node by node as in a block; schedules equal torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kuiper.errors import SpecError
from kuiper.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    RMSprop,
    constant,
    cosine,
    exponential,
    multistep,
    polynomial,
    step_decay,
)  # fmt: skip

CASES = {
    "sgd": (SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "decay": (SGD(0.1, weight_decay=0.01), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01)),
    "momentum": (SGD(0.05, momentum=0.9), lambda p: torch.optim.SGD(p, 0.05, 0.9)),
    "dampening": (
        SGD(0.05, momentum=0.9, dampening=0.3, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.05, 0.9, 0.3, 0.01),
    ),
    "nesterov": (
        SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.05, 0.9, 0, 0.01, nesterov=True),
    ),
    "adam": (Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "adam-decay": (
        Adam(0.01, beta1=0.8, beta2=0.99, eps=1e-3, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.99), 1e-3, 0.1),
    ),
    "adamw": (AdamW(0.01), lambda p: torch.optim.AdamW(p, 0.01)),
    "adamw-decay": (
        AdamW(0.02, beta1=0.8, beta2=0.99, eps=1e-3, weight_decay=0.3),
        lambda p: torch.optim.AdamW(p, 0.02, (0.8, 0.99), 1e-3, 0.3),
    ),
    "rmsprop": (RMSprop(0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    "rmsprop-momentum": (
        RMSprop(0.005, alpha=0.9, eps=1e-4, momentum=0.8, weight_decay=0.05),
        lambda p: torch.optim.RMSprop(p, 0.005, 0.9, 1e-4, 0.05, 0.8),
    ),
    "rmsprop-centered": (
        RMSprop(0.01, eps=0.1, momentum=0.5, centered=True),
        lambda p: torch.optim.RMSprop(p, 0.01, 0.99, 0.1, 0, 0.5, centered=True),
    ),
    "adagrad": (Adagrad(0.05), lambda p: torch.optim.Adagrad(p, 0.05)),
    "adagrad-decay": (
        Adagrad(0.1, eps=1e-4, initial=0.5, weight_decay=0.05),
        lambda p: torch.optim.Adagrad(p, 0.1, 0, 0.05, 0.5, 1e-4),
    ),
}
each = pytest.mark.parametrize(("ours", "theirs"), CASES.values(), ids=CASES.keys())
Maker = Callable[[list[Tensor]], torch.optim.Optimizer]


def gradient(theta: Tensor, t: int) -> Tensor:
    """Of a bumpy bowl that changes with t: every entry of every node differs."""
    return theta + torch.sin(3 * theta + t + torch.arange(theta.shape[-1], dtype=theta.dtype))


def start(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@each
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=str)
def test_equals_torch(ours: Optimizer, theirs: Maker, dtype: torch.dtype, rtol: float) -> None:
    """300 steps along torch's own path, the learning rate falling by an lr_scale."""
    parameter = start(101, dtype=dtype).requires_grad_()
    reference = theirs([parameter])
    state = ours.init(parameter.detach())
    for t in range(300):
        before, slope = parameter.detach().clone(), gradient(parameter.detach(), t)
        scale = 1 / (1 + t / 100)
        for settings in reference.param_groups:
            settings["lr"] = ours.lr * scale
        parameter.grad = slope.clone()
        reference.step()
        after, state = ours.step(before, slope, state, scale)
        torch.testing.assert_close(after, parameter.detach(), rtol=rtol, atol=rtol)


@each
def test_free_running_path_equals_torch(ours: Optimizer, theirs: Maker) -> None:
    parameter = start(101, dtype=torch.float64).requires_grad_()
    theta, reference = parameter.detach().clone(), theirs([parameter])
    state = ours.init(theta)
    for t in range(300):
        parameter.grad = 0.1 * parameter.detach() + (t % 7 - 3)
        reference.step()
        theta, state = ours.step(theta, 0.1 * theta + (t % 7 - 3), state)
    torch.testing.assert_close(theta, parameter.detach(), rtol=1e-9, atol=1e-9)


@each
@pytest.mark.parametrize("d", [1, 7, 103])
def test_a_block_has_the_bits_of_its_nodes(ours: Optimizer, theirs: Maker, d: int) -> None:
    """A block, its nodes alone, and a cohort that has taken fewer steps than the rest."""
    block = start(5, d)
    state = ours.init(block)
    alone = [(block[i], ours.init(block[i])) for i in range(5)]
    for t in range(12):
        cohort = [0, 1, 2, 3, 4] if t % 3 else [1, 4]
        moved, changed = ours.step(
            block[cohort], gradient(block[cohort], t), {k: v[cohort] for k, v in state.items()}, 0.7
        )
        block = block.index_copy(0, torch.tensor(cohort), moved)
        state = {k: v.index_copy(0, torch.tensor(cohort), changed[k]) for k, v in state.items()}
        for i in cohort:
            theta, own = alone[i]
            alone[i] = ours.step(theta, gradient(theta, t), own, 0.7)
    for i, (theta, own) in enumerate(alone):
        assert torch.equal(theta, block[i])
        assert own.keys() == state.keys() and all(torch.equal(own[k], state[k][i]) for k in own)


@each
def test_nothing_is_changed_in_place(ours: Optimizer, theirs: Maker) -> None:
    theta, slope = start(3, 9), start(3, 9) + 1
    _, state = ours.step(theta, slope, ours.init(theta))
    before = [x.clone() for x in (theta, slope, *state.values())]
    after, changed = ours.step(theta, slope, state)
    assert all(torch.equal(a, b) for a, b in zip(before, (theta, slope, *state.values())))
    inputs = {x.data_ptr() for x in (theta, slope, *state.values())}
    assert not inputs & {x.data_ptr() for x in (after, *changed.values())}


def test_centered_rmsprop_survives_a_gradient_that_never_varies() -> None:
    """Its spread is then less than none by rounding, of which torch takes the root: NaN."""
    optimizer, theta = RMSprop(1e-9, alpha=0.5, centered=True), start(50)
    slope, state = theta.clone(), optimizer.init(theta)
    for _ in range(60):
        theta, state = optimizer.step(theta, slope, state)
    assert theta.isfinite().all()


@each
def test_out_takes_the_new_theta(ours: Optimizer, theirs: Maker) -> None:
    theta, slope = start(3, 9), start(3, 9) + 1
    expected, state = ours.step(theta, slope, ours.init(theta), 0.7)
    expected, _ = ours.step(expected, slope, state, 0.7)
    after, state = ours.step(theta, slope, ours.init(theta), 0.7, out=theta)
    assert after is theta
    assert torch.equal(ours.step(theta, slope, state, 0.7, out=theta)[0], expected)


@each
def test_every_tail_of_a_block_is_rounded_alike(ours: Optimizer, theirs: Maker) -> None:
    """Where a node's row begins and ends in a block's memory changes nothing, however long it is."""
    for d in range(1, 70):
        block = start(3, d)
        moved, _ = ours.step(block, gradient(block, 1), ours.init(block), 0.371)
        for row, own in zip(moved, block):
            assert torch.equal(ours.step(own, gradient(own, 1), ours.init(own), 0.371)[0], row)


def test_nesterov_needs_momentum() -> None:
    for wrong in ({}, {"momentum": 0.9, "dampening": 0.1}):
        with pytest.raises(SpecError, match="nesterov with momentum"):
            SGD(nesterov=True, **wrong)


def test_schedules_equal_torch() -> None:
    steps, schedulers = 40, torch.optim.lr_scheduler
    cases = [
        (constant, {}, lambda o: schedulers.ConstantLR(o, 1.0)),
        (step_decay, {"every": 6, "factor": 0.5}, lambda o: schedulers.StepLR(o, 6, 0.5)),
        (multistep, {"milestones": [3, 20]}, lambda o: schedulers.MultiStepLR(o, [3, 20])),
        (cosine, {"floor": 0.1}, lambda o: schedulers.CosineAnnealingLR(o, steps, 0.1)),
        (exponential, {"factor": 0.9}, lambda o: schedulers.ExponentialLR(o, 0.9)),
        (polynomial, {"power": 2.0}, lambda o: schedulers.PolynomialLR(o, steps, 2.0)),
        (polynomial, {"floor": 0.2}, lambda o: schedulers.LinearLR(o, 1.0, 0.2, steps)),
        (constant, {"warmup": 8}, lambda o: schedulers.LinearLR(o, 1 / 8, total_iters=7)),
        (
            multistep,
            {"milestones": [3, 20], "warmup": 8},
            lambda o: schedulers.ChainedScheduler(
                [schedulers.LinearLR(o, 1 / 8, total_iters=7), schedulers.MultiStepLR(o, [3, 20])], o
            ),
        ),
    ]
    for ours, settings, make in cases:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
        scheduler = make(optimizer)
        for t in range(steps + 1):
            expected = scheduler.get_last_lr()[0]
            assert ours(t, steps, **settings) == pytest.approx(expected, rel=1e-9), (ours, t)
            optimizer.step()
            scheduler.step()
    assert step_decay(10**6, steps, every=5, factor=0.95, floor=0.0025) == 0.0025
    assert exponential(10**6, steps, factor=0.95, floor=0.0025) == 0.0025
    for falling in (cosine, polynomial):
        assert falling(2 * steps, steps, floor=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("schedule", [constant, step_decay, multistep, exponential, polynomial, cosine])
def test_every_schedule_warms_up(schedule) -> None:
    ratios = [schedule(t, 100, warmup=4) / schedule(t, 100) for t in range(10)]
    assert ratios == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])
    assert schedule(0, 100, warmup=0) == schedule(0, 100) == 1
