"""Rows with a NaN or an infinity: found, counted among the f suspected, and refused beyond f."""

from __future__ import annotations

import torch
from torch import Tensor

from kuiper.errors import JobFailed


def non_finite_rows(rows_nd: Tensor) -> list[int]:
    """Indices of the rows that hold a NaN or an infinity, ascending.

    One read of the input: a row's sum is non-finite if any entry is; only rows whose sum is, be it
    for an entry or for an overflow, are looked at again.
    """
    accumulator = torch.float64 if rows_nd.dtype == torch.float64 else torch.float32
    suspects = (~rows_nd.sum(1, dtype=accumulator).isfinite()).nonzero().flatten().tolist()
    return [i for i in suspects if not rows_nd[i].isfinite().all()]


def infinitely_far(rule: str, rows_nd: Tensor, f: int) -> list[int]:
    """The non-finite rows, which a rule treats as infinitely far.

    Raises:
        JobFailed: there are more than f.
    """
    rows = non_finite_rows(rows_nd)
    refuse_beyond(rule, len(rows), len(rows_nd), f)
    return rows


def refuse_beyond(rule: str, count: int, n: int, f: int) -> None:
    """Raise JobFailed where more than f of n rows are non-finite or overflow."""
    if count > f:
        raise JobFailed(
            f"{rule}: {count} of n = {n} rows are not finite or overflow, more than f = {f}",
            "honest nodes diverged (lower the learning rate), or more nodes are Byzantine than f declares",
        )
