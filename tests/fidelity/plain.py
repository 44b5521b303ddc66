"""What the plain PyTorch loops of these tests have in common: networks written out by hand, who holds what, and steps.

A loop shares with a run which samples an agent holds and who meets whom (read from the run's folder), initial weights
(torch's own, from the address that the run draws them at) and the order of batches (from the address of the step); no
agent, packet or recipe of the package.
"""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import torch
import torch.nn.functional as F
from codistill.tasks.data.prepared import open_prepared
from codistill.tasks.streams import torch_stream
from safetensors.torch import load_file
from torch import nn

SEED, BATCH, LR, ROUNDS = 4, 32, 0.1, 3
MLPS = ["m-1", "m-2", "m-3", "m-4", "m-5"]
MIXED = ["m-1", "m-2", "m-3", "c-1", "c-2"]
TRAIN = f"epochs: 1, batch: {BATCH}, optimizer: {{sgd: {{lr: {LR}}}}}"
TREE = "{hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}"
PEERS = "{decentralized: {graph: ring}}"


def spec(
    recipe,
    names=MLPS,
    pattern="distributed",
    partition="by: dirichlet, alpha: 0.2, min_size: 10",
    data="",
    rounds=ROUNDS,
    metrics="",
):
    """Return a spec on digits of agents called ``names``; ``data``: more of the data, as ``public: {share: 0.2}``."""
    counts = {kind: sum(name.startswith(kind) for name in names) for kind in "mc"}
    models = {"m": "mlp", "c": "cnn"}
    groups = [f"{{name: {k}, count: {counts[k]}, model: {models[k]}}}" for k in "mc" if counts[k]]
    return f"""
name: fidelity
seed: {SEED}
rounds: {rounds}
data: {{dataset: digits, partition: {{{partition}}}{data and ", " + data}}}
agents: [{", ".join(groups)}]
pattern: {pattern}
measure: {{control: none{metrics and ", metrics: " + metrics}}}
recipe:
{recipe}
"""


class Net(nn.Module):
    """The mlp ("m") and the cnn ("c") of the specs, with the initial weights of their role."""

    def __init__(self, kind, role="model"):
        super().__init__()
        name = {"m": "mlp(hidden=64)", "c": "cnn(channels=16x32,kernel=3,hidden=64)"}[kind]
        with torch.random.fork_rng():
            torch.manual_seed(torch_stream(SEED, "initial", role, name).initial_seed())
            if kind == "m":
                self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
            else:
                blocks = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
                blocks += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
                self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(128, 64), nn.ReLU())
            self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.body(x))


class Data:
    """The samples of a run, who holds which, and which peers are linked in which round."""

    def __init__(self, folder):
        given = open_prepared(Path(json.loads((folder.path / "run.json").read_text())["prepared"]))
        self.x, self.y = torch.tensor(given.x_train), torch.tensor(given.y_train)
        with pa.memory_map(str(folder.path / "ids.arrow")) as source:
            rows = pa.ipc.open_file(source).read_all()["train"].to_pylist()
        ids = [torch.tensor(row, dtype=torch.int64) for row in rows]
        self.ids, self.public = ids[:-1], ids[-1]
        self.sizes = [len(part) for part in self.ids]
        plan = json.loads((folder.path / "plan.json").read_text())
        self._links = [row["edges"] or plan["edges"] for row in plan["schedule"]]

    def neighbours(self, agent, number):
        """Return the places of an agent's neighbours in a round, rising."""
        return sorted({a if b == agent else b for a, b in self._links[number - 1] if agent in (a, b)})


def shuffled(ids, *address, size=BATCH):
    """Return ``ids`` in the order of the stream at an agent's ``address``, in batches of ``size``."""
    return ids[torch.randperm(len(ids), generator=torch_stream(SEED, "agent", *address))].split(size)


def private(data, agent, names, number, place="train.0", epoch=0):
    """Return the batches of an epoch of an agent's own samples."""
    return shuffled(data.ids[agent], names[agent], number, place, "shuffle", "private", epoch)


def descend(loss, *nets, lr=LR):
    """Take a step of plain gradient descent."""
    weights = [w for net in nets for w in net.parameters()]
    for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        w.data -= lr * g


def average(nets, shares):
    """Return the weighted mean of networks' weights."""
    total = sum(shares)
    return {
        key: sum(n * net.state_dict()[key] for n, net in zip(shares, nets, strict=True)) / total
        for key in nets[0].state_dict()
    }


def kl(student, teacher, temperature=1.0):
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over samples; the teacher is fixed."""
    p = F.softmax(teacher.detach() / temperature, 1)
    apart = p * (p.log() - F.log_softmax(student / temperature, 1))
    return temperature**2 * apart.sum(1).mean()


def farthest(folder, nets, names, role="model"):
    """Return the largest difference of any weight of any agent of a run from the networks of a loop."""
    apart = 0.0
    for name, net in zip(names, nets, strict=True):
        found = load_file(folder.model(name))
        for key, value in net.state_dict().items():
            apart = max(apart, (found[f"{role}/{key}"] - value).abs().max().item())
    return apart
