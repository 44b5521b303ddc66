"""FedAL: the discriminator at the aggregator, the min-max game at the agent, and forgetting less."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.absorb import Absorb, absorb
from codistill.tasks.aggregate import Aggregate, aggregate, mean_of_rows
from codistill.tasks.discriminator import DISCRIMINATOR, unpacked
from codistill.tasks.knowledge import Models, Rows
from codistill.tasks.terms import TERMS, Batch
from codistill.tasks.terms.less_forgetting import LessForgetting
from pydantic import TypeAdapter


def rule(**said):
    return TypeAdapter(Aggregate).validate_python({"by": "adversarial", "hidden": 8, "batch": 16} | said)


def said_by(name, seed, count=20, shift=0.0):
    """Logits of ``name``; with a ``shift`` they lean to a class of its own."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, 5))
    values[:, seed % 5] += shift
    owners = torch.zeros(count, dtype=torch.int64)
    ids, weights = torch.arange(60, 60 + count), torch.full((count,), 2.0).double()
    return Rows("logits", ids, torch.tensor(values, dtype=torch.float32), weights, 2.0, None, (name,), owners)


def known_by(agent):
    held = agent.memory.recall("emotional", "valence")
    return dict(zip(held.contributors, held.values[:, 0].tolist(), strict=True))


def forward(tensors, p):
    """The discriminator by hand, in float64, from the tensors that travel; outputs in their order."""
    hidden = np.maximum(p @ tensors["hidden.weight"].double().numpy().T + tensors["hidden.bias"].double().numpy(), 0)
    rows = np.stack([value.double().numpy() for name, value in tensors.items() if name.startswith("of ")])
    return hidden @ rows[:, :-1].T + rows[:, -1]


def softmax(rows):
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_the_consensus_is_the_mean_and_the_discriminator_goes_with_it(agent, context):
    packets = [said_by(name, seed) for seed, name in enumerate(["c", "a", "b.1"])]
    found = aggregate(agent, packets, rule(), context)
    plain = mean_of_rows(packets)
    torch.testing.assert_close(found.values, plain.values, atol=1e-6, rtol=0)
    assert torch.equal(found.ids, plain.ids) and found.weights.tolist() == [6.0] * 20 and found.owners is None
    tensors = found.attached.tensors[DISCRIMINATOR]
    assert list(tensors) == ["hidden.weight", "hidden.bias", "of a", "of b.1", "of c"]
    scores, names = unpacked(found)
    assert names == ["a", "b.1", "c"]
    p = softmax(packets[0].values.double().numpy())
    torch.testing.assert_close(
        scores(torch.tensor(p, dtype=torch.float32)).double(), torch.tensor(forward(tensors, p)), atol=1e-5, rtol=0
    )
    for packet in packets:
        (name,) = packet.contributors
        right = softmax(forward(tensors, softmax(packet.values.double().numpy())))[:, names.index(name)].mean()
        assert known_by(agent)[name] == pytest.approx(right, abs=1e-6)


def test_the_discriminator_is_trained_by_cross_entropy(agent, another, context):
    packets = [said_by(name, seed) for seed, name in enumerate("ab")]
    optimizer = {"sgd": {"lr": 0.5}}
    found = aggregate(agent, packets, rule(epochs=2, optimizer=optimizer), context).attached.tensors[DISCRIMINATOR]
    tiny = {"sgd": {"lr": 1e-12}}
    start = aggregate(another("phone", agent.train_ids), packets, rule(optimizer=tiny), context)
    before = start.attached.tensors[DISCRIMINATOR]
    weights = [before["hidden.weight"], before["hidden.bias"], torch.stack([before["of a"], before["of b"]])]
    weights = [w.double().clone().requires_grad_() for w in weights]
    # By sample, and within a sample by name: the order in which answers lie before they are shuffled.
    answers = torch.stack([p.values.double() for p in packets], 1).flatten(0, 1)
    whose = torch.tensor([0, 1] * 20)
    for epoch in range(2):
        order = torch.randperm(40, generator=agent.stream(context, "answers", epoch))
        for part in order.split(16):
            hidden = torch.relu(torch.softmax(answers[part], 1) @ weights[0].T + weights[1])
            log_p = torch.log_softmax(hidden @ weights[2][:, :-1].T + weights[2][:, -1], 1)
            loss = -log_p[range(len(part)), whose[part]].mean()
            for w, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                w.data -= 0.5 * slope
    rows = torch.stack([found["of a"], found["of b"]])
    for mine, w in zip((found["hidden.weight"], found["hidden.bias"], rows), weights, strict=True):
        torch.testing.assert_close(mine.double(), w.detach(), atol=1e-6, rtol=0)
    assert (weights[0].detach() - before["hidden.weight"]).abs().max() > 1e-3


def test_whose_answers_differ_is_found_out(agent, context):
    packets = [said_by("a", 1, shift=4.0), said_by("b", 2, shift=4.0), said_by("c", 3), said_by("d", 4)]
    aggregate(agent, packets, rule(epochs=60, optimizer={"adam": {"lr": 0.01}}), context)
    surely = known_by(agent)
    assert min(surely["a"], surely["b"]) > max(surely["c"], surely["d"]) + 0.1


def test_contributors_come_and_go(agent, another, context):
    packets = {name: said_by(name, seed) for seed, name in enumerate("abcd")}
    still = rule(optimizer={"sgd": {"lr": 1e-12}})

    def lived(top):
        first = aggregate(top, [packets[n] for n in "ac"], still, context)
        before = known_by(top)
        return first, before, aggregate(top, [packets[n] for n in "dbc"], still, replace(context, round=3))

    first, before, second = lived(agent)
    assert list(known_by(agent)) == ["a", "c", "b", "d"]
    assert known_by(agent)["a"] == before["a"] and known_by(agent)["c"] != before["c"]
    old, new = (found.attached.tensors[DISCRIMINATOR] for found in (first, second))
    assert list(new)[2:] == ["of a", "of c", "of b", "of d"]
    for name in old:
        torch.testing.assert_close(new[name], old[name], atol=1e-9, rtol=0)
    again = lived(another("phone", agent.train_ids))[2]
    assert all(torch.equal(again.attached.tensors[DISCRIMINATOR][name], new[name]) for name in new)


def test_whoever_forgot_whom_it_knew_begins_anew(agent, context):
    aggregate(agent, [said_by(name, seed) for seed, name in enumerate("ab")], rule(), context)
    agent.memory.drop("emotional")
    found = aggregate(agent, [said_by(name, seed) for seed, name in enumerate("abc")], rule(), context)
    assert unpacked(found)[1] == ["a", "b", "c"]


def test_it_does_not_matter_by_which_way_packets_came(agent, another, context):
    packets = [said_by(name, seed) for seed, name in enumerate("dbca")]
    below = [aggregate(agent, part, rule(), replace(context, final=False)) for part in (packets[:3], packets[3:])]
    assert DISCRIMINATOR not in agent.models and below[0].attached is None
    flat, tree = (aggregate(another("top", agent.train_ids), given, rule(), context) for given in (packets, below))
    assert torch.equal(flat.values, tree.values)
    for name, value in flat.attached.tensors[DISCRIMINATOR].items():
        assert torch.equal(value, tree.attached.tensors[DISCRIMINATOR][name])


def discriminator(*names):
    rng = np.random.default_rng(9)
    tensors = {"hidden.weight": rng.normal(size=(6, 5)), "hidden.bias": rng.normal(size=6)}
    tensors |= {f"of {name}": rng.normal(size=7) for name in names}
    return Models(
        {DISCRIMINATOR: {k: torch.tensor(v, dtype=torch.float32) for k, v in tensors.items()}}, {DISCRIMINATOR: 1.0}
    )


def kl(z, t, temperature):
    p, log_q = torch.softmax(t / temperature, 1), torch.log_softmax(z / temperature, 1)
    return temperature**2 * (p * (p.log() - log_q)).sum(1).mean()


@pytest.mark.parametrize("attached", ["knows me", "knows others", "nothing"])
def test_an_agent_learns_fools_and_keeps(agent, another, world, context, attached):
    ids = torch.tensor([61, 64, 65, 70, 77, 89])
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    models = {"knows me": discriminator("a", "phone", "z"), "knows others": discriminator("a"), "nothing": None}[
        attached
    ]
    agent.memory.hold("working", "received", Rows("logits", ids, values, torch.ones(6).double(), attached=models), 2)
    weights = {"kd_weight": 0.6, "adversarial_weight": 0.4, "forgetting_weight": 0.3, "temperature": 2.0}
    optimizer = {"sgd": {"lr": 0.2}}
    said = {"by": "adversarial", "epochs": 2, "batch": 4, "optimizer": optimizer} | weights
    absorb(agent, TypeAdapter(Absorb).validate_python(said), context)

    model = another("phone", agent.train_ids).models["model"]
    before = model(world.x_train[ids]).detach()
    for epoch in range(2):
        order = torch.randperm(6, generator=agent.stream(context, "absorb", epoch))
        for part in order.split(4):
            z = model(world.x_train[ids[part]])
            loss = 0.6 * kl(z, values[part], 2.0) + 0.3 * kl(z, before[part], 2.0)
            if attached == "knows me":
                d = models.tensors[DISCRIMINATOR]
                hidden = torch.relu(torch.softmax(z, 1) @ d["hidden.weight"].T + d["hidden.bias"])
                rows = torch.stack([d["of a"], d["of phone"], d["of z"]])
                log_p = torch.log_softmax(hidden @ rows[:, :-1].T + rows[:, -1], 1)
                loss = loss - 0.4 * -log_p[:, 1].mean()
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for value in model.parameters():
                    value -= 0.2 * value.grad
    for found, expected in zip(agent.models["model"].parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-6)


def test_an_agent_becomes_harder_to_tell(agent, world, context):
    ids, models = world.public, discriminator("a", "phone", "z")
    rows = Rows("logits", ids, torch.zeros(len(ids), 5), torch.ones(len(ids)).double(), attached=models)
    agent.memory.hold("working", "received", rows, 2)

    def told():
        p = softmax(agent.models["model"](world.x_train[ids]).detach().double().numpy())
        return softmax(forward(models.tensors[DISCRIMINATOR], p))[:, 1].mean()

    before = told()
    alone = {"kd_weight": 0.0, "adversarial_weight": 1.0, "forgetting_weight": 0.0, "epochs": 30}
    absorb(agent, TypeAdapter(Absorb).validate_python({"by": "adversarial"} | alone), context)
    assert told() < before / 2


def test_the_term_keeps_what_the_model_said_of_its_samples(agent, world, context):
    model, ids = agent.models["model"], agent.train_ids[[4, 2, 9]]
    said = model(world.x_train[ids]).detach()
    term = TERMS["less_forgetting"].function(agent, LessForgetting(forgetting_weight=0.7, temperature=3.0), context)
    assert model.training
    with torch.no_grad():
        for value in model.parameters():
            value += 0.3
    x, y = world.x_train[ids], world.y_train[ids]
    features = model.body(x)
    logits = model.head(features)
    found = term.loss(Batch(ids, x, y, features, logits, torch.zeros(())))
    expected = 0.7 * kl(logits.double(), said.double(), 3.0)
    np.testing.assert_allclose(found.item(), expected.item(), rtol=1e-5)
    assert expected > 1e-4 and not term.parameters
