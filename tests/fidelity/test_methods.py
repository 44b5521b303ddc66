"""Complete runs against plain loops, written from the papers; what both share stands in plain.py."""

import pytest
import torch
import torch.nn.functional as F
from codistill.tests.fidelity.plain import (
    BATCH,
    LR,
    MIXED,
    MLPS,
    ROUNDS,
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

MEAN = """
    - extract: {knowledge: parameters}
    - aggregate: {by: mean, weight: samples}
    - absorb: {by: replace}"""


def kl_over_classes(student, teacher):
    """The mean over classes too, as KLDivLoss("mean") takes it: a mistake of published code."""
    return kl(student, teacher) / student.shape[1]


# --- McMahan et al. 2017, Li et al. 2020 (FedProx), Lee et al. 2022 (FedNTD): a server's mean, three local losses


def averaged(data, term):
    nets = [Net("m") for _ in MLPS]
    for number in range(1, ROUNDS + 1):
        for agent, net in enumerate(nets):
            began = Net("m")
            began.load_state_dict(net.state_dict())
            for ids in private(data, agent, MLPS, number):
                x, y = data.x[ids], data.y[ids]
                logits = net(x)
                descend(F.cross_entropy(logits, y) + term(net, began, x, y, logits), net)
        mean = average(nets, data.sizes)
        for net in nets:
            net.load_state_dict(mean)
    return nets


def proximal(net, began, x, y, logits):
    return (
        0.25 / 2 * sum(((w - b.detach()) ** 2).sum() for w, b in zip(net.parameters(), began.parameters(), strict=True))
    )


def not_true(net, began, x, y, logits, leave_out=True):
    hidden = F.one_hot(y, 10).bool() if leave_out else torch.zeros(len(y), 10, dtype=torch.bool)
    log_q, log_p = (
        torch.log_softmax((z / 2).masked_fill(hidden, float("-inf")), 1).masked_fill(hidden, 0)
        for z in (logits, began(x).detach())
    )
    return 0.7 * 4 * (log_p.exp().masked_fill(hidden, 0) * (log_p - log_q)).sum() / len(y)


AVERAGED = {
    "fedavg": ("", lambda *anything: 0.0),
    "fedprox": (", losses: [{proximal: {proximal_weight: 0.25}}]", proximal),
    "fedntd": (", losses: [{not_true: {kd_weight: 0.7, temperature: 2.0}}]", not_true),
}


def fedavg_spec(losses="", names=MLPS):
    return spec(f"  round:\n    - train: {{{TRAIN}{losses}}}{MEAN}", names)


@pytest.mark.parametrize("method", AVERAGED)
def test_averaging(conduct, method):
    said, term = AVERAGED[method]
    folder = conduct(fedavg_spec(said))
    data = Data(folder)
    assert farthest(folder, averaged(data, term), MLPS) < 1e-6
    if method != "fedavg":
        assert farthest(folder, averaged(data, lambda *anything: 0.0), MLPS) > 1e-4


def test_not_true_distillation_is_no_plain_distillation(conduct):
    folder = conduct(fedavg_spec(AVERAGED["fedntd"][0]))
    plain = averaged(Data(folder), lambda *those: not_true(*those, leave_out=False))
    assert farthest(folder, plain, MLPS) > 1e-4


def test_mixed_architectures_are_averaged_apart(conduct):
    folder = conduct(fedavg_spec("", MIXED))
    data = Data(folder)
    nets = [Net(name[0]) for name in MIXED]
    for number in range(1, ROUNDS + 1):
        for agent, net in enumerate(nets):
            for ids in private(data, agent, MIXED, number):
                descend(F.cross_entropy(net(data.x[ids]), data.y[ids]), net)
        for members in ((0, 1, 2), (3, 4)):
            mean = average([nets[m] for m in members], [data.sizes[m] for m in members])
            for m in members:
                nets[m].load_state_dict(mean)
    assert farthest(folder, nets, MIXED) < 1e-6


# --- Jeong et al. 2018 (FD), Tan et al. 2022 (FedProto): class means travel

FEW = "by: shards, classes_per_agent: 3"
FD = f"""
  round:
    - retrieve: {{memory: semantic, knowledge: class_logits}}
    - train: {{{TRAIN}, losses: [{{class_logits: {{kd_weight: 0.8}}}}]}}
    - extract: {{knowledge: class_logits, from: training}}
    - aggregate: {{by: mean, weight: agents, exclude_self: true}}
    - store: {{memory: semantic}}"""


def class_means(net, data, agent, number, names, values, term):
    """One epoch; returns sums [10, D] and counts [10] of ``values(features, logits)`` as the batches pass."""
    sums, counts = 0, torch.zeros(10)
    for ids in private(data, agent, names, number):
        y = data.y[ids]
        features = net.body(data.x[ids])
        logits = net.head(features)
        descend(F.cross_entropy(logits, y) + term(y, features, logits), net)
        onehot = F.one_hot(y, 10).float()
        sums = sums + onehot.T @ values(features, logits).detach()
        counts = counts + onehot.sum(0)
    return sums, counts


def federated_distillation(data, mistake=""):
    nets = [Net(name[0]) for name in MIXED]
    targets = [{} for _ in MIXED]
    for number in range(1, ROUNDS + 1):
        told = []
        for agent, net in enumerate(nets):
            target = targets[agent]

            def term(y, features, logits, target=target):
                known = torch.tensor([int(label) in target for label in y])
                if not known.any():
                    return 0.0
                aim = torch.stack([target[int(label)] for label in y[known]])
                if mistake != "raw logits":
                    aim = torch.softmax(aim, 1)
                return 0.8 * -(aim * torch.log_softmax(logits[known], 1)).sum(1).mean()

            sums, counts = class_means(net, data, agent, number, MIXED, lambda features, logits: logits, term)
            told.append({c: sums[c] / counts[c] for c in range(10) if counts[c]})
        for agent in range(len(nets)):
            others = [t for index, t in enumerate(told) if index != agent or mistake == "including itself"]
            said = {c: [t[c] for t in others if c in t] for c in range(10)}
            targets[agent] = {c: torch.stack(those).mean(0) for c, those in said.items() if those}
    return nets


def test_fd(conduct):
    folder = conduct(spec(FD, MIXED, partition=FEW))
    data = Data(folder)
    held = [set(data.y[ids].tolist()) for ids in data.ids]
    only = [c for c in range(10) if sum(c in classes for classes in held) == 1]
    assert only and len(only) < 10  # else it would not be seen who is left out
    assert farthest(folder, federated_distillation(data), MIXED) < 1e-6


@pytest.mark.parametrize("mistake", ["raw logits", "including itself"])
def test_fd_is_not_the_published_mistake(conduct, mistake):
    folder = conduct(spec(FD, MIXED, partition=FEW))
    assert not farthest(folder, federated_distillation(Data(folder), mistake), MIXED) < 1e-4


FEDPROTO = f"""
  round:
    - retrieve: {{memory: semantic, knowledge: prototypes}}
    - train: {{{TRAIN}, losses: [{{prototypes: {{prototype_weight: 1.5}}}}]}}
    - extract: {{knowledge: prototypes, from: training}}
    - aggregate: {{by: mean, weight: samples}}
    - store: {{memory: semantic}}"""


def prototype_learning(data, by_samples=True):
    nets, target = [Net(name[0]) for name in MIXED], {}
    for number in range(1, ROUNDS + 1):
        told = []
        for agent, net in enumerate(nets):

            def term(y, features, logits):
                known = torch.tensor([int(label) in target for label in y])  # noqa: B023
                if not known.any():
                    return 0.0
                aim = torch.stack([target[int(label)] for label in y[known]])  # noqa: B023
                return 1.5 * ((features[known] - aim) ** 2).mean()

            told.append(class_means(net, data, agent, number, MIXED, lambda features, logits: features, term))
        target = {}
        for c in range(10):
            there = [(sums[c], counts[c]) for sums, counts in told if counts[c]]
            if by_samples:
                target[c] = sum(s for s, _ in there) / sum(n for _, n in there)
            else:
                target[c] = sum(s / n for s, n in there) / len(there)
    return nets


def test_fedproto(conduct):
    folder = conduct(spec(FEDPROTO, MIXED))
    data = Data(folder)
    assert farthest(folder, prototype_learning(data), MIXED) < 1e-6
    assert farthest(folder, prototype_learning(data, by_samples=False), MIXED) > 1e-4


# --- Shen et al. 2020 (FML): two models an agent, one of them shared

FML = f"""
  companion: cnn
  round:
    - train:
        {TRAIN.replace(", ", chr(10) + "        ", 2)}
        ce_weight: 0.4
        losses: [{{mutual: {{kd_weight: 0.6, companion_ce_weight: 0.7, companion_kd_weight: 0.3, temperature: 1.0}}}}]
    - extract: {{knowledge: parameters, of: companion}}
    - aggregate: {{by: mean, weight: samples}}
    - absorb: {{by: replace, of: companion}}"""


def mutual_learning(data, kl=kl):
    own, memes = [Net(name[0]) for name in MIXED], [Net("c", "companion") for _ in MIXED]
    for number in range(1, ROUNDS + 1):
        for agent, (net, meme) in enumerate(zip(own, memes, strict=True)):
            for ids in private(data, agent, MIXED, number):
                x, y = data.x[ids], data.y[ids]
                a, b = net(x), meme(x)
                local = 0.4 * F.cross_entropy(a, y) + 0.6 * kl(a, b)
                shared = 0.7 * F.cross_entropy(b, y) + 0.3 * kl(b, a)
                descend(local + shared, net, meme)
        mean = average(memes, data.sizes)
        for meme in memes:
            meme.load_state_dict(mean)
    return own, memes


def test_fml(conduct):
    folder = conduct(spec(FML, MIXED))
    own, memes = mutual_learning(Data(folder))
    assert farthest(folder, own, MIXED) < 1e-6
    assert farthest(folder, memes, MIXED, "companion") < 1e-6
    wrong, _ = mutual_learning(Data(folder), kl=kl_over_classes)
    assert farthest(folder, wrong, MIXED) > 1e-4


# --- Li and Wang 2019 (FedMD), Itahara et al. 2021 (DS-FL): scores on public samples travel

PUBLIC = "public: {share: 0.2}"
FEDMD = f"""
  start:
    - train: {{epochs: 2, batch: {BATCH}, optimizer: {{sgd: {{lr: {LR}}}}}}}
  round:
    - extract: {{knowledge: logits, from: public}}
    - aggregate: {{by: mean, weight: agents}}
    - store: {{memory: episodic}}
    - absorb: {{by: distil, loss: kl, temperature: 1.0, on: public, {TRAIN}}}
    - forget: {{memory: episodic, older_than: 1}}
    - train: {{{TRAIN}}}"""

DS_FL = f"""
  round:
    - train: {{{TRAIN}}}
    - extract: {{knowledge: logits, from: public, scale: probabilities}}
    - aggregate: {{by: sharpened_mean, weight: agents, temperature: 0.1}}
    - absorb: {{by: distil, loss: soft_cross_entropy, on: public, {TRAIN}, who: all}}"""


def local_epoch(nets, data, number, place="train.0", epoch=0):
    for agent, net in enumerate(nets):
        for ids in private(data, agent, MIXED, number, place, epoch):
            descend(F.cross_entropy(net(data.x[ids]), data.y[ids]), net)


def digest(nets, data, number, target, loss):
    at = {int(id): index for index, id in enumerate(data.public)}
    for agent, net in enumerate(nets):
        for ids in shuffled(data.public, MIXED[agent], number, "absorb.0", "absorb", 0):
            descend(loss(net(data.x[ids]), target[[at[int(id)] for id in ids]]), net)


def fedmd(data, kl=kl):
    nets = [Net(name[0]) for name in MIXED]
    local_epoch(nets, data, 0, "start.train.0", 0)
    local_epoch(nets, data, 0, "start.train.0", 1)
    for number in range(1, ROUNDS + 1):
        consensus = torch.stack([net(data.x[data.public]).detach() for net in nets]).mean(0)
        digest(nets, data, number, consensus, kl)
        local_epoch(nets, data, number)
    return nets


def ds_fl(data, of_logarithms=False):
    nets = [Net(name[0]) for name in MIXED]
    for number in range(1, ROUNDS + 1):
        local_epoch(nets, data, number)
        mean = torch.stack([torch.softmax(net(data.x[data.public]), 1).detach() for net in nets]).mean(0)
        target = torch.softmax((mean.log() if of_logarithms else mean) / 0.1, 1)
        digest(nets, data, number, target, lambda z, t: -(t * torch.log_softmax(z, 1)).sum(1).mean())
    return nets


def test_fedmd(conduct):
    folder = conduct(spec(FEDMD, MIXED, data=PUBLIC))
    data = Data(folder)
    assert len(data.public) > 200 and not set(data.public.tolist()) & set(torch.cat(data.ids).tolist())
    assert farthest(folder, fedmd(data), MIXED) < 1e-6
    assert farthest(folder, fedmd(data, kl=kl_over_classes), MIXED) > 1e-4


def test_ds_fl(conduct):
    folder = conduct(spec(DS_FL, MIXED, data=PUBLIC))
    data = Data(folder)
    assert farthest(folder, ds_fl(data), MIXED) < 1e-6
    assert farthest(folder, ds_fl(data, of_logarithms=True), MIXED) > 1e-4
