"""What the plain PyTorch loops of these tests have in common: networks written out by hand, and who holds what."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import torch
from codistill.tasks.data.prepared import open_prepared
from codistill.tasks.streams import torch_stream
from torch import nn

SEED, BATCH, LR = 4, 32, 0.1


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
