"""Scores of a model on the test set, and on the validation set where there is one."""

from __future__ import annotations

import torch
from torch import nn

from kuiper.data import Dataset
from kuiper.learner.flat import FlatModel

_CHUNK = 1000  # samples a forward pass
_TRUSTED = 2000  # training samples from which BatchNorm statistics are re-estimated


@torch.no_grad()
def evaluate(model: FlatModel, theta: torch.Tensor, data: Dataset) -> dict[str, float]:
    """top_1 and top_5 in percent, and the mean loss, of theta (d,); `validation_...` of the validation set.

    Always in float32, so that runs of any precision compare. BatchNorm uses the statistics that theta
    holds; where it holds none they are re-estimated from the first training samples, so that a model
    that was aggregated from many nodes is scored with statistics of its own.
    """
    model.theta.copy_(theta)
    if model.keeps_statistics:
        for name, statistic in model.statistics.items():
            if name.endswith("running_var"):
                statistic.clamp_(min=0)  # a mix that extrapolates, or an attack, can leave less than none
    else:
        _estimate_batchnorm(model.module, data.train_x[:_TRUSTED])
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


def _estimate_batchnorm(module: nn.Module, inputs: torch.Tensor) -> None:
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
    for chunk in inputs.split(_CHUNK // 4):
        if len(chunk) > 1:
            module(chunk)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
