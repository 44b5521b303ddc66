"""Floors: what a method costs as a bare PyTorch loop over the workload digits20, with nothing of codistill.

``python floors.py --data FOLDER fedavg`` prints JSON. Data and partition are read from the ``.npy`` files that
``workload.py`` wrote. Every agent trains one epoch a round (SGD 0.05, batches of 32, the last partial one dropped), one
after another on one thread, and is then measured on its own test cut.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

RATE, BATCH, CLASSES = 0.05, 32, 10
ENERGY = (0.95, 0.98)
"""The share of energy that FedKD's factors keep, in the first and the last round."""


class Agent(NamedTuple):
    """One agent's samples, in memory."""

    x: torch.Tensor
    y: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor


class Net(nn.Module):
    """The CNN of the FedAvg paper: 582,026 parameters, 512 features before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(1024, 512), nn.ReLU()),
        )
        self.head = nn.Linear(512, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


State = dict[str, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def read(folder: Path) -> list[Agent]:
    """Read the agents that ``workload.py`` wrote."""

    def load(name: str) -> Any:
        return np.load(folder / f"{name}.npy")

    columns = []
    for part in ("train", "test"):
        ids, ends = load(f"{part}_ids"), load(f"{part}_ends")
        pieces = [ids[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
        for name in (f"x_{part}", f"y_{part}"):
            array = load(name)
            columns.append([torch.from_numpy(array[piece]) for piece in pieces])
    return [Agent(*of_agent) for of_agent in zip(*columns, strict=True)]


def epoch(agent: Agent, nets: Sequence[nn.Module], loss: Loss) -> None:
    """Train all of ``nets`` at once for one epoch."""
    for net in nets:
        net.train()
    optimizer = torch.optim.SGD([weight for net in nets for weight in net.parameters()], lr=RATE)
    order = torch.randperm(len(agent.y))
    for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
        optimizer.zero_grad()
        loss(agent.x[batch], agent.y[batch]).backward()
        optimizer.step()


def mean_state(nets: Sequence[nn.Module], agents: Sequence[Agent]) -> State:
    """Return the mean of the nets' weights, weighted by samples."""
    total = sum(len(agent.y) for agent in agents)
    states = [(net.state_dict(), len(agent.y) / total) for net, agent in zip(nets, agents, strict=True)]
    return {key: sum(state[key] * share for state, share in states) for key in states[0][0]}


def alike(count: int) -> list[Net]:
    """Return nets that start from the same weights."""
    nets = [Net() for _ in range(count)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    return nets


def class_means(sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return the mean [C, D] over agents of their class means, from sums [A, C, D] and counts [A, C]."""
    means = sums / counts.clamp(min=1)[..., None]
    there = (counts > 0).float()
    return (means * there[..., None]).sum(0) / there.sum(0).clamp(min=1)[:, None]


def kl(given: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(other || given) of logits, mean over rows; ``other`` only teaches."""
    return F.kl_div(F.log_softmax(given, 1), F.softmax(other.detach(), 1), reduction="batchmean")


def truncated(state: State, share: float) -> State:
    """Return a model as it comes back from a truncated SVD of every matrix that keeps ``share`` of its energy."""
    made = dict(state)
    for key, value in state.items():
        if value.dim() > 1:
            left, values, right = torch.linalg.svd(value.flatten(1), full_matrices=False)
            energy = values.square().cumsum(0)
            kept = int((energy < share * energy[-1]).sum()) + 1
            made[key] = ((left[:, :kept] * values[:kept]) @ right[:kept]).view_as(value)
    return made


# Each method yields, after each round, the agents' models.


def fedavg(agents: list[Agent], rounds: int, start: Net | None = None) -> Iterator[list[Net]]:
    """Yield the one model that all agents have: the mean of what they trained, weighted by samples."""
    net = start or Net()
    total = sum(len(agent.y) for agent in agents)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    for _ in range(rounds):
        mean = {key: torch.zeros_like(value) for key, value in state.items()}
        for agent in agents:
            net.load_state_dict(state)
            epoch(agent, [net], lambda x, y: F.cross_entropy(net(x), y))
            for key, value in net.state_dict().items():
                mean[key] += value * (len(agent.y) / total)
        state = mean
        net.load_state_dict(state)
        yield [net] * len(agents)


def fedproto(agents: list[Agent], rounds: int) -> Iterator[list[Net]]:
    """Cross entropy, and the distance to the mean features of the label's class."""
    nets, target = alike(len(agents)), None
    sums, counts = torch.zeros(len(agents), CLASSES, 512), torch.zeros(len(agents), CLASSES)

    def loss(i: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        features = nets[i].body(x)
        sums[i].index_add_(0, y, features.detach())
        counts[i] += torch.bincount(y, minlength=CLASSES)
        task = F.cross_entropy(nets[i].head(features), y)
        return task if target is None else task + F.mse_loss(features, target[y])

    for _ in range(rounds):
        for i, agent in enumerate(agents):
            epoch(agent, [nets[i]], partial(loss, i))
        target = class_means(sums, counts)
        sums.zero_()
        counts.zero_()
        yield nets


def fd(agents: list[Agent], rounds: int) -> Iterator[list[Net]]:
    """Cross entropy, and cross entropy to the softmax of the mean logits of the label's class."""
    nets, target = alike(len(agents)), None
    sums, counts = torch.zeros(len(agents), CLASSES, CLASSES), torch.zeros(len(agents), CLASSES)

    def loss(i: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits = nets[i](x)
        sums[i].index_add_(0, y, logits.detach())
        counts[i] += torch.bincount(y, minlength=CLASSES)
        task = F.cross_entropy(logits, y)
        return task if target is None else task + F.cross_entropy(logits, target[y])

    for _ in range(rounds):
        for i, agent in enumerate(agents):
            epoch(agent, [nets[i]], partial(loss, i))
        target = F.softmax(class_means(sums, counts), 1)
        sums.zero_()
        counts.zero_()
        yield nets


def fml(agents: list[Agent], rounds: int) -> Iterator[list[Net]]:
    """Each agent's own net and a companion teach each other; the companions are averaged."""
    nets, companions = alike(len(agents)), alike(len(agents))

    def loss(i: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        mine, theirs = nets[i](x), companions[i](x)
        task = F.cross_entropy(mine, y) + F.cross_entropy(theirs, y)
        return 0.5 * (task + kl(mine, theirs) + kl(theirs, mine))

    for _ in range(rounds):
        for i, agent in enumerate(agents):
            epoch(agent, [nets[i], companions[i]], partial(loss, i))
        state = mean_state(companions, agents)
        for companion in companions:
            companion.load_state_dict(state)
        yield nets


def fedkd(agents: list[Agent], rounds: int) -> Iterator[list[Net]]:
    """As fml, adaptive and with hidden features; the averaged companion comes back from one truncated SVD a round."""
    nets, companions = alike(len(agents)), alike(len(agents))
    maps = [nn.Linear(512, 512, bias=False) for _ in agents]

    def loss(i: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        features, other = nets[i].body(x), companions[i].body(x)
        mine, theirs = nets[i].head(features), companions[i].head(other)
        task = F.cross_entropy(mine, y) + F.cross_entropy(theirs, y)
        shared = kl(mine, theirs) + kl(theirs, mine) + F.mse_loss(features, maps[i](other))
        return task + shared / task.detach()

    for number in range(rounds):
        for i, agent in enumerate(agents):
            epoch(agent, [nets[i], companions[i], maps[i]], partial(loss, i))
        progress = number / max(rounds - 1, 1)
        state = truncated(mean_state(companions, agents), ENERGY[0] + (ENERGY[1] - ENERGY[0]) * progress)
        for companion in companions:
            companion.load_state_dict(state)
        yield nets


METHODS = {method.__name__: method for method in (fedavg, fedproto, fd, fml, fedkd)}


@torch.no_grad()
def accuracy(agents: list[Agent], nets: list[Net]) -> float:
    """Measure each agent's model on its own test cut: all that is right over all there is."""
    right = 0
    for agent, net in zip(agents, nets, strict=True):
        net.eval()
        right += int((net(agent.x_test).argmax(1) == agent.y_test).sum())
    return right / sum(len(agent.y_test) for agent in agents)


def measure(method: str, agents: list[Agent], rounds: int, seed: int = 0) -> dict[str, Any]:
    """Run a method; return CPU seconds, wall seconds and accuracy of each round."""
    torch.manual_seed(seed)
    found: dict[str, Any] = {"method": method, "rounds": rounds, "cpu": [], "wall": [], "accuracy": []}
    going = METHODS[method](agents, rounds)
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        found["accuracy"].append(accuracy(agents, next(going)))
        found["cpu"].append(time.process_time() - cpu)
        found["wall"].append(time.perf_counter() - wall)
    return found


def main() -> None:
    """Measure one method and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--data", type=Path, required=True, help="the folder that workload.py wrote")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    torch.set_num_threads(1)
    json.dump(measure(said.method, read(said.data), said.rounds, said.seed), sys.stdout)
    print()


if __name__ == "__main__":
    main()
