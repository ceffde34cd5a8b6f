"""What Byzantine nodes send, as pure functions; each yaml says what its attack acts on.

`gather` attacks are omniscient: (honest (h, d), count) -> (count, d). `rows` attacks see only the
attackers' own rows, `labels` attacks only their own labels. A crash sends nothing and needs no function.
"""

from kuiper.attacks.alie import alie
from kuiper.attacks.ipm import ipm
from kuiper.attacks.label_flip import label_flip
from kuiper.attacks.sign_flip import sign_flip

__all__ = ["alie", "ipm", "label_flip", "sign_flip"]
