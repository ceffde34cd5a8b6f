"""Memory that processes share: anonymous files that whoever inherits the descriptor maps."""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Sequence

import torch

ALIGN = 64  # bytes, of every tensor


class Shared:
    """One piece of shared memory. It grows when a larger tensor is asked for; pages nobody wrote take no memory.

    Args:
        descriptor: of a file made by `os.memfd_create`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None
        self._lent: weakref.ref[memoryview] | None = None
        self._address = 0

    def tensor(self, shape: Sequence[int], dtype: torch.dtype = torch.float32, offset: int = 0) -> torch.Tensor:
        """A tensor of this memory, from `offset` bytes on; its values are what any process last wrote there."""
        count = math.prod(shape)
        end = max(offset + count * dtype.itemsize, 1)
        if self._map is None or len(self._map) < end:
            if os.fstat(self._descriptor).st_size < end:
                os.ftruncate(self._descriptor, end)
            self._map = mmap.mmap(self._descriptor, os.fstat(self._descriptor).st_size)
        if not count:
            return torch.empty(*shape, dtype=dtype)
        view = memoryview(self._map)
        self._lent = weakref.ref(view)
        tensor = torch.frombuffer(view, dtype=dtype, count=count, offset=offset).view(*shape)
        self._address = tensor.data_ptr() - offset
        return tensor

    @property
    def lent(self) -> bool:
        """Whether the last tensor, or anything that looks into it, is still held in this process."""
        return self._lent is not None and self._lent() is not None

    def holds(self, rows: torch.Tensor) -> bool:
        """Whether a matrix is the first rows of what is lent."""
        return self.lent and rows.data_ptr() == self._address and rows.is_contiguous()


def after(offset: int, tensor: torch.Tensor) -> int:
    """Where the next tensor may begin when this one lies at `offset`."""
    return -(-(offset + tensor.nbytes) // ALIGN) * ALIGN
