"""What Byzantine nodes send, as pure functions; each yaml says what its attack acts on.

    attack = make({"alie": {}}, n=25, f=5)
    byzantine_rows = attack(honest_rows)

`gather` attacks are omniscient: (honest (h, d), count) -> (count, d). With `knowledge: own` the same
function is given, in place of honest rows, those of `batches` that each attacker computes of its own data;
the result stands for its gradient or update, before worker momentum, and nothing is replaced at the
receiver. `rows` attacks see only the attackers' own rows; on models that Byzantine servers would publish,
reverse, random and drop are those servers' attacks (only here: no job has several servers yet). `labels`
and `inputs` attacks see only the attackers' own data. A crash sends nothing and needs no function. Adding
one is a function in a file here, a yaml in config/groups/attack, and a row in the table of
tests/laws/test_attacks.py.
"""

from kuiper.attacks.alie import alie
from kuiper.attacks.attack import Attack, make, names
from kuiper.attacks.data import corrupt_inputs, label_flip
from kuiper.attacks.dissensus import dissensus
from kuiper.attacks.distance import min_max, min_sum
from kuiper.attacks.ipm import ipm
from kuiper.attacks.mimic import mimic
from kuiper.attacks.optimal import optimal_alie, optimal_ipm
from kuiper.attacks.own import drop, inf, nan, random_row, reverse, sign_flip, zero

__all__ = [
    "Attack", "alie", "corrupt_inputs", "dissensus", "drop", "inf", "ipm", "label_flip", "make", "mimic",
    "min_max", "min_sum", "names", "nan", "optimal_alie", "optimal_ipm", "random_row", "reverse",
    "sign_flip", "zero",
]  # fmt: skip
