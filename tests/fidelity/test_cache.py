"""FedCache against a plain loop, as in test_methods.py: no store, retrieval or term of the package in it."""

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.streams import torch_stream

from .test_methods import MIXED, ROUNDS, SEED, TRAIN, Data, Net, descend, farthest, private, spec

WIDTH, NEAREST, WEIGHT, WARM = 24, 5, 0.9, 2.0

# --- Wu et al. 2024 (FedCache): of each sample, what others said of the most similar ones of its class

FEDCACHE = f"""
  memories:
    cache: {{kind: episodic, holds: logits, keys: float32}}
    answers: {{kind: episodic, holds: logits}}
  round:
    - retrieve: {{memory: answers, knowledge: logits}}
    - train: {{{TRAIN}, losses: [{{sample_logits: {{kd_weight: {WEIGHT}, temperature: {WARM}}}}}]}}
    - extract:
        knowledge: logits
        from: private
        labels: true
        keys: {{projection: {{width: {WIDTH}}}}}
        keys_when: {{until: 1}}
    - aggregate: {{by: collect, weight: agents}}
    - store: {{memory: cache, who: top}}
    - retrieve:
        memory: cache
        knowledge: logits
        who: top
        for: received
        by: {{nearest: {{k: {NEAREST}, similarity: cosine, same_class: true, not_mine: true}}}}
    - store: {{memory: answers}}"""


def relations(data, mistake):
    """For each sample of anybody the samples whose logits it is answered with: {id: ids}, none where there are none."""
    matrix = torch.randn(64, WIDTH, generator=torch_stream(SEED, "keys", "projection", WIDTH)).double()
    key = F.normalize(data.x.flatten(1).double() @ matrix, dim=1)
    ids = torch.cat(data.ids)
    owner = torch.repeat_interleave(torch.arange(len(data.ids)), torch.tensor(data.sizes))
    may = ~torch.eye(len(ids), dtype=torch.bool)
    if mistake != "its own samples":
        may &= owner[:, None] != owner
    if mistake != "any class":
        may &= data.y[ids][:, None] == data.y[ids]
    alike = (key[ids] @ key[ids].T).masked_fill(~may, float("-inf"))
    nearest = ids[alike.topk(NEAREST).indices]
    return {int(id): row[: int(n)].tolist() for id, row, n in zip(ids, nearest, may.sum(1), strict=True)}


def cached_learning(data, mistake=None):
    nets, asked, answers = [Net(name[0]) for name in MIXED], relations(data, mistake), {}
    for number in range(1, ROUNDS + 1):
        cache = {}
        for agent, net in enumerate(nets):
            for ids in private(data, agent, MIXED, number):
                logits = net(data.x[ids])
                loss = F.cross_entropy(logits, data.y[ids])
                known = torch.tensor([int(id) in answers for id in ids])
                if known.any():
                    said = torch.stack([answers[int(id)] for id in ids[known]])
                    p, log_q = F.softmax(said / WARM, 1), F.log_softmax(logits[known] / WARM, 1)
                    loss = loss + WEIGHT * WARM**2 * (p * (p.log() - log_q)).sum() / len(ids)
                descend(loss, net)
            told = net(data.x[data.ids[agent]]).detach()
            cache |= {int(id): row for id, row in zip(data.ids[agent], told, strict=True)}
        answers = {
            id: torch.stack([cache[other] for other in others]).mean(0) for id, others in asked.items() if others
        }
    return nets


def test_fedcache(conduct):
    folder = conduct(spec(FEDCACHE, MIXED))
    assert farthest(folder, cached_learning(Data(folder)), MIXED) < 1e-6


@pytest.mark.parametrize("mistake", ["its own samples", "any class"])
def test_fedcache_asks_others_about_the_same_class(conduct, mistake):
    folder = conduct(spec(FEDCACHE, MIXED))
    assert farthest(folder, cached_learning(Data(folder), mistake), MIXED) > 1e-4
