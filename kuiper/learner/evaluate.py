"""Scores of a model on the test set, and on the validation set where there is one."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from kuiper.data import Dataset
from kuiper.data.sampling import stratified_order
from kuiper.learner.flat import FlatModel

_CHUNK = 1000  # samples a forward pass
_TRUSTED = 2000  # training samples from which BatchNorm statistics are re-estimated
_BATCH = 250  # of them a forward pass


def trusted_batches(labels: torch.Tensor, seed: int) -> list[torch.Tensor]:
    """Batches of indices of the training samples from which BatchNorm statistics are re-estimated.

    They are drawn by seed and spread over the classes, each batch by itself: files are often sorted by class,
    and the variance within a class is not that of the set. Batches are of one size (or one less), because
    every batch counts the same.

    Args:
        labels: (N,) of the training set.
        seed: of the job.
    """
    order = stratified_order(labels.cpu().numpy(), seed, "trusted samples")[:_TRUSTED]
    batches = np.array_split(order, -(-len(order) // _BATCH))
    return [torch.from_numpy(batch).to(labels.device) for batch in batches if len(batch) > 1]


@torch.no_grad()
def evaluate(model: FlatModel, theta: torch.Tensor, data: Dataset, trusted: list[torch.Tensor]) -> dict[str, float]:
    """top_1 and top_5 in percent, and the mean loss, of theta (d,); `validation_...` of the validation set.

    Always in float32, so that runs of any precision compare. BatchNorm uses the statistics that theta
    holds; where it holds none they are re-estimated from training samples, so that a model that was
    aggregated from many nodes is scored with statistics of its own.

    Args:
        trusted: batches of indices of these samples, as `trusted_batches` draws them.
    """
    model.theta.copy_(theta)
    if model.keeps_statistics:
        for name, statistic in model.statistics.items():
            if name.endswith("running_var"):
                statistic.clamp_(min=0)  # a mix that extrapolates, or an attack, can leave less than none
    else:
        _estimate_batchnorm(model.module, data.train_x, trusted)
    model.module.eval()
    scores = _scores(model, data.test_x, data.test_y)
    if data.validation_x is not None:
        held_out = _scores(model, data.validation_x, data.validation_y)
        scores |= {f"validation_{name}": value for name, value in held_out.items()}
    return scores


def _scores(model: FlatModel, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Of the model as it stands, in evaluation mode."""
    first = fifth = loss = 0.0
    for start in range(0, len(labels), _CHUNK):
        y = labels[start : start + _CHUNK]
        logits = model.module(inputs[start : start + _CHUNK])
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == y[:, None]
        first += ranked[:, 0].sum().item()
        fifth += ranked.any(1).sum().item()
        loss += model.loss(logits, y).item() * len(y)
    total = len(labels)
    return {"top_1": 100.0 * first / total, "top_5": 100.0 * fifth / total, "loss": loss / total}


def _estimate_batchnorm(module: nn.Module, inputs: torch.Tensor, batches: list[torch.Tensor]) -> None:
    layers = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches that follow
    module.eval()  # what draws, such as dropout, must not: a score is a function of theta
    for layer in layers:
        layer.train()
    for batch in batches:
        module(inputs.index_select(0, batch))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
