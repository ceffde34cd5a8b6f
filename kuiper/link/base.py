"""What a role sees of the world: channels, gathered rows and one small link interface.

Dimension letters: n nodes, k nodes of a block, m rows gathered, d parameters.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from kuiper.topology import Exchange

_AT_ONCE = 1 << 17  # floats of a turn of neighbours' rows

@dataclass(frozen=True)
class Channel:
    """What an algorithm sends, declared before it runs; every frame is checked against it.

    Attributes:
        name: for logs and errors.
        number: on the wire, 1..65535 (0 is the mesh's own).
        width: floats per row, d.
        dtype: of the rows on their way; they are rounded to it when sent, and float32 again when gathered.
        columns: names of the float64 values that travel beside each node's row.
        shared: True when one row goes to all the nodes a frame names (a model), False when
            each named node sends a row of its own (a gradient).
        work: samples that a node processes between being asked and its row being ready;
            what the virtual clock charges.
        charged: whether its bytes count as the algorithm's traffic (an observer's do not).
            Attacks act on charged channels only.
        unit: what one iteration is called, step or round; for logs and errors.
    """

    name: str
    number: int
    width: int
    dtype: torch.dtype = torch.float32
    columns: tuple[str, ...] = ()
    shared: bool = False
    work: float = 0.0
    charged: bool = True
    unit: str = "step"

    @property
    def row_bytes(self) -> int:
        return self.width * self.dtype.itemsize


@dataclass(frozen=True)
class Request:
    """A model that a block of nodes was asked to work on.

    Attributes:
        step: of the algorithm.
        nodes: (k,) int64, the cohort: those nodes of the block whose rows will count.
        row: (d,) the model.
    """

    step: int
    nodes: np.ndarray
    row: torch.Tensor


@dataclass(frozen=True)
class Gathered:
    """Rows in node order, whatever the order of arrival.

    Attributes:
        nodes: (m,) int64, ascending.
        rows: (m, d).
        columns: name -> (m,) float64.
        late: rows that were expected and do not count.
    """

    nodes: np.ndarray
    rows: torch.Tensor
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    late: int = 0


@dataclass(frozen=True)
class Neighbours:
    """What each node of a block hears along the edges of an exchange.

    Attributes:
        gathered: the distinct rows that arrived for the block.
        exchange: the edges of this step.
        tamper: (receiver, senders, rows) -> rows, an omniscient attack at one receiver.
    """

    gathered: Gathered
    exchange: Exchange
    tamper: Callable[[int, np.ndarray, torch.Tensor], torch.Tensor] | None = None

    def turns(self, nodes: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """What `nodes` (k,) hear, a row each in turn: places (t,) in nodes, without repeats, and rows (t, d).

        Each node's rows come in node order; a missing sender has none. A turn is of a few nodes, so
        that what is computed from it is still in the cache when their next turn comes.
        """
        counts = np.isin(self.exchange.receivers, nodes) & np.isin(self.exchange.senders, self.gathered.nodes)
        receivers, senders = self.exchange.receivers[counts], self.exchange.senders[counts]
        if self.tamper:
            yield from self._tampered(nodes, receivers, senders)
            return
        to, by = np.searchsorted(nodes, receivers), np.searchsorted(self.gathered.nodes, senders)
        block = to // max(1, _AT_ONCE // max(1, self.gathered.rows.shape[1]))
        turn = np.arange(len(to)) - np.searchsorted(to, to)
        order = np.lexsort((turn, block))
        ends = np.flatnonzero(np.diff(block[order]) | np.diff(turn[order])) + 1
        for part in np.split(order, ends) if len(order) else ():
            rows, places = self.gathered.rows, (torch.from_numpy(of[part]) for of in (to, by))
            to_places, by_places = (place.to(rows.device) for place in places)
            yield to_places, rows.index_select(0, by_places)

    def _tampered(self, nodes: np.ndarray, receivers: np.ndarray,
                  senders: np.ndarray) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The same where an attack tells each receiver something else."""
        for place in np.unique(np.searchsorted(nodes, receivers)).tolist():
            heard = senders[receivers == nodes[place]]
            rows = self.gathered.rows[np.searchsorted(self.gathered.nodes, heard)]
            for row in self.tamper(int(nodes[place]), heard, rows):
                yield torch.tensor([place], device=row.device), row[None]


class Traffic:
    """What moved since it was last taken; receiving threads and the event loop both add.

    Of charged channels only: bytes_in and bytes_out are whole frames that this link received and sent; rows
    are those that count (of a gather: its senders; of peers: an edge each; of a reduce: the rows of its own
    nodes), late those that were expected and do not.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moved = self._nothing()

    def add(self, **moved: int) -> None:
        """Add to bytes_in, bytes_out, rows or late."""
        with self._lock:
            for name, amount in moved.items():
                self._moved[name] += amount

    def take(self) -> dict[str, int]:
        with self._lock:
            taken, self._moved = self._moved, self._nothing()
        return taken

    @staticmethod
    def _nothing() -> dict[str, int]:
        return dict.fromkeys(("bytes_in", "bytes_out", "rows", "late"), 0)


class Link(ABC):
    """A transport and a clock for the block of nodes that one role handles.

    Attributes:
        nodes: (k,) int64, the block; the hub (server or observer) is node n.
        traffic: bytes and rows of charged channels.
    """

    nodes: np.ndarray
    traffic: Traffic

    @abstractmethod
    def now(self) -> float:
        """Seconds since the job began, on the job's clock."""

    @abstractmethod
    async def publish(self, channel: Channel, step: int, row: torch.Tensor, to: np.ndarray,
                      reply: Channel) -> None:
        """Hub: send one row to the nodes `to`, and expect a row of `reply` from each."""

    @abstractmethod
    def live(self, nodes: np.ndarray) -> np.ndarray:
        """Mask of the given nodes whose process is there."""

    @abstractmethod
    def requests(self, channel: Channel, together: int) -> AsyncIterator[Request]:
        """Nodes: what the hub asks, until it says goodbye, in cohorts of nodes that are ready at one instant.

        Where time is real, `together` nodes are computed at once, so that the rows of nodes that
        finish apart travel apart; a newer request replaces what is left of an older one.
        """

    @abstractmethod
    async def send(self, channel: Channel, step: int, nodes: np.ndarray, rows: torch.Tensor,
                   columns: dict[str, np.ndarray] | None = None, to: Exchange | None = None,
                   keep: int | None = None) -> None:
        """Nodes: each sends its row to the hub, or along the edges of an exchange.

        Args:
            nodes: (k,) ascending ids of the senders, all of this block.
            rows: (k, d); not to be written to until the step after next.
            keep: for a peer that does not read, only the rows of so many newest steps are kept; None: all.
        """

    @abstractmethod
    def expect(self, channel: Channel, senders: Callable[[int], np.ndarray]) -> None:
        """Declare, as a pure function of the step, whose rows this role gathers."""

    @abstractmethod
    async def gather(self, channel: Channel, step: int, quorum: int | None = None,
                     deadline: float | None = None, minimum: int = 1) -> Gathered:
        """The first `quorum` rows of a step (None: of all live expected senders), in node order.

        Who has died is not waited for: fewer than `quorum` are then taken, down to `minimum`.

        Args:
            deadline: seconds after which what has arrived must do.
            minimum: fewer rows than this is an error.
        Raises:
            QuorumLost: too few senders are alive, or arrived by the deadline.
        """

    @abstractmethod
    async def neighbours(self, channel: Channel, step: int, exchange: Exchange,
                         deadline: float | None = None) -> Neighbours:
        """Peers: the rows sent along the edges into this block.

        Who is gone, or later than `deadline` seconds, is left out, and counted as late.
        """

    @abstractmethod
    async def reduce(self, step: int, nodes: np.ndarray, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Peers: the mean over all nodes, summed in float64 in node order; (d,) like rows.

        The same bits at every node, however the nodes are placed.

        Args:
            dtype: to which the rows are rounded before they travel.
        """

    @abstractmethod
    def charge(self, samples: float) -> None:
        """The nodes of this block have each processed so many samples: their clocks advance."""

    @abstractmethod
    def times(self) -> np.ndarray:
        """(k,) float64: the time of each node of this block, in seconds on the job's clock."""

    @abstractmethod
    def set_times(self, times: np.ndarray) -> None:
        """Go on from what `times` said."""

    @abstractmethod
    async def meet(self, step: int) -> None:
        """All roles of a peer-to-peer job: wait until every process has come this far."""

    @abstractmethod
    async def close(self, failed: bool = False) -> None:
        """Say goodbye, or that this process has failed; nothing more is sent."""

