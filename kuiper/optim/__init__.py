"""Optimisers and schedules as pure functions of (theta, gradient, state).

An optimiser acts elementwise on one node's vector (d,) or a block's (k, d), with the same bits.
"""

from kuiper.optim.adam import Adam
from kuiper.optim.base import Optimizer, State
from kuiper.optim.schedules import constant, cosine, multistep, step_decay
from kuiper.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "State", "constant", "cosine", "multistep", "step_decay"]
