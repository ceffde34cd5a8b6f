"""Who talks to whom."""

from kuiper.topology.exchange import Exchange, mutual, pull

__all__ = ["Exchange", "mutual", "pull"]
