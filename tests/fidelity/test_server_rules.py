"""What the server of FedTGP and of KT-pFL computes in a round, against plain loops written from papers and their code.

What both share: the initial weights and the order of batches, from the addresses at which a run draws them.
"""

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.agent import Agent, Context, World
from codistill.tasks.aggregate import Aggregate, aggregate
from codistill.tasks.knowledge import Rows
from codistill.tasks.streams import seed_of, torch_stream
from codistill.tests.fidelity.alike import same
from codistill.tests.fidelity.plain import PEERS, SEED, TREE
from pydantic import TypeAdapter
from torch import nn

CLASSES, WIDTH = 6, 8
NAMES = ["m-1", "m-2", "m-3", "m-4"]


def top():
    nothing = torch.empty(0, dtype=torch.int64)
    return Agent("cloud", "cloud", "server", nothing, nothing, {})


def context(number):
    nothing = torch.empty(0)
    world = World(nothing, nothing.long(), nothing, nothing.long(), CLASSES, nothing.long(), False, {})
    return Context(world, seed=SEED, round=number, rounds=5, place="aggregate.0")


def packet(form, name, ids, values):
    owners = torch.zeros(len(ids), dtype=torch.int64)
    return Rows(form, torch.tensor(ids), values, torch.ones(len(ids)).double(), 1.0, None, (name,), owners)


# --- Zhang et al. 2024 (FedTGP)

HELD = [[0, 1, 2], [1, 2, 4], [0, 4], [0, 2, 4]]  # classes 3 and 5 nobody has


def uploads(number):
    generator = torch.Generator().manual_seed(number)
    return [{c: torch.randn(WIDTH, generator=generator) + c for c in classes} for classes in HELD]


class PublishedPrototypes(nn.Module):
    def __init__(self):
        super().__init__()
        self.vectors = nn.Embedding(CLASSES, WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, ids):
        return self.outer(F.relu(self.inner(self.vectors(ids))))


def fedtgp(rounds, epochs, batch, lr, tau, nearest=False, forgets_margin=False):
    """Return, for each round, the prototypes of classes 0, 1, 2 and 4."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(SEED, "agent", "cloud", "module", "trainable_prototypes"))
        net = PublishedPrototypes()
    for number in range(1, rounds + 1):
        sent = uploads(number)
        received = [(p[c], c) for c in range(CLASSES) for p in sent if c in p]
        centers = {c: torch.stack([p for p, k in received if k == c]).mean(0) for c in {k for _, k in received}}
        gaps = {a: [(centers[a] - centers[b]).norm().item() for b in centers if b != a] for a in centers}
        margin = min(max((min if nearest else max)(row) for row in gaps.values()), tau)
        for epoch in range(epochs):
            stream = torch_stream(SEED, "agent", "cloud", number, "aggregate.0", "prototypes", epoch)
            for part in torch.randperm(len(received), generator=stream).split(batch):
                made, loss = net(torch.arange(CLASSES)), 0
                for place in part.tolist():
                    point, label = received[place]
                    distance = torch.stack([((point - made[c]) ** 2).sum().sqrt() for c in range(CLASSES)])
                    if not forgets_margin:
                        distance = distance + margin * F.one_hot(torch.tensor(label), CLASSES)
                    loss = loss - torch.log(torch.exp(-distance[label]) / torch.exp(-distance).sum())
                weights = list(net.parameters())
                for w, slope in zip(weights, torch.autograd.grad(loss / len(part), weights), strict=True):
                    w.data -= lr * slope
        yield net(torch.tensor([0, 1, 2, 4])).detach()


@pytest.mark.parametrize(("margin", "tau"), [("farthest", 100.0), ("nearest", 100.0), ("farthest", 0.8)])
def test_fedtgps_server_step(margin, tau):
    agent = top()
    said = {"by": "trainable_prototypes", "epochs": 5, "batch": 4, "optimizer": {"sgd": {"lr": 0.1}}}
    rule = TypeAdapter(Aggregate).validate_python(said | {"margin": margin, "most_margin": tau})
    expected = list(fedtgp(2, 5, 4, 0.1, tau, margin == "nearest"))
    wrong = list(fedtgp(2, 5, 4, 0.1, tau, forgets_margin=True))
    for number, aim, other in zip((1, 2), expected, wrong, strict=True):
        packets = [
            packet("prototypes", name, list(p), torch.stack(list(p.values())))
            for name, p in zip(NAMES, uploads(number), strict=True)
        ]
        found = aggregate(agent, packets, rule, context(number))
        assert found.ids.tolist() == [0, 1, 2, 4]
        # Eight roundings of the largest number; without the margin it is ten thousand times as far away, at least.
        rounding = 8 * torch.finfo(torch.float32).eps * aim.abs().max()
        assert (found.values - aim).abs().max() < rounding
        assert (found.values - other).abs().max() > 10000 * rounding


# --- Zhang et al. 2021 (KT-pFL)


def answers(number):
    generator = torch.Generator().manual_seed(number)
    return [torch.softmax(2 * torch.randn(7, CLASSES, generator=generator), 1) for _ in NAMES]


def kt_pfl(rounds, lr, rho, mistake=""):
    """One client after the other, as the published code goes; returns coefficients and mixtures of each round."""
    count = len(NAMES)
    c = torch.full((count, count), 1 / count)
    for number in range(1, rounds + 1):
        said = answers(number)
        moved = torch.zeros_like(c)
        for k in range(count):
            row = c[k].clone().requires_grad_()
            teacher = torch.zeros(7, CLASSES)
            for j in range(count):
                if not (mistake == "not itself" and j == k):
                    teacher = teacher + row[j] * said[j]
            loss = F.mse_loss(said[k], teacher) + rho * ((row - 1 / count) ** 2).sum()
            loss.backward()
            moved[k] = row.detach() - lr * row.grad
        c = torch.softmax((1 if mistake == "blunt" else 5) * moved, 1)
        yield c, [sum(c[k, j] * said[j] for j in range(count)) for k in range(count)]


def test_kt_pfls_coefficients():
    agent = top()
    said = {"by": "coefficients", "uniform_weight": 0.2, "sharpness": 5, "optimizer": {"sgd": {"lr": 0.9}}}
    rule = TypeAdapter(Aggregate).validate_python(said)
    runs = zip(kt_pfl(3, 0.9, 0.2), kt_pfl(3, 0.9, 0.2, "not itself"), kt_pfl(3, 0.9, 0.2, "blunt"), strict=True)
    for number, ((c, mixtures), (unlike, _), (blunt, _)) in enumerate(runs, start=1):
        packets = [
            packet("logits", name, list(range(10, 17)), values)
            for name, values in zip(NAMES, answers(number), strict=True)
        ]
        found = aggregate(agent, packets, rule, context(number))
        held = agent.memory.recall("emotional", "valence").values
        assert (held - c).abs().max() < 1e-6
        assert (held - unlike).abs().max() > 1e-4 and (held - blunt).abs().max() > 1e-4
        for name, mixture in zip(NAMES, mixtures, strict=True):
            assert (found.of(name).values - mixture).abs().max() < 1e-6


# --- Whole runs: what an aggregator trained and thinks of others is the same after it waited on disk

WHOLE = [
    ("{use: fedtgp, with: {aggregate.epochs: 4}}", "distributed"),
    ("{use: fedtgp, with: {aggregate.epochs: 4}}", PEERS),
    ("kt-pfl", TREE),
    ("fedal", "distributed"),
    ("fedal", PEERS),
]


@pytest.mark.parametrize(("recipe", "pattern"), WHOLE)
def test_nothing_is_lost_between_rounds(conduct, monkeypatch, recipe, pattern):
    said = f"""
name: kept
seed: 2
rounds: 4
data: {{dataset: digits, partition: {{by: dirichlet, alpha: 0.3, min_size: 10}}, public: {{share: 0.1}}}}
agents: [{{name: m, count: 4, model: mlp}}, {{name: l, count: 2, model: mlp}}]
pattern: {pattern}
participation: {{share: 0.6}}
measure: {{control: none, metrics: [cross_entropy]}}
recipe: {recipe}
"""
    one = conduct(said)
    monkeypatch.setattr("codistill.flows.keeper.ROOM", 0)
    other = conduct(said, lanes=2)
    same(one, other)
