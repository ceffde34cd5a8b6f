"""Arguments of rules and attacks as a library: taken with one meaning, or refused with what to pass instead."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kuiper.errors import SpecError

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_rows(value: Any, who: str, what: str = "rows", dimensions: int = 2) -> Tensor:
    """A matrix of vectors, one a row: a dense float tensor on any device with memory, without its gradient.

    Raises:
        SpecError: it is anything else.
    """
    if not isinstance(value, Tensor):
        raise SpecError(f"{who} takes {what} as a tensor, and is given {_kind(value)}", _conversion(value))
    if value.dtype not in DTYPES:
        name = str(value.dtype).removeprefix("torch.")
        remedy = ("give real and imaginary parts side by side: torch.view_as_real(rows).flatten(1)"
                  if value.is_complex() else "convert them first: rows.float()")
        raise SpecError(f"{who} takes {what} of a float type, and these are {name}", remedy)
    if value.layout is not torch.strided:
        raise SpecError(f"{who} takes dense {what}, and these are {value.layout}", "give rows.to_dense()")
    if value.device.type == "meta":
        raise SpecError(f"{who} takes {what} with values, and these are on the device meta", "give rows on a device")
    if value.dim() != dimensions:
        shape = {2: "(n, d), one vector a row", 3: "(f, k, d)"}[dimensions]
        remedy = "one vector is rows[None]" if value.dim() < dimensions else "flatten each vector: rows.flatten(1)"
        raise SpecError(f"{who} takes {what} of shape {shape}, and these are {tuple(value.shape)}", remedy)
    return value.detach()


def as_count(value: Any, name: str, least: int = 0) -> int:
    """A number of nodes: of any integer type, or a float that is whole.

    Raises:
        SpecError: it is no whole number, or below `least`.
    """
    whole = None
    if not isinstance(value, bool | np.bool_) and getattr(value, "dtype", None) is not torch.bool:
        try:
            is_whole = isinstance(value, float | np.floating) and value == int(value)
            whole = int(value) if is_whole else operator.index(value)
        except (TypeError, ValueError, OverflowError):
            whole = None
    if whole is None:
        near = f"{name}={round(value)}" if isinstance(value, float) and abs(value) < 1e9 else f"{name}=2, say"
        raise SpecError(f"{name} is {value!r}, and must be a whole number of nodes", f"write {near}")
    if whole < least:
        raise SpecError(f"{name} = {whole} is below {least}", f"{name} counts nodes: write {least} or more")
    return whole


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a numpy array of {value.dtype}"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _conversion(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return "give torch.from_numpy(rows)"
    if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
        return "give torch.stack(rows)"
    return "give torch.tensor(rows), or torch.stack(rows) of tensors"
