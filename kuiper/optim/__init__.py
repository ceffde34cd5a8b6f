"""Optimisers and schedules as pure functions of (theta, gradient, state).

An optimiser acts elementwise on one node's vector (d,) or a block's (k, d), with the same bits.
"""

from kuiper.optim.adagrad import Adagrad
from kuiper.optim.adam import Adam, AdamW
from kuiper.optim.apart import Apart
from kuiper.optim.base import Optimizer, State
from kuiper.optim.rmsprop import RMSprop
from kuiper.optim.schedules import (
    constant,
    cosine,
    exponential,
    multistep,
    polynomial,
    step_decay,
)
from kuiper.optim.sgd import SGD

__all__ = [
    "SGD", "Adagrad", "Adam", "AdamW", "Apart", "Optimizer", "RMSprop", "State",
    "constant", "cosine", "exponential", "multistep", "polynomial", "step_decay",
]  # fmt: skip
