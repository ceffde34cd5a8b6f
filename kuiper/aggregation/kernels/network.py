"""Sorting networks: fixed sequences of compare-exchanges that order n values without a branch."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=64)
def network(n: int, lowest: int, highest: int) -> tuple[tuple[int, int], ...]:
    """Compare-exchanges (i, j), i < j, that put ranks lowest..highest of n values in their places.

    Batcher's merge exchange (Knuth, TAOCP 3, algorithm 5.2.2M), pruned to the ranks that are asked for.
    """
    exchanges = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top if n > 1 else 0
    while p > 0:
        q, r, distance = top, 0, p
        while distance > 0:
            exchanges += [(i, i + distance) for i in range(n - distance) if i & p == r]
            distance, q, r = q - p, q >> 1, p
        p >>= 1
    needed, kept = set(range(lowest, highest + 1)), []
    for i, j in reversed(exchanges):
        if i in needed or j in needed:
            kept.append((i, j))
            needed |= {i, j}
    return _nearby(n, kept[::-1])


def _nearby(n: int, exchanges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same exchanges, those on one value still in turn, but one value's soon after each other.

    Then what is compared is still in a register, or in the nearest cache.
    """
    waiting: list[list[tuple[int, int]]] = [[] for _ in range(n)]
    for exchange in reversed(exchanges):
        for value in exchange:
            waiting[value].append(exchange)
    touched, order = [0] * n, []
    while len(order) < len(exchanges):
        ready = {queue[-1] for i, queue in enumerate(waiting)
                 if queue and queue[-1][0] == i and waiting[queue[-1][1]][-1] == queue[-1]}
        chosen = max(ready, key=lambda pair: (touched[pair[0]] + touched[pair[1]], -pair[0], -pair[1]))
        order.append(chosen)
        for value in chosen:
            waiting[value].pop()
            touched[value] = len(order)
    return tuple(order)


def ranks(n: int, f: int, what: int, low: int, high: int) -> tuple[int, int]:
    """First and last rank that must be in their places for a statistic: 0 the median, 1 the trimmed mean."""
    if what == 0:
        return low, high
    return (f, n - f - 1) if what == 1 else (0, n - 1)
