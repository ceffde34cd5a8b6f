"""Each attacker sends its own row with the sign turned."""

from __future__ import annotations

from torch import Tensor


def sign_flip(rows_kd: Tensor) -> Tensor:
    """-g of each attacker's own g, (k, d) -> (k, d); the input is not changed."""
    return -rows_kd
