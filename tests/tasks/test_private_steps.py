import math

import pytest
import torch
import torch.nn.functional as F
from codistill.tasks import private_steps
from codistill.tasks.optimizers import Optimizer
from codistill.tasks.private_steps import Private, PrivateSteps, clipped_sum, poisson_batches, sample_gradients
from codistill.tasks.train import Train, train

FREE = {"noise": 0.0, "clip": 1e9}
MUTUAL = {"kd_weight": 0.6, "companion_ce_weight": 0.7, "companion_kd_weight": 0.3, "temperature": 2.0}


def said(**more):
    return Train.model_validate({"batch": 8, "optimizer": {"sgd": {"lr": 0.1, "momentum": 0.9}}} | more)


def state(agent, name):
    return {key: value.clone() for key, value in agent.models[name].state_dict().items()}


def apart(one, other):
    return max((one[key] - other[key]).abs().max().item() for key in one)


def distilled(logits, given, y):
    target = F.log_softmax(given, 1)
    return F.cross_entropy(logits, y) + (target.exp() * (target - F.log_softmax(logits, 1))).sum(1).mean()


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_gradients_of_single_samples_are_those_of_a_loop(another, world, kind):
    network = another("phone", torch.arange(30), models=(kind,)).models["model"]
    x, y = world.x_train[:7], world.y_train[:7]
    given = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
    found = sample_gradients(network, distilled, x, given, y)
    for row in range(7):
        one = slice(row, row + 1)
        network.zero_grad()
        distilled(network(x[one]), given[one], y[one]).backward()
        for name, weight in network.named_parameters():
            torch.testing.assert_close(found[name][row], weight.grad, atol=1e-6, rtol=1e-5)


def test_each_sample_is_clipped_over_all_weights_together():
    generator = torch.Generator().manual_seed(1)
    gradients = {
        "a": torch.randn(6, 3, 2, generator=generator) * torch.tensor([0.01, 0.1, 1.0, 3.0, 0.0, 30.0])[:, None, None],
        "b": torch.randn(6, 4, generator=generator) * torch.tensor([0.01, 0.1, 1.0, 3.0, 0.0, 30.0])[:, None],
    }
    expected = {name: torch.zeros(value.shape[1:], dtype=torch.float64) for name, value in gradients.items()}
    longest = 0.0
    for row in range(6):
        flat = torch.cat([value[row].double().flatten() for value in gradients.values()])
        scale = min(1.0, 0.8 / float(flat.norm())) if float(flat.norm()) else 1.0
        longest = max(longest, float(flat.norm()) * scale)
        for name, value in gradients.items():
            expected[name] += value[row].double() * scale
    assert longest <= 0.8 + 1e-12
    for name, value in clipped_sum(gradients, 0.8).items():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("of", ["companion", "model"])
def test_without_noise_and_limit_a_private_step_is_the_usual_one(agent, another, context, of):
    losses = [{"mutual": MUTUAL}]
    plain = another("phone", agent.train_ids)
    train(plain, said(epochs=2, losses=losses, ce_weight=0.4), context)
    private = FREE | {"of": of, "sampling": "shuffled"}
    train(agent, said(epochs=2, losses=losses, ce_weight=0.4, private=private), context)
    for name in ("model", "companion"):
        assert apart(state(agent, name), state(plain, name)) < 1e-6
    before = another("phone", agent.train_ids)
    assert apart(state(agent, of), state(before, of)) > 1e-2


def test_other_terms_still_pull_the_model_where_the_companion_is_private(agent, another, context):
    losses = [{"mutual": MUTUAL}, {"proximal": {"proximal_weight": 0.5}}]
    plain = another("phone", agent.train_ids)
    train(plain, said(epochs=2, losses=losses), context)
    train(agent, said(epochs=2, losses=losses, private=FREE | {"sampling": "shuffled"}), context)
    assert apart(state(agent, "model"), state(plain, "model")) < 1e-6


def test_a_model_alone_may_be_private(agent, another, context):
    plain = another("phone", agent.train_ids)
    train(plain, said(), context)
    train(agent, said(private=FREE | {"of": "model", "sampling": "shuffled"}), context)
    assert apart(state(agent, "model"), state(plain, "model")) < 1e-6
    assert apart(state(agent, "companion"), state(plain, "companion")) == 0


def test_a_batch_larger_than_what_there_is_is_all_of_it(agent, another, context):
    plain = another("phone", agent.train_ids)
    train(plain, said(batch=80), context)
    train(agent, said(batch=80, private=FREE | {"of": "model"}), context)
    assert apart(state(agent, "model"), state(plain, "model")) < 1e-6


def test_clipping_a_step_is_clipping_its_samples(agent, another, world, context):
    clip, lr = 0.3, 0.1
    private = {"noise": 0.0, "clip": clip, "of": "model", "sampling": "shuffled"}
    train(agent, said(batch=30, optimizer={"sgd": {"lr": lr}}, private=private), context)
    network = another("phone", agent.train_ids).models["model"]
    total, cut = [torch.zeros_like(w, dtype=torch.float64) for w in network.parameters()], 0
    for id in agent.train_ids.tolist():
        loss = F.cross_entropy(network(world.x_train[id : id + 1]), world.y_train[id : id + 1])
        found = torch.autograd.grad(loss, list(network.parameters()))
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in found))
        cut += norm > clip
        for place, g in enumerate(found):
            total[place] += g.double() * min(1.0, clip / norm)
    assert cut > 20  # else nothing would be seen of it
    for weight, old, step in zip(agent.models["model"].parameters(), network.parameters(), total, strict=True):
        torch.testing.assert_close(weight.double(), old.double() - lr * step / 30, atol=1e-6, rtol=0)


def test_noise_has_the_deviation_that_is_said_and_is_drawn_anew(agent, world, context, monkeypatch):
    network = agent.models["model"]
    steps = PrivateSteps(
        Optimizer.model_validate({"sgd": {"lr": 1.0}}), Private.model_validate({"noise": 3.0, "clip": 0.5}), network
    )
    nothing = torch.empty(0, dtype=torch.int64)
    generator = torch.Generator().manual_seed(4)
    drawn = []
    for _ in range(40):
        before = torch.cat([w.detach().double().flatten() for w in network.parameters()])
        steps.down(distilled, world.x_train[nothing], torch.empty(0, 5), nothing, 8.0, generator)
        after = torch.cat([w.detach().double().flatten() for w in network.parameters()])
        drawn.append((before - after) * 8)
    noise = torch.stack(drawn)
    count = noise.numel()
    assert count > 30_000
    # 4.5 standard errors of a mean and of a deviation
    assert abs(float(noise.mean())) < 4.5 * 1.5 / math.sqrt(count)
    assert abs(float(noise.std()) - 1.5) < 4.5 * 1.5 / math.sqrt(2 * count)
    assert float((noise.abs() < 1.5).double().mean()) == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.012)
    centred = noise - noise.mean(0)
    neighbours = (centred[1:] * centred[:-1]).mean() / centred.square().mean()
    assert abs(float(neighbours)) < 0.04  # one step's noise says nothing of the next one's


def test_noise_comes_from_the_agents_own_stream(agent, another, context):
    private = {"of": "model", "noise": 1.0, "clip": 0.1}
    same, elsewhere = another("phone", agent.train_ids), another("phone", agent.train_ids)
    elsewhere.name = "laptop"
    torch.rand(3)
    for one in (agent, same, elsewhere):
        train(one, said(private=private), context)
    assert apart(state(agent, "model"), state(same, "model")) == 0
    assert apart(state(agent, "model"), state(elsewhere, "model")) > 1e-4
    free = another("phone", agent.train_ids)
    train(free, said(private=private | {"noise": 0.0}), context)
    assert apart(state(agent, "model"), state(free, "model")) > 1e-4


def test_how_many_samples_are_held_at_a_time_changes_nothing_much(agent, another, context, monkeypatch):
    private = {"of": "model", "noise": 0.0, "clip": 0.3}
    train(agent, said(private=private), context)
    other = another("phone", agent.train_ids)
    monkeypatch.setattr(private_steps, "ROOM", 1)  # one sample after another
    train(other, said(private=private), context)
    assert apart(state(agent, "model"), state(other, "model")) < 1e-6


def test_batches_by_chance_have_each_sample_with_its_probability():
    ids = torch.arange(50) * 3
    generator = torch.Generator().manual_seed(5)
    drawn = [batch for _ in range(400) for batch in poisson_batches(ids, 8, generator)]
    assert len(drawn) == 400 * 7
    counts = torch.zeros(150)
    for batch in drawn:
        assert len(batch) == len(set(batch.tolist()))
        counts[batch] += 1
    expected, deviation = 2800 * 0.16, math.sqrt(2800 * 0.16 * 0.84)
    assert (counts[ids] - expected).abs().max() < 4.5 * deviation
    assert counts.sum() == counts[ids].sum()
    sizes = torch.tensor([float(len(batch)) for batch in drawn])
    assert sizes.std() == pytest.approx(math.sqrt(50 * 0.16 * 0.84), rel=0.08)  # by chance, not of one size
    assert [len(batch) for batch in poisson_batches(ids, 80, generator)] == [50]


def test_an_empty_batch_is_noise_for_one_and_nothing_for_the_other(agent, another, context, monkeypatch):
    nothing = torch.empty(0, dtype=torch.int64)
    monkeypatch.setattr("codistill.tasks.train.poisson_batches", lambda *anything: (nothing, nothing))
    before = another("phone", agent.train_ids)
    train(agent, said(losses=[{"mutual": MUTUAL}], private={}), context)
    assert apart(state(agent, "model"), state(before, "model")) == 0
    assert apart(state(agent, "companion"), state(before, "companion")) > 1e-3


@pytest.mark.parametrize(
    ("losses", "of", "sentence"),
    [
        ([], "companion", "need the term `mutual`"),
        (["proximal"], "model", "take cross entropy and the term `mutual` alone"),
        (["mutual", "adaptive_mutual"], "companion", "no term but one `mutual` may train anything"),
        (["mutual", "mutual"], "companion", "no term but one `mutual` may train anything"),
    ],
)
def test_terms_that_cannot_be_taken_apart_are_refused(agent, context, losses, of, sentence):
    with pytest.raises(ValueError, match=f"^phone: .*{sentence}"):
        train(agent, said(losses=losses, private={"of": of}), context)


def test_a_limit_without_bound_is_refused():
    with pytest.raises(ValueError, match="finite"):
        Private.model_validate({"clip": float("inf")})
