"""What one peer has sent so far: it goes forward, and says nothing twice.

So no peer can have more frames read than it has rows due, however fast it sends: a flood of late,
replayed or repeated frames ends with its first one.
"""

from __future__ import annotations

import numpy as np

from kuiper.errors import ProtocolError
from kuiper.link.base import Channel


class Order:
    """The newest step of each channel, and the nodes named in it."""

    def __init__(self) -> None:
        self._newest: dict[int, tuple[int, np.ndarray]] = {}

    def check(self, channel: Channel, step: int, nodes: np.ndarray) -> None:
        """Take note of a frame.

        Args:
            nodes: (m,) that it names, strictly increasing.

        Raises:
            ProtocolError: its step is older than that of one before, or one of the same step named a
                node of it already.
        """
        newest, named = self._newest.get(channel.number, (-1, nodes[:0]))
        if step < newest:
            raise ProtocolError(f"channel {channel.name}: a frame of {channel.unit} {step} after one of "
                                f"{channel.unit} {newest}")
        if step > newest:
            named = nodes
        elif np.isin(nodes, named).any():
            again = nodes[np.isin(nodes, named)][0]
            raise ProtocolError(f"channel {channel.name}: node {again} again in {channel.unit} {step}")
        else:
            named = np.concatenate([named, nodes])
        self._newest[channel.number] = (step, named)
