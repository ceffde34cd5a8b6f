"""What kuiper and ByzFL 0.0.11 compute of the same rows: python -m evals.rules.agree writes agreement.md."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from evals.rules.pairs import BY_NAME, PAIRS, SETS, Call
from kuiper import aggregation

CASES = [(11, 2, 0.0), (12, 2, 0.0), (25, 5, 0.0), (40, 8, 1000.0)]
"""n, f, and what is added to all rows."""
D = 1000
MANY_SETS = 1000
SAME = 1e-3
"""float32 at 1000 is good to 6e-5."""
BYZFL = {"krum": "krum, variant byzfl", "multi_krum": "multi_krum, variant byzfl"}
"""What the pairs say; the same rules without a variant come after."""
CDIST = ("of over 25 rows ByzFL has distances from torch.cdist, which multiplies uncentred float32 rows: far "
         "from zero it takes others")
WHY = {
    "krum": "paper: n - f - 2 neighbours; ByzFL: n - f - 1",
    "multi_krum": "paper: n - f - 2 neighbours, n - f - 2 rows (AggregaThor's); ByzFL: n - f - 1, and n - f",
    "krum, variant byzfl": CDIST,
    "multi_krum, variant byzfl": CDIST,
    "monna": CDIST,
    "nnm": CDIST,
    "caf": "paper: the top eigenvector; ByzFL: one power step from a random vector, so that two calls differ",
    "smea": "paper: the set of smallest top eigenvalue; ByzFL: one power step for each, likewise",
    "bucketing": "with s = n, where the random order does not matter",
}


def main() -> None:
    shifted = [f"n = {n}, f = {f}" + (f", all {by:+g}" if by else "") for n, f, by in CASES]
    lines = ["The largest difference between kuiper and ByzFL 0.0.11, as a part of the largest entry of the "
             f"result: normal rows, d = {D:,}, float32,", "f of them moved away. Written by "
             "`python -m evals.rules.agree`.", "",
             f"| rule | {' | '.join(shifted)} | |", "|---" * (len(CASES) + 2) + "|"]
    for name, said in [*((one.name, BYZFL.get(one.name, one.name)) for one in PAIRS if one.theirs),
                       *((name, name) for name in BYZFL)]:
        apart = [_apart(name, *_calls(name, said, n, f), n, f, by) for n, f, by in CASES]
        differs = max(filter(None, apart), default=0) > SAME
        why = WHY[said] if differs or name == "bucketing" else ""
        lines.append(f"| {said} | {' | '.join(map(_shown, apart))} | {why} |")
        print(lines[-1], flush=True)
    lines += ["", "ByzFL returns float32 whatever it is given, and its Clipping and ARC change their input."]
    (Path(__file__).parent / "agreement.md").write_text("\n".join(lines) + "\n")


def _calls(name: str, said: str, n: int, f: int) -> tuple[Call, Call]:
    pair = BY_NAME[name]
    if name == "bucketing":
        import byzfl

        return lambda rows: aggregation.bucketing(rows, f, s=n), byzfl.Bucketing(s=n)
    return aggregation.make(name, f=f) if name in BYZFL and said == name else pair.ours(f), pair.byzfl(f)


def _apart(name: str, ours: Call, byzfl: Call, n: int, f: int, by: float) -> float | None:
    """None where ByzFL would try too many sets."""
    if BY_NAME[name].theirs in SETS and math.comb(n, f) > MANY_SETS:
        return None
    generator = torch.Generator().manual_seed(n)
    rows = torch.randn(n, D, generator=generator)
    rows[:f] += torch.randn(f, D, generator=generator)
    torch.manual_seed(0)
    expected = byzfl(rows.add_(by).clone()) - by
    return float((ours(rows) - by - expected).abs().max() / expected.abs().max())


def _shown(apart: float | None) -> str:
    return "" if apart is None else f"{apart:.0e}" if apart <= SAME else f"**{apart:.1g}**"


if __name__ == "__main__":
    main()
