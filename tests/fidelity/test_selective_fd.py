"""Selective-FD as a whole run against a plain loop: who may speak of which sample, and what is too ambiguous."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.streams import torch_stream
from codistill.tests.fidelity.plain import (
    BATCH,
    MIXED,
    ROUNDS,
    SEED,
    TRAIN,
    Data,
    Net,
    descend,
    farthest,
    private,
    shuffled,
    spec,
)

BASIS, INSIDE, AMBIGUOUS = 40, 0.6, 0.75
SELECTIVE = f"""
  start:
    - train: {{{TRAIN}}}
  round:
    - extract:
        knowledge: logits
        from: public
        scale: probabilities
        filters: [{{density_ratio: {{share: {INSIDE}, basis: {BASIS}}}}}]
    - aggregate: {{by: mean, weight: agents, select: [{{entropy: {{scale: probabilities, share: {AMBIGUOUS}}}}}]}}
    - absorb: {{by: distil, loss: soft_cross_entropy, on: public, {TRAIN}}}
    - train: {{{TRAIN}}}"""


def near(a, b, sigma):
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(2) / (2 * sigma**2))


def looks_like_own(data, agent, mistake=""):
    """Which public samples lie where the agent's own are dense (Kanamori et al. 2012, in closed form), bool [P]."""
    own, draw = data.ids[agent], torch_stream(SEED, "agent", MIXED[agent], "density_ratio")
    flat = data.x.double().flatten(1).numpy()
    order = own[torch.randperm(len(own), generator=draw)].numpy()
    inside = min(BASIS, len(own) // 2)
    inner, outer = flat[order[:inside]], flat[order[inside:]]
    low, high = inner.min(), inner.max()
    even = low + (high - low) * torch.rand(BASIS, 64, generator=draw, dtype=torch.float64).numpy()
    apart = sorted(math.dist(inner[i], inner[j]) for i in range(inside) for j in range(i))
    sigma, ridge = apart[(len(apart) - 1) // 2], 1 / math.sqrt(BASIS)
    left = near(even, even, sigma) / BASIS + ridge * np.eye(BASIS)
    right = -near(even, inner, sigma).sum(1) / (BASIS * inside * ridge)
    alpha = left @ right if mistake == "multiplies" else np.linalg.inv(left) @ right

    def ratio(x):
        return near(x, even, sigma) @ alpha + near(x, inner, sigma).sum(1) / (inside * ridge)

    threshold = np.sort(ratio(outer))[::-1][math.ceil(INSIDE * len(outer)) - 1]
    return ratio(flat[data.public.numpy()]) >= threshold


def selective(data, mistake="", counts=None):
    nets = [Net(name[0]) for name in MIXED]
    may = [looks_like_own(data, agent, mistake) for agent in range(len(nets))]
    if mistake == "everybody speaks":
        may = [np.ones_like(one) for one in may]

    def learn(number, place):
        for agent, net in enumerate(nets):
            for ids in private(data, agent, MIXED, number, place):
                descend(F.cross_entropy(net(data.x[ids]), data.y[ids]), net)

    learn(0, "start.train.0")
    for number in range(1, ROUNDS + 1):
        with torch.no_grad():
            said = [F.softmax(net(data.x[data.public]), 1).double() for net in nets]
        target = {}
        for place, one in enumerate(data.public.tolist()):
            voices = [rows[place] for rows, passes in zip(said, may, strict=True) if passes[place]]
            if voices:
                mean = (sum(voices) / len(voices)).float()
                ambiguity = -sum(float(p) * math.log(float(p)) for p in mean.double() / mean.double().sum() if p > 0)
                if ambiguity <= AMBIGUOUS * math.log(10) or mistake == "nothing is ambiguous":
                    target[one] = mean
        known = torch.tensor(sorted(target), dtype=torch.int64)
        for agent, net in enumerate(nets if len(known) else []):
            for ids in shuffled(known, MIXED[agent], number, "absorb.0", "absorb", 0):
                aim = torch.stack([target[int(one)] for one in ids])
                descend(-(aim * F.log_softmax(net(data.x[ids]), 1)).sum(1).mean(), net)
        learn(number, "train.0")
        if counts is not None:
            counts.append((len(set().union(*(np.flatnonzero(one) for one in may))), len(known)))
    return nets


@pytest.fixture(scope="module")
def run(conduct):
    return conduct(spec(SELECTIVE, MIXED, data="public: {share: 0.2}"))


def test_selective_fd(run):
    data, counts = Data(run), []
    assert min(data.sizes) > BATCH // 2
    assert farthest(run, selective(data, counts=counts), MIXED) < 1e-6
    for spoken_of, learned in counts:  # both selectors turn some away, and let some in
        assert BATCH < learned < spoken_of < len(data.public), counts


@pytest.mark.parametrize("mistake", ["everybody speaks", "nothing is ambiguous", "multiplies"])
def test_a_mistake_would_be_seen(run, mistake):
    """``multiplies``: by the matrix of the estimate, where the equation is to be solved, as the published code does."""
    assert farthest(run, selective(Data(run), mistake), MIXED) > 1e-4
