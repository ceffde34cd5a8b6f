"""Published conditions under which a rule is known to converge."""

from __future__ import annotations

import math

from kuiper.errors import SpecError


def _krum(n: int, f: int) -> float:
    return 1 / math.sqrt(2 * (n - f + f * (n + f * (n - f - 2) - 2) / (n - 2 * f - 2)))


_BOUNDS = {
    "krum": _krum,
    "multi_krum": _krum,
    "bulyan": _krum,
    "median": lambda n, f: 1 / math.sqrt(n - f),
    "mda": lambda n, f: (n - f) / (2 * f) if f else math.inf,
}


def upper_bound(name: str, n: int, f: int, d: int) -> float:
    """The largest sigma / ||g|| for which a rule's convergence is proved (El Mhamdi et al. 2021).

    sigma is the standard deviation of honest gradients as vectors, E||g_i - g||^2 = sigma^2, so that the
    dimension d is in it already.

    Raises:
        SpecError: no such condition is published for the rule.
    """
    if name not in _BOUNDS:
        raise SpecError(f"upper_bound: none is published for {name}",
                        f"there is one for {', '.join(_BOUNDS)}")
    return _BOUNDS[name](n, f)
