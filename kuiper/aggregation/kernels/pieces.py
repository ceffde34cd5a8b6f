"""Columns in pieces: rows as a kernel takes them, and the threads that share the pieces.

Pieces depend on n and d alone, so that sums over them have the same bits however many threads there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

LANES = 16
NATIVE = (torch.float32, torch.float64)
_IN_CACHE = 1 << 19  # values of one piece
_AT_ONCE = 256  # pieces, whose results wait to be added
_COPIED = 8  # pieces of rows that are copied first


@dataclass(frozen=True)
class Part:
    """Some columns of rows.

    Attributes:
        values: (n, w) float32 or float64, contiguous: the rows themselves, or a copy of these columns.
        columns: which of the rows' columns are meant.
        first: where they begin in `values`.
        size: columns of a piece.
        is_copy: padded with columns of zeros to at least LANES.
    """

    values: np.ndarray
    columns: slice
    first: int
    size: int
    is_copy: bool

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start

    @property
    def pieces(self) -> int:
        return -(-self.width // self.size)

    def vector(self, values_d: Tensor) -> np.ndarray:
        """A vector (d,) in the values' dtype, with their indices; 0 in what a copy is padded with."""
        if not self.is_copy:
            return values_d.to(torch.from_numpy(self.values).dtype).contiguous().numpy()
        out = np.zeros(self.values.shape[1], self.values.dtype)
        torch.from_numpy(out)[: self.width] = values_d[self.columns]
        return out

    def share(self, kernel: Callable[..., None], *arguments: object) -> None:
        """Run a kernel over the pieces, with as many threads as torch takes.

        Raises:
            MemoryError: a thread had none for its temporaries.
        """
        from kuiper.aggregation.kernels.team import HAS_TEAM

        threads = torch.get_num_threads() if self.pieces > 1 else 1
        stop = self.values.shape[1] if self.is_copy else self.first + self.width
        cut = self.pieces, self.first, stop, self.size
        done = np.zeros(2, np.int64)
        if HAS_TEAM or threads == 1:
            kernel(threads, done, cut, *arguments)
        else:
            shares = [_threads(threads).submit(kernel, 1, done, cut, *arguments) for _ in range(threads)]
            for share in shares:
                share.result()
        if done[1]:
            raise MemoryError("no memory for the temporaries of a kernel")


def parts(rows_nd: Tensor, replaced: Sequence[int] = (), by: float = 0.0) -> Iterator[Part]:
    """All columns of the rows, in turn: as many at once as a kernel has room for.

    Args:
        replaced: rows that are to be read as `by` everywhere.
    """
    n, d = rows_nd.shape
    size = max(512, _IN_CACHE // max(n, 1) // 512 * 512)
    as_they_are = rows_nd.dtype in NATIVE and rows_nd.is_contiguous() and d >= LANES and not replaced
    dtype = torch.float64 if rows_nd.dtype == torch.float64 else torch.float32
    step = size * (_AT_ONCE if as_they_are else max(_COPIED, 2 * torch.get_num_threads()))
    for start in range(0, d, step):
        columns = slice(start, min(start + step, d))
        if as_they_are:
            yield Part(rows_nd.detach().numpy(), columns, start, size, False)
            continue
        width = columns.stop - start
        copy = torch.zeros((n, max(width, LANES)), dtype=dtype)
        copy[:, :width] = rows_nd[:, columns]
        for row in replaced:
            copy[row, :width] = by
        yield Part(copy.numpy(), columns, 0, size, True)


@contextmanager
def written(result: Tensor, part: Part) -> Iterator[np.ndarray]:
    """Where a kernel writes what becomes a part of the result (..., d): with the indices of its values."""
    if not part.is_copy:
        yield result.numpy()
        return
    out = np.empty((*result.shape[:-1], part.values.shape[1]), part.values.dtype)
    yield out
    result[..., part.columns] = torch.from_numpy(out[..., : part.width])


@lru_cache(maxsize=4)
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="rows")
