"""Which clients take part in a round."""

from kuiper.selection.random import Random

__all__ = ["Random"]
