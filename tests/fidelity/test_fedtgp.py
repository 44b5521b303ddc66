"""FedTGP as a whole run against a plain loop: agents and server, written from the paper and its code."""

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.streams import seed_of, torch_stream
from codistill.tests.fidelity.plain import MIXED, ROUNDS, SEED, TRAIN, Data, Net, descend, farthest, private, spec
from torch import nn

WEIGHT, EPOCHS, BATCH, LR, WIDTH = 1.5, 6, 10, 0.05, 64
FEDTGP = f"""
  round:
    - retrieve: {{memory: semantic, knowledge: prototypes}}
    - train: {{{TRAIN}, losses: [{{prototypes: {{prototype_weight: {WEIGHT}}}}}]}}
    - extract: {{knowledge: prototypes, from: private}}
    - aggregate:
        by: trainable_prototypes
        margin: farthest
        epochs: {EPOCHS}
        batch: {BATCH}
        optimizer: {{sgd: {{lr: {LR}}}}}
    - store: {{memory: semantic}}"""


class Prototypes(nn.Module):
    """A vector for each class and two layers, with the initial weights that the server gives them."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(SEED, "agent", "server", "module", "trainable_prototypes"))
            self.vectors = nn.Embedding(10, WIDTH)
            self.inner, self.outer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids):
        return self.outer(F.relu(self.inner(self.vectors(ids))))


def margin_of(received, mistake):
    centers = [
        torch.stack([p for p, c in received if c == label]).mean(0) for label in sorted({c for _, c in received})
    ]
    gaps = [[(a - b).norm().item() for b in centers if b is not a] for a in centers]
    return 0.0 if mistake == "no margin" else max((min if mistake == "the nearest" else max)(row) for row in gaps)


def serve(made_by, received, number, mistake):
    """Train on what was received, a prototype at a time (Zhang et al. 2024, eq. 10), and return the classes'."""
    margin = margin_of(received, mistake)
    for epoch in range(EPOCHS):
        stream = torch_stream(SEED, "agent", "server", number, "aggregate.0", "prototypes", epoch)
        for part in torch.randperm(len(received), generator=stream).split(BATCH):
            made, loss = made_by(torch.arange(10)), 0.0
            for place in part.tolist():
                point, label = received[place]
                distance = ((point - made) ** 2).sum(1).sqrt() + margin * F.one_hot(torch.tensor(label), 10)
                loss = loss + distance[label] + torch.logsumexp(-distance, 0)
            descend(loss / len(part), made_by, lr=LR)
    with torch.no_grad():
        return {c: made_by(torch.tensor([c]))[0] for c in sorted({label for _, label in received})}


def fedtgp(data, mistake=""):
    nets, target, made_by = [Net(name[0]) for name in MIXED], {}, Prototypes()
    for number in range(1, ROUNDS + 1):
        told = []
        for agent, net in enumerate(nets):
            for ids in private(data, agent, MIXED, number):
                features = net.body(data.x[ids])
                loss = F.cross_entropy(net.head(features), data.y[ids])
                known = torch.tensor([int(label) in target for label in data.y[ids]])
                if known.any():
                    aim = torch.stack([target[int(label)] for label in data.y[ids][known]])
                    loss = loss + WEIGHT * ((features[known] - aim) ** 2).mean()
                descend(loss, net)
            with torch.no_grad():
                features, labels = net.body(data.x[data.ids[agent]]), data.y[data.ids[agent]]
                told.append({c: features[labels == c].mean(0) for c in sorted(set(labels.tolist()))})
        by_name = [one for _, one in sorted(zip(MIXED, told, strict=True), key=lambda pair: pair[0])]
        received = [(one[c], c) for c in range(10) for one in by_name if c in one]
        if mistake == "made anew":
            made_by = Prototypes()
        target = serve(made_by, received, number, mistake)
        if mistake == "means":
            target = {c: torch.stack([p for p, label in received if label == c]).mean(0) for c in target}
    return nets


@pytest.fixture(scope="module")
def run(conduct):
    return conduct(spec(FEDTGP, MIXED))


def test_fedtgp(run):
    assert farthest(run, fedtgp(Data(run)), MIXED) < 1e-6


@pytest.mark.parametrize("mistake", ["no margin", "the nearest", "made anew", "means"])
def test_a_mistake_would_be_seen(run, mistake):
    assert farthest(run, fedtgp(Data(run), mistake), MIXED) > 1e-4


def test_the_authors_margin_is_theirs(conduct):
    folder = conduct(spec(FEDTGP.replace("farthest", "nearest"), MIXED))
    assert farthest(folder, fedtgp(Data(folder), "the nearest"), MIXED) < 1e-6
