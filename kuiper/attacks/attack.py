"""Attacks by the words of a spec, for use without a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kuiper import registry
from kuiper.arguments import as_count, as_rows
from kuiper.attacks.adversary import Adversary
from kuiper.errors import SpecError

if TYPE_CHECKING:
    from kuiper.aggregation import Rule


class Attack:
    """What f of n nodes send, given what the others do.

    Args:
        conf: as `registry.chosen` gives it.
        n, f: nodes, and how many of them attack; whole numbers, f < n.
        rule: what the receiver applies, for attacks that search against it.
        seed: of attacks that draw.

    Raises:
        SpecError: n or f is no such number, or the attack needs a rule.

    Attributes:
        acts_on: 'gather', 'neighbours', 'batches', 'rows', 'labels', 'inputs', 'nothing_sent' or 'none'.
        state: what is kept between calls, named tensors.
    """

    def __init__(self, conf: registry.Conf, n: int, f: int, rule: Rule | None = None, seed: int = 0) -> None:
        if conf.get("_uses_rule_") and rule is None:
            raise SpecError(f"{conf['_name_']} searches against a rule, and none is given",
                            "pass rule=aggregation.make(...)")
        n, f = as_count(n, "n", least=1), as_count(f, "f")
        if f >= n:
            raise SpecError(f"f = {f} of n = {n} nodes attack, and at least one must be honest",
                            f"write f={n - 1} or less")
        self.conf, self.n, self.f, self.seed = conf, n, f, seed
        self.acts_on = registry.acts_on(conf)
        attack = registry.function(conf) if "_target_" in conf else None
        self.adversary = Adversary(np.arange(n - f, n), self.acts_on, attack, seed, rule, nodes=n)
        self._calls = 0

    @property
    def state(self) -> dict[str, Tensor]:
        return self.adversary.state

    def __call__(self, honest: Tensor, own: Tensor | None = None, step: int | None = None) -> Tensor:
        """The attackers' rows (f, d) in the dtype of the honest ones (n - f, d), which are not changed.

        Args:
            honest: of float16, bfloat16, float32 or float64. Of rows that require a gradient only the values are
                used. With `knowledge: own` it is not looked at.
            own: (f, d) what the attackers would honestly send, for attacks on their own rows (or the models
                that Byzantine servers would publish); None for the honest mean. With `knowledge: own`
                (f, k, d), the rows of k batches of each attacker, which are all that it sees.
            step: what draws are keyed by; None counts calls, of the attack or of the rule that it searches
                against.

        Raises:
            SpecError: the attack acts on data, sends nothing, or is not given the rows that it needs: honest ones
                of another number than n - f, say, or of another kind.
        """
        name = self.conf["_name_"]
        if self.acts_on in ("rows", "gather", "neighbours"):
            honest = self._checked_honest(honest)
        self._calls += 1
        if self.acts_on == "rows":
            own = honest.mean(0).expand(self.f, -1) if own is None else self._checked_own(own, honest)
            step = self._calls if step is None else step
            return self.adversary.leaving(self.adversary.byzantine, own, step)
        if self.acts_on == "batches":
            if own is None or isinstance(own, Tensor) and (own.dim() != 3 or len(own) != self.f):
                given = "none" if own is None else str(tuple(own.shape))
                raise SpecError(f"{name} with knowledge own needs rows (f, k, d), f being {self.f}, of its own "
                                f"batches, and is given {given}", "pass them as `own`")
            own = as_rows(own, f"{name} with knowledge own", "`own` rows", 3)
            return self.adversary.guessed(own, step)
        if self.acts_on in ("gather", "neighbours"):
            nodes = np.arange(self.n)
            rows = torch.cat([honest, honest.new_zeros((self.f, honest.shape[1]))])
            return self.adversary.replaced(nodes, rows, self.state, step)[len(honest) :]
        raise SpecError(f"{name} acts on {self.acts_on}, not on rows", f"run it in a job: `attack: {name}`")

    def _checked_honest(self, honest: Any) -> Tensor:
        name = self.conf["_name_"]
        rows = as_rows(honest, name, "honest rows")
        if len(rows) != self.n - self.f:
            n = len(rows) + self.f
            raise SpecError(f"{name} was made for n = {self.n} nodes of which f = {self.f} attack, {self.n - self.f} "
                            f"honest rows, and is given {len(rows)}",
                            f"give {self.n - self.f} rows, or make it with n={n}" if len(rows) else "give rows")
        return rows

    def _checked_own(self, own: Any, honest: Tensor) -> Tensor:
        name = self.conf["_name_"]
        rows = as_rows(own, name, "`own` rows")
        if rows.shape != (self.f, honest.shape[1]):
            raise SpecError(f"{name} needs `own` rows (f, d), {(self.f, honest.shape[1])}, and is given "
                            f"{tuple(rows.shape)}", "give a row for each attacker")
        return rows


def make(spec: Any, n: int, f: int, rule: Rule | None = None, seed: int = 0) -> Attack:
    """An attack from the words of a spec.

    >>> import torch
    >>> make({"ipm": {"eps": 10}}, n=3, f=1)(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[-20., -30.]])

    Args:
        spec: `name` or `{name: {parameter: value}}`, as behind `attack:`.
        n, f: nodes, and how many of them attack.
        rule: what the receiver applies, for attacks that search against it.
        seed: of attacks that draw.

    Raises:
        SpecError: there is no such name, parameter or value, n or f is no whole number or f not below n, or the
            attack needs a rule.
    """
    return Attack(registry.chosen("attack", spec), n, f, rule, seed)


def names() -> list[str]:
    """Every attack that `make` knows."""
    return list(registry.table("attack"))
