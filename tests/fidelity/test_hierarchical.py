"""FedGKT and FedAgg as whole runs: against plain loops written from the papers, and under every pattern."""

import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.streams import seed_of, torch_stream
from codistill.tests.fidelity.alike import apart, same
from codistill.tests.fidelity.plain import (
    BATCH,
    LR,
    MIXED,
    PEERS,
    SEED,
    Data,
    Net,
    descend,
    farthest,
    kl,
    shuffled,
    spec,
)
from torch import nn

ROUNDS = 2
STAR = "{distributed: {server: {name: top}}}"
SGD = f"optimizer: {{sgd: {{lr: {LR}}}}}"

FEDGKT = f"""
  use: fedgkt
  with:
    train.batch: {BATCH}
    train.optimizer: {{sgd: {{lr: {LR}}}}}
    train.losses: [{{sample_logits: {{kd_weight: 0.7, temperature: 3.0}}}}]
    aggregate.hidden: [48, 24]
    aggregate.epochs: 2
    aggregate.batch: 40
    aggregate.optimizer: {{sgd: {{lr: 0.05}}}}
    aggregate.kd_weight: 0.6
    aggregate.temperature: 2.0"""


def edges(recipe, pattern=STAR, rounds=ROUNDS, more="", partition="by: dirichlet, alpha: 0.3, min_size: 10"):
    said = spec(recipe, MIXED, pattern, partition, "public: {share: 0.2}", rounds, "[accuracy, cross_entropy]")
    return f"{said}{more}\n"


# --- He et al. 2020 (FedGKT), algorithm 1, in a star


def group_knowledge_transfer(data, mistake=""):
    nets, answers = [Net(name[0]) for name in MIXED], {}
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(SEED, "agent", "top", "module", "beyond_the_cut"))
        large = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10))
    for number in range(1, ROUNDS + 1):
        told = {}
        for name, net, own in zip(MIXED, nets, data.ids, strict=True):
            for ids in shuffled(own, name, number, "train.0", "shuffle", "private", 0):
                logits = net(data.x[ids])
                loss = F.cross_entropy(logits, data.y[ids])
                if answers:
                    loss = loss + 0.7 * kl(logits, torch.stack([answers[int(one)] for one in ids]), 3.0)
                descend(loss, net)
            with torch.no_grad():
                features = net.body(data.x[own])
                for place, one in enumerate(own.tolist()):
                    told[one] = (features[place], net.head(features)[place], data.y[one])
        everything = torch.tensor(sorted(told))
        for epoch in range(2):
            for ids in shuffled(everything, "top", number, "aggregate.0", "features", epoch, size=40):
                features, logits, labels = (torch.stack([told[int(one)][part] for one in ids]) for part in range(3))
                given = large(features)
                loss = F.cross_entropy(given, labels)
                if mistake != "server learns from labels alone":
                    loss = loss + 0.6 * kl(given, logits, 2.0)
                descend(loss, large, lr=0.05)
        with torch.no_grad():
            answers = {one: large(told[one][0][None])[0] for one in told}
        if mistake == "by place":
            for own in data.ids:
                said = [answers[one] for one in own.tolist()]
                answers |= dict(zip(own.sort().values.flip(0).tolist(), said, strict=True))
    return nets


def test_fedgkt(conduct):
    folder = conduct(edges(FEDGKT))
    data = Data(folder)
    assert farthest(folder, group_knowledge_transfer(data), MIXED) < 1e-6
    for mistake in ("server learns from labels alone", "by place"):
        assert farthest(folder, group_knowledge_transfer(data, mistake), MIXED) > 1e-4


# --- Wu et al. 2024 (FedAgg), algorithm 1 in a star: each learner and the server are a pair

FEDAGG = f"""
  use: fedagg
  with:
    train.batch: {BATCH}
    train.optimizer: {{sgd: {{lr: {LR}}}}}
    extract.keys: {{principal: {{width: 20}}}}
    absorb.batch: {BATCH}
    absorb.optimizer: {{sgd: {{lr: 0.02}}}}
    absorb.kd_weight: 4.0
    absorb.own_kd_weight: 0.8
    absorb.own_ce_weight: 0.5
    absorb.temperature: 2.0"""
LARGE = "{distributed: {server: {name: top, model: {mlp: {hidden: [96]}}}}}"


def agglomerative(data, mistake=""):
    nets = [Net(name[0]) for name in MIXED]
    with torch.random.fork_rng():
        torch.manual_seed(torch_stream(SEED, "initial", "model", "mlp(hidden=96)").initial_seed())
        large = nn.Sequential(nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
    flat = data.x[data.public].flatten(1).double()
    center = flat.mean(0)
    axes, center = torch.linalg.svd(flat - center, full_matrices=False).Vh[:20].float(), center.float()
    whole = ((data.x.flatten(1) - center) @ axes.T @ axes + center).view_as(data.x)
    bridge = data.x if mistake == "the samples themselves" else whole

    def said(net, ids):
        with torch.no_grad():
            return dict(zip(ids.tolist(), net(bridge[ids]), strict=True))

    for number in range(1, ROUNDS + 1):
        below = {}
        for name, net, own in zip(MIXED, nets, data.ids, strict=True):
            for ids in shuffled(own, name, number, "train.0", "shuffle", "private", 0):
                descend(F.cross_entropy(net(data.x[ids]), data.y[ids]), net)
            below |= said(net, own)
        everything = torch.tensor(sorted(below))
        for ids in shuffled(everything, "top", number, "absorb.0", "bridge", "from below", 0):
            given = large(bridge[ids])
            teacher = torch.stack([below[int(one)] for one in ids])
            descend(F.cross_entropy(given, data.y[ids]) + 4.0 * kl(given, teacher, 2.0), large, lr=0.02)
        above = said(large, everything)
        for name, net, own in zip(MIXED, nets, data.ids, strict=True):
            own = own.sort().values
            for ids in shuffled(own, name, number, "absorb.0", "bridge", "from above", 0):
                given = net(bridge[ids])
                teacher = torch.stack([above[int(one)] for one in ids])
                gamma = 4.0 if mistake == "one gamma" else 0.8
                loss = F.cross_entropy(given, data.y[ids]) + gamma * kl(given, teacher, 2.0)
                descend(loss + 0.5 * F.cross_entropy(net(data.x[ids]), data.y[ids]), net, lr=0.02)
    return nets


def test_fedagg(conduct):
    folder = conduct(edges(FEDAGG, LARGE))
    data = Data(folder)
    assert farthest(folder, agglomerative(data), MIXED) < 1e-5  # 1e-7, but where rounding moves a value over a kink
    for mistake in ("the samples themselves", "one gamma"):
        assert farthest(folder, agglomerative(data, mistake), MIXED) > 1e-4


# --- Both under every pattern

MLP = "model: {mlp: {hidden: [96]}}"
TOP = f"{{name: top, {MLP}}}"
THROUGH = {  # edges without a model pass on what agents say
    "one edge": f"{{hierarchical: {{tiers: [{{name: edge}}, {TOP}]}}}}",
    "two edges": f"{{hierarchical: {{tiers: [{{name: edge, count: 2}}, {TOP}]}}}}",
    "three tiers": f"{{hierarchical: {{tiers: [{{name: edge, count: 3}}, {{name: region, count: 2}}, {TOP}]}}}}",
}
EDGES = f"{{name: edge, count: 3, {MLP}}}"
GROWING = {
    "two tiers": f"{{hierarchical: {{forward: own, tiers: [{EDGES}, {TOP}]}}}}",
    "three tiers": f"{{hierarchical: {{forward: own, tiers: [{EDGES}, {{name: region, count: 2, {MLP}}}, {TOP}]}}}}",
}


def without_model(pattern):
    return pattern.replace(f", {MLP}", "")


def senders(folder):
    links = pq.read_table(folder.table("ledger")).to_pylist()
    return {link["from"] for link in links if link["round"] == ROUNDS}


@pytest.mark.parametrize("tree", THROUGH)
@pytest.mark.parametrize(("recipe", "models"), [(FEDGKT, without_model), (FEDAGG, str)], ids=["fedgkt", "fedagg"])
def test_a_tree_that_passes_on_is_the_star(conduct, recipe, models, tree):
    star, other = conduct(edges(recipe, models(LARGE))), conduct(edges(recipe, models(THROUGH[tree])))
    assert apart(star, other, MIXED, "model/") < 1e-6
    assert any(name.startswith("edge") for name in senders(other)) and "top" in senders(other)


@pytest.mark.parametrize("tree", GROWING)
def test_with_models_at_every_tier_all_of_them_learn(conduct, tree):
    star, other = (conduct(edges(FEDAGG, one, 8, partition="by: iid")) for one in (LARGE, GROWING[tree]))
    assert apart(star, other, MIXED, "model/") > 1e-4
    found = pq.read_table(other.table("metrics")).to_pylist()
    first, last = (
        {row["agent"]: row["value"] for row in found if row["round"] == number and row["metric"] == "cross_entropy"}
        for number in (1, 8)
    )
    tiers = {"edge", "top", "region"} if tree == "three tiers" else {"edge", "top"}
    assert {name.split("-")[0] for name in last} == {"m", "c"} | tiers
    assert max(last.values()) < 1.7 and all(last[name] < first[name] - 0.3 for name in last), (first, last)


@pytest.mark.parametrize("recipe", [FEDGKT, FEDAGG], ids=["fedgkt", "fedagg"])
def test_peers_learn_from_their_neighbours(conduct, recipe):
    ring, complete = conduct(edges(recipe, PEERS)), conduct(edges(recipe, PEERS.replace("ring", "complete")))
    alone = conduct(edges(f"  round: [{{train: {{epochs: 1, batch: {BATCH}, {SGD}}}}}]", PEERS))
    assert apart(ring, alone, MIXED, "model/") > 1e-3 and apart(ring, complete, MIXED, "model/") > 1e-4
    assert senders(ring) == set(MIXED)


RUNS = {
    "fedgkt in a tree": (FEDGKT, without_model(THROUGH["two edges"])),
    "fedgkt among peers": (FEDGKT, PEERS),
    "fedagg in a tree": (FEDAGG, GROWING["three tiers"]),
    "fedagg among peers": (FEDAGG, PEERS),
}


@pytest.mark.parametrize("run", RUNS)
def test_neither_workers_nor_what_is_kept_nor_a_new_beginning_change_anything(conduct, run, monkeypatch, begun_anew):
    recipe, pattern = RUNS[run]
    said = edges(recipe, pattern, rounds=3, more="participation: {share: 0.8}")
    plain = conduct(said)
    begun_anew()
    monkeypatch.setattr("codistill.flows.keeper.ROOM", 0)
    same(plain, conduct(said, lanes=3))
