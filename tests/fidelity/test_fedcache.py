"""FedCache against a plain loop with its own search for neighbours, and however its work is dealt out."""

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.streams import torch_stream
from codistill.tests.fidelity.alike import same
from codistill.tests.fidelity.plain import MIXED, ROUNDS, SEED, TREE, Data, Net, descend, farthest, kl, private, spec

ALPHA, K, WIDTH = 1.5, 16, 64
RECIPE = "  use: fedcache\n  with: {train.optimizer: {sgd: {lr: 0.1}}}"


def keys(data):
    matrix = torch.randn(64, WIDTH, generator=torch_stream(SEED, "keys", "projection", WIDTH)) / WIDTH**0.5
    return F.normalize((data.x.flatten(1) @ matrix).double(), dim=1)


def neighbours(data, code, agent, sample, same_class=True, not_mine=True):
    """The (agent, sample) pairs whose keys are nearest to the sample's: of its class, and of others."""
    pairs = [
        (other, int(one))
        for other, ids in enumerate(data.ids)
        for one in ids
        if not (not_mine and other == agent) and not (same_class and data.y[one] != data.y[sample])
    ]
    if not pairs:
        return []
    near = code[torch.tensor([one for _, one in pairs])] @ code[sample]
    return [pairs[place] for place in near.argsort(descending=True)[:K].tolist()]


def fedcache(data, **rule):
    """Train against the mean of what others said of similar samples; tell; be answered (Wu et al. 2024)."""
    code = keys(data)
    found = [
        {int(one): neighbours(data, code, agent, int(one), **rule) for one in ids} for agent, ids in enumerate(data.ids)
    ]
    nets, answers = [Net(name[0]) for name in MIXED], [{} for _ in MIXED]
    for number in range(1, ROUNDS + 1):
        for agent, net in enumerate(nets):
            for ids in private(data, agent, MIXED, number):
                said = net(data.x[ids])
                loss = F.cross_entropy(said, data.y[ids])
                known = [place for place, one in enumerate(ids.tolist()) if one in answers[agent]]
                if known:
                    teacher = torch.stack([answers[agent][int(ids[place])] for place in known])
                    loss = loss + ALPHA * kl(said[known], teacher) * len(known) / len(ids)
                descend(loss, net)
        with torch.no_grad():
            told = [net(data.x[ids]) for ids, net in zip(data.ids, nets, strict=True)]
        cache = [dict(zip(ids.tolist(), rows, strict=True)) for ids, rows in zip(data.ids, told, strict=True)]
        for agent in range(len(MIXED)):
            answers[agent] = {
                one: torch.stack([cache[other][sample] for other, sample in near]).mean(0)
                for one, near in found[agent].items()
                if near
            }
    return nets


@pytest.fixture(scope="module")
def star(conduct):
    return conduct(spec(RECIPE, MIXED))


def test_it_is_the_published_loop(star):
    assert farthest(star, fedcache(Data(star)), MIXED) < 1e-6


@pytest.mark.parametrize("mistake", [{"same_class": False}, {"not_mine": False}], ids=["other classes", "own samples"])
def test_a_mistake_would_be_seen(star, mistake):
    assert farthest(star, fedcache(Data(star), **mistake), MIXED) > 1e-3


def test_a_tree_is_a_star(conduct, star):
    tree = conduct(spec(RECIPE, MIXED, TREE))
    same(star, tree, ["metrics"])


def test_how_the_work_is_dealt_out_changes_nothing(conduct, star, monkeypatch):
    said = spec(RECIPE, MIXED)
    same(star, conduct(said, lanes=3))
    monkeypatch.setattr("codistill.flows.keeper.ROOM", 0)
    same(star, conduct(said, lanes=2))


def test_a_run_that_is_begun_anew_each_round_ends_alike(conduct, star, begun_anew):
    begun_anew()
    same(star, conduct(spec(RECIPE, MIXED), lanes=4))
