"""Attackers that pass for an honest node."""

from __future__ import annotations

import torch
from torch import Tensor

from kuiper.attacks._moments import mean
from kuiper.errors import JobFailed


def mimic(honest_hd: Tensor, count: int, *, target: int = 0, warm_up: int = 0,
          state: dict[str, Tensor] | None = None) -> Tensor:
    """All attackers copy one honest row: it counts too much (Karimireddy, He & Jaggi 2022, section 3.2).

    Args:
        honest_hd: (h, d), h >= 1; not changed.
        count: attackers.
        target: index of the honest row, modulo h.
        warm_up: calls during which the attackers look for a better target, the row that lies farthest along
            the direction in which the honest rows differ most (appendix B: running means of the rows and,
            by Oja's rule, of that direction). 0 keeps `target`.
        state: holds `calls`, `mean` (d,) and `along` (d,) of the search, and `target`; None keeps nothing.

    Returns:
        (count, d) in the input's dtype: one row expanded, to be copied by who writes to it.

    Raises:
        JobFailed: there is no honest row.
    """
    if not len(honest_hd):
        raise JobFailed("mimic found no honest row in the gather",
                        "raise the quorum or lower num_byzantine: some gathered rows must be honest")
    if warm_up:
        target = _searched(honest_hd, target, warm_up, {} if state is None else state)
    return honest_hd[target % len(honest_hd)].clone().expand(count, -1)


def _searched(honest_hd: Tensor, target: int, warm_up: int, state: dict[str, Tensor]) -> int:
    calls = int(state.get("calls", torch.tensor(0)))
    if calls >= warm_up:
        return int(state["target"])
    weight = 1 / (calls + 1)
    mean_d = weight * mean(honest_hd)
    if calls:
        mean_d += (1 - weight) * state["mean"]
    centred_hd = honest_hd.double() - mean_d
    along_d = state["along"] if calls else centred_hd[int(centred_hd.square().sum(1).argmax())]
    pushed_d = centred_hd.T @ (centred_hd @ along_d)
    along_d = (1 - weight) * along_d + weight * pushed_d / pushed_d.norm().clamp_min(1e-300)
    along_d = along_d / along_d.norm().clamp_min(1e-300)
    best = int((centred_hd @ along_d).abs().argmax())
    state.update(calls=torch.tensor(calls + 1), mean=mean_d, along=along_d, target=torch.tensor(best))
    return best
