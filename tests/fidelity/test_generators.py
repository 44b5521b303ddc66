"""FedGen and DENSE against plain loops, as in test_methods.py: no rule, term or generator of the package in them."""

import torch
import torch.nn.functional as F
from codistill.tasks.streams import seed_of, torch_stream
from codistill.tests.fidelity.alike import same
from codistill.tests.fidelity.plain import (
    BATCH,
    LR,
    MIXED,
    ROUNDS,
    SEED,
    TRAIN,
    Data,
    Net,
    average,
    descend,
    farthest,
    private,
    spec,
)
from torch import nn

STEPS, NOISE, HIDDEN = 12, 6, 20


def drawn_at(*names):
    """The global stream as the server has it when it builds a module."""
    return seed_of(SEED, "agent", "server", "module", *names)


# --- Zhu et al. 2021 (FedGen)

FEDGEN = f"""
  round:
    - retrieve: {{memory: procedural, knowledge: parameters}}
    - train: {{{TRAIN}, losses: [{{generated: {{generated_ce_weight: 0.6, kd_weight: 0.4, batch: 16, decay: 0.9}}}}]}}
    - extract: {{knowledge: parameters, labels: true}}
    - aggregate:
        by: feature_generator
        steps: {STEPS}
        batch: 24
        noise: {NOISE}
        hidden: {HIDDEN}
        diversity_weight: 0.7
        optimizer: {{adam: {{lr: 0.003, weight_decay: 0.01}}}}
    - absorb: {{by: replace}}
    - store: {{memory: procedural}}"""


class Latent(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(drawn_at("feature_generator"))
            self.first = nn.Linear(NOISE + 10, HIDDEN, bias=False)
            self.norm = nn.BatchNorm1d(HIDDEN)
            self.second = nn.Linear(HIDDEN, 64)

    def forward(self, y, eps):
        return self.second(F.relu(self.norm(self.first(torch.cat([eps, F.one_hot(y, 10).float()], 1)))))


def draw(present, size, stream):
    chance = torch.zeros(10)
    chance[present] = 1 / len(present)
    return torch.multinomial(chance, size, True, generator=stream)


def train_latent(latent, nets, counts, number, weighted):
    """``counts`` [K, C]. ``weighted``: by each client's share of the class, or every head alike."""
    present = [c for c in range(10) if counts[:, c].sum() > 0]
    steps = torch.optim.AdamW(latent.parameters(), lr=0.003, weight_decay=0.01)
    stream = torch_stream(SEED, "agent", "server", number, "aggregate.0", "generator")
    latent.train()
    for _ in range(STEPS):
        y = draw(present, 24, stream)
        eps = torch.rand(24, NOISE, generator=stream)
        z = latent(y, eps)
        teacher = 0.0
        for k, net in enumerate(nets):
            share = counts[k, y] / counts[:, y].sum(0) if weighted else torch.full((24,), 1 / len(nets))
            teacher = teacher + (F.cross_entropy(net.head(z), y, reduction="none") * share.float()).mean()
        between = (z[:, None] - z[None]).abs().mean(2)
        apart = ((eps[:, None] - eps[None]) ** 2).mean(2)
        loss = teacher + 0.7 * torch.exp(-(apart * between).mean())
        steps.zero_grad()
        loss.backward()
        steps.step()
    for net in nets:
        net.zero_grad()
    latent.eval()


def fedgen(data, weighted=True):
    nets, latent = [Net(name[0]) for name in MIXED], Latent()
    counts = torch.stack([torch.bincount(data.y[ids], minlength=10) for ids in data.ids]).double()
    present = [c for c in range(10) if counts[:, c].sum() > 0]
    for number in range(1, ROUNDS + 1):
        for agent, net in enumerate(nets):
            stream = torch_stream(SEED, "agent", MIXED[agent], number, "train.0", "generated")
            for ids in private(data, agent, MIXED, number):
                x, y = data.x[ids], data.y[ids]
                logits = net(x)
                loss = F.cross_entropy(logits, y)
                if number > 1:
                    other = draw(present, 16, stream)
                    with torch.no_grad():
                        z = latent(torch.cat([y, other]), torch.rand(len(y) + 16, NOISE, generator=stream))
                        target = F.softmax(net.head(z[: len(y)]), 1)
                    kl = (target * (target.log() - F.log_softmax(logits, 1))).sum(1).mean()
                    task = F.cross_entropy(net.head(z[len(y) :]), other)
                    loss = loss + 0.9 ** (number - 1) * (0.6 * task + 0.4 * kl)
                descend(loss, net)
        train_latent(latent, nets, counts, number, weighted)
        for kind in "mc":
            group = [k for k, name in enumerate(MIXED) if name[0] == kind]
            mean = average([nets[k] for k in group], [data.sizes[k] for k in group])
            for k in group:
                nets[k].load_state_dict(mean)
    return nets


def test_fedgen(conduct):
    folder = conduct(spec(FEDGEN, MIXED))
    data = Data(folder)
    assert farthest(folder, fedgen(data), MIXED) < 1e-6
    assert farthest(folder, fedgen(data, weighted=False), MIXED) > 1e-4


def test_fedgen_is_the_same_to_the_bit_on_two_lanes(conduct):
    same(conduct(spec(FEDGEN, MIXED)), conduct(spec(FEDGEN, MIXED), lanes=2))


# --- Zhang et al. 2022 (DENSE)

DENSE = f"""
  round:
    - train: {{epochs: 2, batch: {BATCH}, optimizer: {{sgd: {{lr: {LR}}}}}}}
    - extract: {{knowledge: parameters}}
    - aggregate:
        by: data_free_distilled
        epochs: 3
        generator_steps: 4
        batch: 40
        distil_batch: 16
        noise: {NOISE}
        width: 3
        temperature: 2.0
        ce_weight: 0.8
        adversarial_weight: 0.5
        optimizer: {{sgd: {{lr: 0.05, momentum: 0.9}}}}
    - absorb: {{by: replace}}"""


def images():
    with torch.random.fork_rng():
        torch.manual_seed(drawn_at("sample_generator"))
        layers = [nn.Linear(NOISE + 10, 6 * 2 * 2), nn.Unflatten(1, (6, 2, 2)), nn.BatchNorm2d(6), nn.Upsample(None, 2)]
        layers += [nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.2)]
        layers += [nn.Upsample(None, 2), nn.Conv2d(6, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)]
        return nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Conv2d(3, 1, 3, padding=1), nn.Tanh())


def dense(data, masked=True):
    nets = [Net(name[0]) for name in MIXED]
    for agent, net in enumerate(nets):
        for epoch in range(2):
            for ids in private(data, agent, MIXED, 1, epoch=epoch):
                descend(F.cross_entropy(net(data.x[ids]), data.y[ids]), net)
    students = []
    for kind in "mc":
        group = [k for k, name in enumerate(MIXED) if name[0] == kind]
        student = Net(kind)
        student.load_state_dict(average([nets[k] for k in group], [data.sizes[k] for k in group]))
        students.append(student)
    generator = images()
    adam = torch.optim.AdamW(generator.parameters(), lr=0.001, weight_decay=0.0)
    sgd = [torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9) for student in students]
    stream = torch_stream(SEED, "agent", "server", 1, "aggregate.0", "synthesis")
    shuffles = [torch_stream(SEED, "agent", "server", 1, "aggregate.0", "fusion", index) for index in range(2)]
    x, target = [], []
    for _ in range(3):
        y = torch.randint(10, (40,), generator=stream)
        z = torch.cat([torch.randn(40, NOISE, generator=stream), F.one_hot(y, 10).float()], 1)
        for _ in range(4):
            made = generator(z)
            teacher = sum(net(made) for net in nets) / 5
            loss = 0.8 * F.cross_entropy(teacher, y)
            for student in students:
                said = student(made)
                p = F.softmax(teacher, 1)
                apart = (p * (F.log_softmax(teacher, 1) - F.log_softmax(said, 1))).sum(1)
                if masked:
                    apart = apart * (teacher.argmax(1) != said.argmax(1)).float()
                loss = loss - 0.5 / 2 * apart.mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        x.append(made.detach())
        target.append(teacher.detach())
        pool, told = torch.cat(x), torch.cat(target)
        for student, steps, shuffle in zip(students, sgd, shuffles, strict=True):
            for ids in torch.randperm(len(pool), generator=shuffle).split(16):
                p = F.softmax(told[ids] / 2, 1)
                loss = 4 * (p * (p.log() - F.log_softmax(student(pool[ids]) / 2, 1))).sum(1).mean()
                steps.zero_grad()
                loss.backward()
                steps.step()
    return [students["mc".index(name[0])] for name in MIXED]


def test_dense(conduct):
    folder = conduct(spec(DENSE, MIXED, rounds=1))
    data = Data(folder)
    assert farthest(folder, dense(data), MIXED) < 1e-6
    assert farthest(folder, dense(data, masked=False), MIXED) > 1e-4
