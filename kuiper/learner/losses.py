"""Mean losses of a batch: what a model says (B, classes) at labels (B,)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from kuiper.errors import SpecError


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of logits (B, classes) at labels (B,)."""
    return functional.cross_entropy(logits, labels)


def gathered_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same in operations that vmap knows; torch's own imports a decomposition first, for 2.5 s."""
    return -functional.log_softmax(logits, 1).gather(1, labels[:, None]).mean()


def nll(log_probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of log-probabilities (B, classes) at labels (B,).

    For models that end in log_softmax. For any other it has no lower bound, and training it would
    look like progress; scores are computed before the first step, so the mistake ends a run there.

    Raises:
        SpecError: while scoring, a sample's probabilities do not sum to 1.
    """
    if not torch.is_grad_enabled() and log_probabilities.logsumexp(1).abs().max() > 1e-2:
        raise SpecError("loss: nll takes log-probabilities, and those of this model do not sum to 1",
                        "kuiper's own models output logits: use loss: cross_entropy, which is the same")
    return -log_probabilities.gather(1, labels[:, None]).mean()


def mse(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean squared error of logits (B, classes) against one-hot labels (B,)."""
    return functional.mse_loss(logits, _one_hot(logits, labels))


def bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy of logits (B, classes) against one-hot labels (B,): one against the rest."""
    return (functional.softplus(logits) - logits * _one_hot(logits, labels)).mean()


def _one_hot(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Labels (B,) as ones and zeros like logits (B, classes)."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    return (labels[:, None] == classes).to(logits.dtype)


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross_entropy": cross_entropy, "nll": nll, "mse": mse, "bce": bce}
VMAPPED = LOSSES | {"cross_entropy": gathered_cross_entropy}
"""The same, under vmap."""
