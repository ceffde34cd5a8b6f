"""How many Byzantine rows a rule can stand; each rule's yaml states the same bound as `_needs_`."""

from __future__ import annotations

from kuiper.errors import SpecError, TooManyByzantine


def require(rule: str, n: int, f: int, *, factor: int, plus: int) -> None:
    """Raise unless 0 <= f and n >= factor * f + plus.

    Raises:
        SpecError: f is negative.
        TooManyByzantine: n vectors are too few for f.
    """
    if f < 0:
        raise SpecError(f"{rule}: f = {f} is below 0", "f counts the Byzantine nodes to tolerate: 0 or more")
    if n < factor * f + plus:
        needs = f"n >= {factor}f + {plus}" if factor else f"n >= {plus}"
        raise TooManyByzantine(
            f"{rule} needs {needs} = {factor * f + plus} vectors, but has n = {n} with f = {f}",
            "lower f, raise num_workers or the quorum, or choose a rule with a smaller bound",
        )
