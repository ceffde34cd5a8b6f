"""A block of nodes split over local processes: the same rows, in a part of the time.

The parent puts a call's thetas and nodes into shared memory and its chunks into one pipe, from which whoever is
free takes the next: slow chunks hold up nobody. Rows land at their own place in one shared matrix, so it does not
matter who computed what. Sums over those rows are split by columns, each summed in node order as ever. Each
process has a socket to the parent, whose end tells both that the other is gone.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch

from kuiper.aggregation.sums import ordered_sum
from kuiper.data import Dataset
from kuiper.errors import JobFailed
from kuiper.learner.learner import Learner
from kuiper.learner.shared import Shared, after
from kuiper.optim import Optimizer

_CHUNK = struct.Struct("<qq")  # first place, or column, and the one after the last
_DONE = struct.Struct("<q")  # places that are computed, or columns that are summed
_HEADER = struct.Struct("<7d")  # see `_Call`
_SPREAD = 1 << 21  # values of rows from which on a sum is worth handing out
_MOST = 1 << 16  # bytes of a message on a socket
_GRADIENTS, _UPDATES, _SUM = 0, 1, 2
_SAMPLES = ("train_x", "train_y", "test_x", "test_y")


class _Call:
    """What one call asks for, laid out in shared memory: a header, nodes, losses, thetas.

    A sum finds its weights where losses are else, and leaves itself where thetas are.
    """

    def __init__(self, memory: Shared, size: int, nodes: int, models: int) -> None:
        header = memory.tensor((_HEADER.size,), torch.uint8)
        self.header = memoryview(header.numpy())
        offset = after(0, header)
        self.nodes = memory.tensor((nodes,), torch.int64, offset)
        offset = after(offset, self.nodes)
        self.losses = memory.tensor((nodes,), torch.float64, offset)
        offset = after(offset, self.losses)
        self.thetas = memory.tensor((models, size), torch.float32, offset)
        self.total = memory.tensor((size,), torch.float64, offset)


class PooledLearner(Learner):
    """A learner whose gradients and updates other processes compute; it evaluates by itself.

    Args:
        learner: of this process.
        optimizer: the one that the other processes build too; with any other, updates are computed here.
        memories: descriptors of what all share: samples, the call, and matrices of rows, of which the last
            call's and the one before are often still held when the next begins.
        deal: writing end of the pipe that holds chunks.
        sockets: one per process.
    """

    def __init__(self, learner: Learner, optimizer: Optimizer, memories: Sequence[int], deal: int,
                 sockets: Sequence[socket.socket]) -> None:
        samples, self._calls, *self._slots = (Shared(memory) for memory in memories)
        data, places = _share(learner.data, samples)
        learner.batches.data = data
        super().__init__(learner.model, data, learner.batches, learner.engine)
        self._optimizer = optimizer
        self._deal = deal
        self._count = len(sockets)
        self._selector = selectors.DefaultSelector()
        for number, one in enumerate(sockets, 1):
            one.send(json.dumps(places).encode())
            self._selector.register(one, selectors.EVENT_READ, number)

    def gradients(self, thetas: torch.Tensor, nodes: np.ndarray, batch: int) -> tuple[torch.Tensor, np.ndarray]:
        return self._ask(_GRADIENTS, thetas, nodes, batch)

    def updates(self, theta: torch.Tensor, nodes: np.ndarray, batch: int, local_steps: int,
                optimizer: Optimizer, lr_scale: float) -> tuple[torch.Tensor, np.ndarray]:
        if optimizer != self._optimizer:
            return super().updates(theta, nodes, batch, local_steps, optimizer, lr_scale)
        return self._ask(_UPDATES, theta, nodes, batch, local_steps, lr_scale)

    def _ask(self, kind: int, thetas: torch.Tensor, nodes: np.ndarray, batch: int, local_steps: int = 0,
             lr_scale: float = 0.0) -> tuple[torch.Tensor, np.ndarray]:
        free = [slot for slot, memory in enumerate(self._slots) if not memory.lent]
        models = len(thetas) if thetas.dim() == 2 else 1
        call = _Call(self._calls, self.size, len(nodes), models)
        rows = self._slots[free[0]].tensor((len(nodes), self.size))
        call.nodes.numpy()[:] = nodes
        call.thetas.copy_(thetas)
        self._spread(call, chunks(len(nodes), self._count), kind, len(nodes), thetas.dim() == 1, batch, local_steps,
                     free[0], lr_scale)
        if len(free) == 1 or rows.device != thetas.device:
            rows = rows.to(thetas.device, copy=True)
        return rows, call.losses.numpy().copy()

    def weighted_sum(self, rows: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
        slots = [slot for slot, memory in enumerate(self._slots) if memory.holds(rows)]
        if not slots or rows.numel() < _SPREAD:
            return super().weighted_sum(rows, weights)
        call = _Call(self._calls, self.size, len(rows), 1)
        call.losses.numpy()[:] = weights
        width = -(-self.size // self._count)
        parts = ((start, min(start + width, self.size)) for start in range(0, self.size, width))
        self._spread(call, parts, _SUM, len(rows), True, 0, 0, slots[0], 0.0)
        return call.total.clone()

    def _spread(self, call: _Call, parts: Iterable[tuple[int, int]], *header: float) -> None:
        """Hand a call out in parts, and wait for all of them."""
        parts = list(parts)
        _HEADER.pack_into(call.header, 0, *header)
        os.write(self._deal, b"".join(_CHUNK.pack(*part) for part in parts))
        missing = sum(end - start for start, end in parts)
        while missing:
            for key, _ in self._selector.select():
                missing -= self._heard(key.data, _receive(key.fileobj))

    def _heard(self, number: int, message: bytes) -> int:
        if len(message) == _DONE.size:
            return _DONE.unpack(message)[0]
        if message:
            said = json.loads(message)
            raise JobFailed(f"pool process {number}: {said['message']}", said["remedy"])
        raise JobFailed(f"pool process {number} of {self._count} has died",
                        "see the log; when the machine is short of memory, use a smaller `pool`")


def _receive(one: socket.socket) -> bytes:
    """The next message; b'' when the other end is gone, also one that was killed before it read all."""
    try:
        return one.recv(_MOST)
    except ConnectionResetError:
        return b""


def chunks(nodes: int, processes: int) -> Iterator[tuple[int, int]]:
    """(first place, the one after the last) of chunks that shrink: large while much is left, small at the end.

    As many of each size as there are processes, two thirds of what is left: equally fast processes end
    together after few chunks, each of which costs .1 ms to hand over. None is smaller than a thirty-second of
    a process's share, but for what is left.
    """
    start, least = 0, max(1, nodes // (32 * processes))
    while start < nodes:
        left = nodes - start
        size = min(max(least, 2 * left // (3 * processes)), -(-left // processes))
        end = min(start + size * processes, nodes)
        for first in range(start, end, size):
            yield first, min(first + size, end)
        start = end


def samples(parent: socket.socket, memories: Sequence[int]) -> Dataset:
    """The parent's samples, in one of its pool's processes."""
    said = json.loads(parent.recv(_MOST))
    memory = Shared(memories[0])
    tensors = {name: memory.tensor(shape, getattr(torch, dtype), offset)
               for name, (offset, shape, dtype) in said["tensors"].items()}
    return Dataset(**tensors, classes=said["classes"], augment=tuple(said["augment"]))


def serve(learner: Learner, optimizer: Optimizer, memories: Sequence[int], deal: int, parent: socket.socket) -> None:
    """Compute chunks as long as the parent lives."""
    calls, slots = Shared(memories[1]), [Shared(memory) for memory in memories[2:]]
    device = learner.model.theta.device

    @functools.lru_cache(2 * len(slots))  # calls are of a few shapes: nothing is mapped twice
    def shared(count: int, of_one: int, slot: int) -> tuple[_Call, torch.Tensor]:
        call = _Call(calls, learner.size, count, 1 if of_one else count)
        return call, slots[slot].tensor((count, learner.size))

    header = memoryview(calls.tensor((_HEADER.size,), torch.uint8).numpy())
    while chunk := os.read(deal, _CHUNK.size):
        places = slice(*_CHUNK.unpack(chunk))
        *integers, lr_scale = _HEADER.unpack(header)
        kind, count, of_one, batch, local_steps, slot = map(int, integers)
        call, matrix = shared(count, of_one, slot)
        if kind == _SUM:
            call.total[places] = ordered_sum(matrix[:, places], call.losses.tolist())
            _tell(parent, places)
            continue
        nodes, rows = call.nodes.numpy()[places], matrix[places]
        thetas = (call.thetas[0] if of_one else call.thetas[places]).to(device)
        out = rows if device == rows.device else None
        if kind == _GRADIENTS:
            computed, losses = learner.gradients(thetas, nodes, batch, out)
        else:
            computed, losses = learner.updates(thetas, nodes, batch, local_steps, optimizer, lr_scale, out)
        if out is None:
            rows.copy_(computed)
        call.losses.numpy()[places] = losses
        _tell(parent, places)


def _tell(parent: socket.socket, done: slice) -> None:
    with suppress(BrokenPipeError):  # the parent is gone: then the pipe of chunks ends too
        parent.send(_DONE.pack(done.stop - done.start))


def _share(data: Dataset, memory: Shared) -> tuple[Dataset, dict[str, object]]:
    """The same dataset in shared memory, and where its tensors lie there."""
    tensors, places, offset = {}, {}, 0
    for name in _SAMPLES:
        tensor = getattr(data, name)
        places[name] = (offset, list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        offset = after(offset, tensor)
    memory.tensor((offset,), torch.uint8)
    for name, (offset, shape, _) in places.items():
        tensors[name] = memory.tensor(shape, getattr(data, name).dtype, offset).copy_(getattr(data, name))
    told = {"tensors": places, "classes": data.classes, "augment": data.augment}
    on_cpu = data.train_x.device.type == "cpu"
    return (replace(data, **tensors) if on_cpu else data), told
