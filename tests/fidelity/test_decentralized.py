"""Methods between peers against plain loops, written from the papers; what both share stands in plain.py."""

import math
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.accounting import KEY
from codistill.tasks.packet import read
from codistill.tasks.streams import torch_stream
from codistill.tests.fidelity.alike import same
from codistill.tests.fidelity.plain import (
    BATCH,
    LR,
    MIXED,
    MLPS,
    ROUNDS,
    SEED,
    TRAIN,
    Data,
    Net,
    average,
    descend,
    farthest,
    kl,
    private,
    shuffled,
    spec,
)


def peers(recipe, graph, names=MLPS):
    return spec(recipe, names, f"{{decentralized: {{graph: {graph}}}}}", data="take: {train: 500}")


def mean(nets, shares):
    made = deepcopy(nets[0])
    made.load_state_dict(average(nets, shares))
    return made


# --- Li et al. 2022 (Def-KT)

DEF_KT = f"""
  round:
    - train: {{{TRAIN}}}
    - extract: {{knowledge: parameters}}
    - aggregate: {{by: mean, weight: samples, exclude_self: true}}
    - absorb: {{by: mutual, keep: visitor, ce_weight: 1.0, kd_weight: 0.8, {TRAIN}}}"""


def knowledge_transfer(data, keep="visitor", one_way=False, in_turn=False):
    nets = [Net("m") for _ in MLPS]
    for number in range(1, ROUNDS + 1):
        for agent, net in enumerate(nets):
            for ids in private(data, agent, MLPS, number):
                descend(F.cross_entropy(net(data.x[ids]), data.y[ids]), net)
        sent = [deepcopy(net) for net in nets]
        for agent, net in enumerate(nets):
            for partner in data.neighbours(agent, number):  # one at most
                guest = deepcopy(nets[partner] if in_turn else sent[partner])
                for ids in shuffled(data.ids[agent], MLPS[agent], number, "absorb.0", "absorb", 0):
                    x, y = data.x[ids], data.y[ids]
                    a, b = net(x), guest(x)
                    own = F.cross_entropy(a, y) + 0.8 * kl(a, b)
                    visiting = F.cross_entropy(b, y) + (0.0 if one_way else 0.8 * kl(b, a))
                    descend(own + visiting, net, guest)
                if keep == "visitor":
                    nets[agent] = guest
    return nets


def test_def_kt(conduct):
    folder = conduct(peers(DEF_KT, "pairs"))
    data = Data(folder)
    partners = [[data.neighbours(agent, number) for agent in range(5)] for number in range(1, ROUNDS + 1)]
    assert all(sorted(map(len, row)) == [0, 1, 1, 1, 1] for row in partners) and partners[0] != partners[1]
    assert farthest(folder, knowledge_transfer(data), MLPS) < 1e-6


def test_def_kt_is_not_what_it_is_taken_for(conduct):
    folder = conduct(peers(DEF_KT, "pairs"))
    data = Data(folder)
    for mistake in ({"keep": "own"}, {"one_way": True}, {"in_turn": True}):
        assert farthest(folder, knowledge_transfer(data, **mistake), MLPS) > 1e-4, mistake


def test_def_kts_receiver_may_keep_its_own(conduct):
    folder = conduct(peers(DEF_KT.replace("keep: visitor", "keep: own"), "pairs"))
    assert farthest(folder, knowledge_transfer(Data(folder), keep="own"), MLPS) < 1e-6


# --- Kalra et al. 2023 (ProxyFL), without the noise that no two programs share

CLIP = 0.7
PROXYFL = f"""
  companion: mlp
  round:
    - train:
        {TRAIN.replace(", ", chr(10) + "        ", 2)}
        ce_weight: 0.5
        losses: [{{mutual: {{kd_weight: 0.5, companion_ce_weight: 0.5, companion_kd_weight: 0.5}}}}]
        private: {{noise: 0.0, clip: {CLIP}, sampling: poisson}}
    - extract: {{knowledge: parameters, of: companion}}
    - aggregate: {{by: mean, weight: agents}}
    - absorb: {{by: replace, of: companion}}"""


def clipped_step(proxy, losses, size, by_sample=True):
    """One step with the sum over samples of clipped gradients; returns how many were clipped."""
    weights, clipped = list(proxy.parameters()), 0
    total = [torch.zeros_like(w) for w in weights]
    for loss in losses if by_sample else [torch.stack(losses).mean()]:
        found = torch.autograd.grad(loss, weights, retain_graph=True)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in found))
        clipped += norm > CLIP
        for t, g in zip(total, found, strict=True):
            t += g * min(1.0, CLIP / norm)
    for w, t in zip(weights, total, strict=True):
        w.data -= LR * t / (size if by_sample else 1)
    return clipped


def proxies(data, by_sample=True, by_drawn=False):
    own, shared, clipped = [Net(name[0]) for name in MIXED], [Net("m", "companion") for _ in MIXED], 0
    for number in range(1, ROUNDS + 1):
        for agent, (net, proxy) in enumerate(zip(own, shared, strict=True)):
            held = data.ids[agent]
            draw = torch_stream(SEED, "agent", MIXED[agent], number, "train.0", "shuffle", "private", 0)
            for _ in range(math.ceil(len(held) / BATCH)):
                ids = held[torch.rand(len(held), generator=draw) < BATCH / len(held)]
                if not len(ids):
                    continue
                x, y = data.x[ids], data.y[ids]
                a, b = net(x), proxy(x)
                rows = [slice(row, row + 1) for row in range(len(ids))]
                alone = [0.5 * F.cross_entropy(b[r], y[r]) + 0.5 * kl(b[r], a[r]) for r in rows]
                private = 0.5 * F.cross_entropy(a, y) + 0.5 * kl(a, b)
                clipped += clipped_step(proxy, alone, len(ids) if by_drawn else BATCH, by_sample)
                descend(private, net)
        sent = [deepcopy(proxy) for proxy in shared]
        for agent in range(len(shared)):
            heard = [agent, *data.neighbours(agent, number)]
            shared[agent] = mean([sent[one] for one in heard], [1] * len(heard))
    return own, shared, clipped


def test_proxyfl(conduct):
    folder = conduct(peers(PROXYFL, "exponential", MIXED))
    data = Data(folder)
    assert min(data.sizes) > BATCH  # else a batch by chance would be everything
    own, shared, clipped = proxies(data)
    assert clipped > 50
    assert farthest(folder, own, MIXED) < 1e-6
    assert farthest(folder, shared, MIXED, "companion") < 1e-6


def test_proxyfl_clips_samples_and_divides_by_the_size_expected(conduct):
    folder = conduct(peers(PROXYFL, "exponential", MIXED))
    data = Data(folder)
    for mistake in ({"by_sample": False}, {"by_drawn": True}):
        assert farthest(folder, proxies(data, **mistake)[1], MIXED, "companion") > 1e-4, mistake


# --- Khalil et al. 2024 (DFML), two architectures on a ring, without going back to the best model

DFML = f"""
  round:
    - extract: {{knowledge: parameters}}
    - aggregate: {{by: mean, weight: samples, exclude_self: true}}
    - absorb:
        by: mutual
        {TRAIN.replace(", ", chr(10) + "        ", 2)}
        supervision: weighted_softmax
        kd_schedule: {{period: 4, low: 0.1, high: 0.9}}
        keep: mean"""


def mutual_learning(data, weighed=True):
    nets = [Net(name[0]) for name in MIXED]
    for number in range(1, ROUNDS + 1):
        alpha = 0.1 + 0.8 * (0.0, 0.5, 1.0)[number - 1]
        sent = [deepcopy(net) for net in nets]
        for agent, own in enumerate(nets):
            groups = {}
            for one in data.neighbours(agent, number):
                groups.setdefault(MIXED[one][0], []).append(one)
            guests = {k: mean([sent[i] for i in g], [data.sizes[i] for i in g]) for k, g in groups.items()}
            behind = [data.sizes[agent], *(sum(data.sizes[i] for i in g) for g in groups.values())]
            counts = torch.bincount(data.y[data.ids[agent]], minlength=10).double()
            share = counts / counts.sum() if weighed else torch.ones(10).double()
            everybody = [own, *guests.values()]
            for ids in shuffled(data.ids[agent], MIXED[agent], number, "absorb.0", "absorb", 0):
                x, y = data.x[ids], data.y[ids]
                answers = [net(x) for net in everybody]
                loss = 0.0
                for i, logits in enumerate(answers):
                    terms = share * logits.double().exp()
                    label = -(terms[torch.arange(len(y)), y] / terms.sum(1)).log().mean()
                    others = [j for j in range(len(answers)) if j != i]
                    pull = sum(behind[j] * kl(logits, answers[j]) for j in others) / sum(behind[j] for j in others)
                    loss = loss + (1 - alpha) * label + alpha * pull
                descend(loss, *everybody)
            kind = MIXED[agent][0]
            if kind in guests:
                size = sum(data.sizes[i] for i in groups[kind])
                own.load_state_dict(mean([own, guests[kind]], [data.sizes[agent], size]).state_dict())
    return nets


def test_dfml(conduct):
    folder = conduct(peers(DFML, "ring", MIXED))
    data = Data(folder)
    assert farthest(folder, mutual_learning(data), MIXED) < 1e-6
    assert farthest(folder, mutual_learning(data, weighed=False), MIXED) > 1e-4


# --- the work dealt out anew, and begun anew each round: noise, accounts and best models are where they were

PEAK = DFML + "\n        keep_peak: true"
NOISY = PROXYFL.replace("noise: 0.0", "noise: 1.0")


@pytest.mark.parametrize("recipe", [NOISY, PEAK], ids=["proxyfl", "dfml"])
def test_neither_workers_nor_a_resume_change_anything(conduct, recipe, monkeypatch, begun_anew):
    said = peers(recipe, "exponential", MIXED)
    whole = conduct(said)
    begun_anew()
    monkeypatch.setattr("codistill.flows.keeper.ROOM", 0)
    same(whole, conduct(said, lanes=3))


def test_an_account_is_kept_with_the_agent(conduct):
    folder = conduct(peers(NOISY, "exponential", MIXED))
    sizes = Data(folder).sizes
    for place, size in enumerate(sizes):
        kept = folder.state(ROUNDS, place)
        account = read(kept.with_name(f"{place}.procedural.{KEY.replace(' ', '%20')}.arrow"))
        assert account.weights.tolist() == [ROUNDS * math.ceil(size / BATCH)]
        assert account.values[0].tolist() == pytest.approx([1.0, BATCH / size, 1e-5], rel=1e-6)
