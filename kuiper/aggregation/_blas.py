"""Algebra of n x n matrices on one thread: a BLAS's own threads would spin on beside torch's, and take their cores."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def on_one_thread(function: Function) -> Function:
    """A function whose products and eigenvectors, NumPy's and SciPy's, take one thread."""

    @wraps(function)
    def limited(*arguments: Any, **named: Any) -> Any:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*arguments, **named)

    return limited


@lru_cache(maxsize=1)
def _controller() -> Any:
    import scipy.linalg  # noqa: F401 - it brings a BLAS of its own
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
