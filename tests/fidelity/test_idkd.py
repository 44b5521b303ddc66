"""IDKD as a whole run against a plain loop: gossip, and late labels of public samples that look like one's own."""

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.streams import torch_stream
from codistill.tests.fidelity.plain import (
    BATCH,
    LR,
    MLPS,
    PEERS,
    SEED,
    Data,
    Net,
    average,
    farthest,
    private,
    spec,
)

ROUNDS, FIRST, EVERY = 5, 2, 2  # labels are made in rounds 2 and 4, and learned from in 3 and 4, and in 5
WEIGHT, BESIDE, LEAST, MOMENTUM = 0.7, 24, 0.55, 0.9
WHEN = f"when: {{from: {FIRST}, every: {EVERY}}}"
SGD = f"optimizer: {{sgd: {{lr: {LR}, momentum: {MOMENTUM}}}}}"
IDKD = f"""
  memories: {{labels: {{kind: episodic, holds: logits}}}}
  round:
    - retrieve: {{memory: labels, knowledge: logits}}
    - train:
        epochs: 1
        batch: {BATCH}
        {SGD}
        losses: [{{pseudo_labels: {{kd_weight: {WEIGHT}, batch: {BESIDE}}}}}]
    - extract: {{knowledge: parameters}}
    - aggregate: {{by: mean, weight: agents}}
    - absorb: {{by: replace}}
    - extract:
        knowledge: logits
        from: public
        scale: probabilities
        filters: [{{confidence: {{least: {LEAST}, scale: probabilities}}}}]
    - aggregate: {{by: mean, weight: agents, {WHEN}}}
    - forget: {{memory: labels, {WHEN}}}
    - store: {{memory: labels}}"""


def labels_of(nets, data, mistake):
    """For each agent: what it and its neighbours say of the public samples that each of them is sure of."""
    told = []
    for net in nets:
        with torch.no_grad():
            p = F.softmax(net(data.x[data.public]), 1)
        sure = p.amax(1) >= (0.0 if mistake == "no gate" else LEAST)
        told.append({int(one): row for one, row, passes in zip(data.public, p, sure, strict=True) if passes})
    made = []
    for agent in range(len(nets)):
        heard = [*([] if mistake == "others alone" else [agent]), *data.neighbours(agent, 1)]
        ids = sorted(set().union(*(told[one] for one in heard)))
        rows = {one: torch.stack([told[k][one] for k in heard if one in told[k]]) for one in ids}
        made.append({one: said.double().mean(0).float() for one, said in rows.items()})
        if mistake == "hard labels":
            made[-1] = {one: F.one_hot(said.argmax(), 10).float() for one, said in made[-1].items()}
    return made


def idkd(data, mistake="", counts=None):
    nets, labels = [Net("m") for _ in MLPS], [{} for _ in MLPS]
    for number in range(1, ROUNDS + 1):
        for agent, net in enumerate(nets):
            steps = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
            draw = torch_stream(SEED, "agent", MLPS[agent], number, "train.0", "pseudo labels")
            known = torch.tensor(list(labels[agent]), dtype=torch.int64)
            for ids in private(data, agent, MLPS, number):
                loss = F.cross_entropy(net(data.x[ids]), data.y[ids])
                if len(known):
                    other = known[torch.randint(len(known), (min(BESIDE, len(known)),), generator=draw)]
                    aim = torch.stack([labels[agent][int(one)] for one in other])
                    loss = loss + WEIGHT * -(aim * F.log_softmax(net(data.x[other]), 1)).sum(1).mean()
                steps.zero_grad()
                loss.backward()
                steps.step()
        means = [
            average([nets[one] for one in heard], [1] * len(heard))
            for heard in ([agent, *data.neighbours(agent, number)] for agent in range(len(nets)))
        ]
        for net, mean in zip(nets, means, strict=True):
            net.load_state_dict(mean)
        if number >= FIRST and (number - FIRST) % EVERY == 0:
            labels = labels_of(nets, data, mistake)
            if counts is not None:
                counts += map(len, labels)
    return nets


@pytest.fixture(scope="module")
def run(conduct):
    return conduct(spec(IDKD, MLPS, PEERS, data="public: {share: 0.2}", rounds=ROUNDS))


def test_idkd(run):
    data, counts = Data(run), []
    assert farthest(run, idkd(data, counts=counts), MLPS) < 1e-6
    assert len(counts) == 10 and all(20 < count < len(data.public) for count in counts), counts


@pytest.mark.parametrize("mistake", ["no gate", "others alone", "hard labels"])
def test_a_mistake_would_be_seen(run, mistake):
    assert farthest(run, idkd(Data(run), mistake), MLPS) > 1e-4
