"""FedCache against a plain loop with its own search for neighbours, and however its work is dealt out."""

import pytest
import torch
import torch.nn.functional as F
from codistill.flows.session import Session
from codistill.tasks.streams import torch_stream

from .test_methods import MIXED, ROUNDS, SEED, Data, Net, descend, farthest, kl, private, spec

ALPHA, K, WIDTH = 1.5, 16, 64
RECIPE = "  use: fedcache\n  with: {train.optimizer: {sgd: {lr: 0.1}}}"
TREE = "pattern: {hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}\n"
TABLES = ("metrics", "ledger", "memory", "clock", "stores", "events")


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


def same(one, other, tables=TABLES):
    assert one.path != other.path
    for table in tables:
        assert one.table(table).read_bytes() == other.table(table).read_bytes(), table
    names = sorted(file.name for file in (one.path / "models").iterdir())
    assert names == sorted(file.name for file in (other.path / "models").iterdir())
    for name in names:
        assert (one.path / "models" / name).read_bytes() == (other.path / "models" / name).read_bytes(), name


def test_a_tree_is_a_star(conduct, star):
    tree = conduct(spec(RECIPE, MIXED).replace("measure:", TREE + "measure:"))
    same(star, tree, ["metrics"])


def test_how_the_work_is_dealt_out_changes_nothing(conduct, star, monkeypatch):
    said = spec(RECIPE, MIXED)
    same(star, conduct(said, lanes=3))
    monkeypatch.setattr("codistill.flows.keeper.ROOM", 0)
    same(star, conduct(said, lanes=2))


def test_a_run_that_is_begun_anew_each_round_ends_alike(conduct, star, monkeypatch):
    commit = Session.commit

    def forgetting(session, number):
        found = commit(session, number)
        session.pool.restart()
        return found

    monkeypatch.setattr(Session, "commit", forgetting)
    same(star, conduct(spec(RECIPE, MIXED), lanes=4))
