import numpy as np
import pytest
import torch
from codistill.tasks.absorb import Absorb, absorb
from codistill.tasks.knowledge import Models, Rows
from pydantic import TypeAdapter


def read(**said):
    return TypeAdapter(Absorb).validate_python(said)


def receive(agent, knowledge):
    agent.memory.hold("working", "received", knowledge, 2)


@pytest.mark.parametrize("of", ["model", "companion"])
def test_parameters_take_the_place_of_the_models_own(agent, of):
    state = {key: torch.full_like(value, 0.5) for key, value in agent.models[of].state_dict().items()}
    receive(
        agent,
        Models(
            {"elsewhere": {}, agent.architectures[of].name: state}, {"elsewhere": 1, agent.architectures[of].name: 1}
        ),
    )
    absorb(agent, read(by="replace", of=of), None)
    assert all((value == 0.5).all() for value in agent.models[of].parameters())
    with torch.no_grad():
        for value in agent.models[of].parameters():
            value.add_(1)
    assert all((value == 0.5).all() for value in state.values())  # the agent got a copy, for others read the same


def test_parameters_of_another_architecture_and_nothing_at_all_change_nothing(agent, context):
    before = [value.clone() for value in agent.models["model"].parameters()]
    absorb(agent, read(by="replace"), context)
    absorb(agent, read(by="distil"), context)
    receive(agent, Models({"elsewhere": {"w": torch.ones(3)}}, {"elsewhere": 1.0}))
    absorb(agent, read(by="replace"), context)
    assert all(torch.equal(a, b) for a, b in zip(before, agent.models["model"].parameters(), strict=True))


def divergence(z, t, temperature):
    p, log_q = torch.softmax(t / temperature, 1), torch.log_softmax(z / temperature, 1)
    return temperature**2 * (p * (p.log() - log_q)).sum(1).mean()


LOSSES = {
    "kl": divergence,
    "soft_cross_entropy": lambda z, t, _: -(t * torch.log_softmax(z, 1)).sum(1).mean(),
    "mse": lambda z, t, _: ((z - t) ** 2).mean(),
    "l1": lambda z, t, _: (z - t).abs().mean(),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("some", [False, True])
def test_scores_are_learned_by_the_ids_they_are_for(agent, another, world, context, loss, some):
    ids = torch.tensor([61, 64, 65, 70, 89]) if some else world.public
    values = torch.randn(len(ids), 5, generator=torch.Generator().manual_seed(1))
    values = torch.softmax(values, 1) if loss == "soft_cross_entropy" else values
    before = values.clone()
    receive(agent, Rows("logits", ids, values, torch.ones(len(ids)).double()))
    optimizer = {"sgd": {"lr": 0.2}}
    said = read(by="distil", loss=loss, temperature=3.0, epochs=2, batch=4, kd_weight=0.6, optimizer=optimizer)
    absorb(agent, said, context)

    told = dict(zip(ids.tolist(), values, strict=True))
    model = another("phone", agent.train_ids).models["model"]
    for epoch in range(2):
        order = ids[torch.randperm(len(ids), generator=agent.stream(context, "absorb", epoch))]
        for part in order.split(4):
            target = torch.stack([told[id] for id in part.tolist()])
            model.zero_grad()
            (0.6 * LOSSES[loss](model(world.x_train[part]), target, 3.0)).backward()
            with torch.no_grad():
                for value in model.parameters():
                    value -= 0.2 * value.grad
    for found, expected in zip(agent.models["model"].parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-6)
    assert torch.equal(values, before)
