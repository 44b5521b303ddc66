import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks.absorb import Absorb, absorb
from codistill.tasks.absorb.mutual import PEAK, Cyclic
from codistill.tasks.knowledge import Models
from codistill.tasks.streams import torch_stream
from pydantic import TypeAdapter

LR = 0.1


def read(**said):
    given = {"by": "mutual", "batch": 8, "optimizer": {"sgd": {"lr": LR}}}
    return TypeAdapter(Absorb).validate_python(given | said)


def state(network):
    return {key: value.detach().clone() for key, value in network.state_dict().items()}


def visit(agent, *others):
    """The agent receives the models of others; returns what was sent, and each one's samples."""
    sent = {other.architectures["model"].name: state(other.models["model"]) for other in others}
    samples = {other.architectures["model"].name: float(other.samples) for other in others}
    agent.memory.hold("working", "received", Models(sent, samples), 2)
    return sent, samples


def kl(student, teacher, temperature):
    p, log_q = torch.softmax(teacher.detach() / temperature, 1), torch.log_softmax(student / temperature, 1)
    return temperature**2 * (p * (p.log() - log_q)).sum(1).mean()


def descend(loss, networks):
    weights = [w for network in networks for w in network.parameters()]
    for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        w.data -= LR * g


def batches(agent, context, ids, epoch=0):
    return ids[torch.randperm(len(ids), generator=agent.stream(context, "absorb", epoch))].split(8)


def same(agent, network, name="model"):
    for found, expected in zip(agent.models[name].parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("keep", ["own", "visitor", "mean"])
def test_two_models_teach_each_other(agent, another, world, context, keep):
    visit(agent, another("guest", torch.arange(30, 40), seed=9))
    absorb(agent, read(keep=keep, epochs=2, temperature=3.0, ce_weight=0.7, kd_weight=0.4), context)
    own = another("phone", agent.train_ids).models["model"]
    guest = another("guest", torch.arange(30, 40), seed=9).models["model"]
    for epoch in range(2):
        for ids in batches(agent, context, agent.train_ids, epoch):
            x, y = world.x_train[ids], world.y_train[ids]
            a, b = own(x), guest(x)
            loss = 0.7 * (F.cross_entropy(a, y) + F.cross_entropy(b, y)) + 0.4 * (kl(a, b, 3.0) + kl(b, a, 3.0))
            descend(loss, [own, guest])
    if keep == "mean":
        with torch.no_grad():
            for w, v in zip(own.parameters(), guest.parameters(), strict=True):
                w.copy_((30 * w + 10 * v) / 40)
    same(agent, guest if keep == "visitor" else own)


def test_visitors_of_other_architectures_teach_by_their_samples(agent, another, world, context):
    guests = [another("a", torch.arange(30, 36), models=("linear",)), another("b", torch.arange(30, 48), seed=9)]
    sent, samples = visit(agent, *guests)
    before = {identity: {name: value.clone() for name, value in group.items()} for identity, group in sent.items()}
    absorb(agent, read(keep="visitor"), context)
    own = another("phone", agent.train_ids).models["model"]
    networks, behind = [own, *(guest.models["model"] for guest in guests)], [30, 6, 18]
    for ids in batches(agent, context, agent.train_ids):
        x, y = world.x_train[ids], world.y_train[ids]
        answers = [network(x) for network in networks]
        loss = 0.0
        for i, a in enumerate(answers):
            others = [j for j in range(3) if j != i]
            pull = sum(behind[j] * kl(a, answers[j], 1.0) for j in others) / sum(behind[j] for j in others)
            loss = loss + F.cross_entropy(a, y) + pull
        descend(loss, networks)
    same(agent, networks[2])
    for identity, group in before.items():  # others read the same packet
        assert all(torch.equal(value, sent[identity][name]) for name, value in group.items())


@pytest.mark.parametrize("keep", ["own", "visitor", "mean"])
def test_its_own_model_stays_where_none_of_its_kind_came(agent, another, world, context, keep):
    visit(agent, another("a", torch.arange(30, 36), models=("linear",)))
    absorb(agent, read(keep=keep), context)
    own = another("phone", agent.train_ids).models["model"]
    guest = another("a", torch.arange(30, 36), models=("linear",)).models["model"]
    for ids in batches(agent, context, agent.train_ids):
        x, y = world.x_train[ids], world.y_train[ids]
        a, b = own(x), guest(x)
        descend(F.cross_entropy(a, y) + F.cross_entropy(b, y) + kl(a, b, 1.0) + kl(b, a, 1.0), [own, guest])
    same(agent, own)


def test_nothing_received_and_no_samples_change_nothing(agent, another, context):
    before = state(agent.models["model"])
    absorb(agent, read(), context)
    visit(agent, another("guest", torch.arange(30, 40), seed=9))
    agent.train_ids = torch.empty(0, dtype=torch.int64)
    absorb(agent, read(), context)
    assert all(torch.equal(value, before[name]) for name, value in state(agent.models["model"]).items())


def test_classes_are_weighed_within_the_softmax(agent, another, world, context):
    few = agent.train_ids[world.y_train[agent.train_ids] != 2]  # a class without samples
    agent.train_ids = few
    visit(agent, another("guest", torch.arange(30, 40), seed=9))
    absorb(agent, read(supervision="weighted_softmax", keep="own"), context)
    own = another("phone", few).models["model"]
    guest = another("guest", torch.arange(30, 40), seed=9).models["model"]
    share = torch.stack([(world.y_train[few] == c).double().mean() for c in range(5)])

    def weighed(logits, y):
        terms = share * logits.double().exp()
        return -(terms[torch.arange(len(y)), y] / terms.sum(1)).log().mean()

    assert share[2] == 0
    for ids in batches(agent, context, few):
        x, y = world.x_train[ids], world.y_train[ids]
        a, b = own(x), guest(x)
        descend(weighed(a, y) + weighed(b, y) + kl(a, b, 1.0) + kl(b, a, 1.0), [own, guest])
    same(agent, own)
    assert all(value.isfinite().all() for value in agent.models["model"].parameters())


def test_the_share_of_distillation_goes_round():
    cycle = Cyclic(period=8, low=0.2, high=0.8)
    found = [cycle.share(number) for number in range(1, 18)]
    assert found[0] == found[8] == found[16] == pytest.approx(0.2)
    assert found[4] == found[12] == pytest.approx(0.8)
    assert found[2] == pytest.approx(0.5) and found[1] == pytest.approx(0.2 + 0.6 * (1 - math.sqrt(0.5)) / 2)
    assert found[:4] == sorted(found[:4]) and found[4:9] == sorted(found[4:9], reverse=True)


@pytest.mark.parametrize(("number", "share"), [(1, 0.0), (2, 0.5), (3, 1.0)])
def test_the_schedule_divides_the_loss(agent, another, world, context, number, share):
    context = replace(context, round=number)
    other = another("phone", agent.train_ids)
    for one in (agent, other):
        visit(one, another("guest", torch.arange(30, 40), seed=9))
    absorb(agent, read(kd_schedule={"period": 4}, ce_weight=0.6, kd_weight=2.0), context)
    absorb(other, read(ce_weight=0.6 * (1 - share), kd_weight=2.0 * share), context)
    same(agent, other.models["model"])


def right(network, world, ids):
    return int((network(world.x_train[ids]).argmax(1) == world.y_train[ids]).sum())


def test_an_agent_goes_back_to_its_best_model(agent, another, world, context):
    order = torch.randperm(30, generator=torch_stream(context.seed, "agent", "phone", "held out"))
    judges, ids = order[:6].sort().values, order[6:].sort().values  # 0.2 of its 30 samples
    own = agent.models["model"]
    best, went_back, stayed = None, 0, 0
    for number in range(1, 13):
        now = replace(context, round=number)
        visit(agent, another("guest", torch.arange(30, 40), seed=number))
        alone = another("phone", agent.train_ids)  # the same step without going back
        alone.models["model"].load_state_dict(own.state_dict())
        alone.train_ids = ids
        visit(alone, another("guest", torch.arange(30, 40), seed=number))
        wild = {"optimizer": {"sgd": {"lr": 2.0}}} if number % 3 == 0 else {}
        absorb(alone, read(keep="own", **wild), now)
        absorb(agent, read(keep="own", keep_peak=True, held_out=0.2, **wild), now)
        new = state(alone.models["model"])
        if best is not None and right(alone.models["model"], world, judges) < best[0]:
            went_back += 1
        else:
            best = (right(alone.models["model"], world, judges), new)
            stayed += number > 1
        assert all(torch.equal(value, best[1][name]) for name, value in state(own).items()), number
        peak = agent.memory.recall("procedural", PEAK)
        assert all(torch.equal(v, best[1][k]) for k, v in peak.tensors[agent.architectures["model"].name].items())
    assert went_back and stayed


def test_a_single_sample_is_learned_from_not_held_out(agent, another, context):
    agent.train_ids = torch.tensor([4])
    visit(agent, another("guest", torch.arange(30, 40), seed=9))
    before = state(agent.models["model"])
    absorb(agent, read(keep_peak=True), context)
    assert not torch.equal(before["head.bias"], agent.models["model"].head.bias)
