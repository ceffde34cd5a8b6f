"""FedAvg as one writes it by hand in PyTorch, as fast as that goes: flat parameters, samples in memory, one thread
a process, channels_last convolutions, results through shared memory.

    python evals/speed/bare.py {mlp,cnn} CLIENTS PER_ROUND SAMPLES BATCH PROCESSES

runs a round for every line that it reads, and says when one is done.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.multiprocessing import get_context
from torch.nn import functional

LR = 0.05


def network(kind: str) -> nn.Module:
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))  # fmt: skip


class Client:
    """Local training on flat parameters, of which the network's are views."""

    def __init__(self, kind: str, data: tuple[torch.Tensor, torch.Tensor], samples: int, batch: int) -> None:
        torch.set_num_threads(1)
        self.x, self.y = data
        self.samples, self.batch = samples, batch
        self.network = network(kind)
        size = sum(p.numel() for p in self.network.parameters())
        self.theta, self.gradient = torch.empty(size), torch.zeros(size)
        offset = 0
        for p in self.network.parameters():
            views = [flat[offset : offset + p.numel()] for flat in (self.theta, self.gradient)]
            if p.dim() == 4:
                out, inputs, height, width = p.shape
                views = [view.view(out, height, width, inputs).permute(0, 3, 1, 2) for view in views]
            views = [view.view(p.shape) if p.dim() != 4 else view for view in views]
            views[0].copy_(p.detach())
            p.data, p.grad = views
            offset += p.numel()

    def train(self, theta: torch.Tensor, client: int, out: torch.Tensor) -> None:
        """One epoch; what it changed goes to `out`."""
        own = slice(client * self.samples, (client + 1) * self.samples)
        x, y = self.x[own], self.y[own]
        self.theta.copy_(theta)
        for index in torch.randperm(self.samples).split(self.batch):
            self.gradient.zero_()
            functional.cross_entropy(self.network(x[index]), y[index]).backward()
            self.theta.add_(self.gradient, alpha=-LR)
        torch.sub(self.theta, theta, out=out)


def serve(kind: str, data: tuple[torch.Tensor, torch.Tensor], samples: int, batch: int, theta: torch.Tensor,
          rows: torch.Tensor, pipe: object) -> None:
    client = Client(kind, data, samples, batch)
    while True:
        for place, number in pipe.recv():
            client.train(theta, number, rows[place])
        pipe.send(None)


def main() -> None:
    kind, numbers = sys.argv[1], [int(word) for word in sys.argv[2:]]
    clients, per_round, samples, batch, processes = numbers
    torch.manual_seed(1)
    data = torch.randn(clients * samples, 1, 28, 28), torch.randint(10, (clients * samples,))
    here = Client(kind, data, samples, batch)
    theta = here.theta.clone().share_memory_()
    rows = torch.zeros(per_round, len(theta)).share_memory_()
    pipes = []
    for _ in range(processes if processes > 1 else 0):
        ours, theirs = get_context("fork").Pipe()
        arguments = (kind, data, samples, batch, theta, rows, theirs)
        get_context("fork").Process(target=serve, args=arguments, daemon=True).start()
        pipes.append(ours)
    print("done", flush=True)
    while sys.stdin.readline():
        chosen = list(enumerate(torch.randperm(clients)[:per_round].tolist()))
        for part, pipe in enumerate(pipes):
            pipe.send(chosen[part :: len(pipes)])
        for place, number in chosen if not pipes else ():
            here.train(theta, number, rows[place])
        for pipe in pipes:
            pipe.recv()
        theta += rows.mean(0)
        print("done", flush=True)


if __name__ == "__main__":
    main()
