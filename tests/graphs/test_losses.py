"""Losses over scores against sums in float64."""

import pytest
import torch
from codistill.graphs.losses import one_vs_all_loss, score_distillation_loss, self_adversarial_loss


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_self_adversarial_loss_is_half_of_the_papers(draw, temperature, weighted):
    positive, negative, weights = draw(5) - 4, draw(5, 7) - 5, draw(5).abs()
    rows = []
    for s, others in zip(positive, negative, strict=True):
        shares = torch.exp(temperature * others) / torch.exp(temperature * others).sum()
        total = -torch.log(torch.sigmoid(6 + s))
        for share, other in zip(shares, others, strict=True):
            total = total - share * torch.log(torch.sigmoid(-6 - other))
        rows.append(total / 2)
    best = torch.stack(rows)
    best = (best * weights).sum() / weights.sum() if weighted else best.mean()
    said = {"margin": 6.0, "temperature": temperature, "weights": weights if weighted else None}
    torch.testing.assert_close(self_adversarial_loss(positive, negative, **said), best, atol=1e-12, rtol=1e-12)


def test_a_negative_of_minus_infinity_does_not_count(draw):
    positive, negative = draw(3).requires_grad_(), draw(3, 4)
    more = torch.cat([negative, torch.full((3, 2), -float("inf"), dtype=torch.float64)], 1).requires_grad_()
    loss = self_adversarial_loss(positive, more)
    torch.testing.assert_close(loss, self_adversarial_loss(positive, negative))
    (by,) = torch.autograd.grad(loss, more)
    assert (by[:, 4:] == 0).all() and (by[:, :4] != 0).all()


@pytest.mark.parametrize("weighted", [True, False])
def test_1_vs_all_is_the_cross_entropy_of_a_softmax(draw, weighted):
    scores, targets, weights = draw(4, 6), torch.tensor([5, 0, 2, 2]), draw(4).abs()
    rows = torch.stack([-torch.log(torch.exp(s)[t] / torch.exp(s).sum()) for s, t in zip(scores, targets, strict=True)])
    best = (rows * weights).sum() / weights.sum() if weighted else rows.mean()
    made = one_vs_all_loss(scores, targets, weights=weights if weighted else None)
    torch.testing.assert_close(made, best, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_is_over_the_true_triple_and_its_negatives(draw, temperature):
    student = [draw(4).requires_grad_(), draw(4, 5).requires_grad_()]
    teacher = [draw(4).requires_grad_(), draw(4, 5).requires_grad_()]
    made = score_distillation_loss(*student, *teacher, temperature=temperature)
    q, p = (
        torch.softmax(torch.cat([positive[:, None], negative], 1) / temperature, 1)
        for positive, negative in (student, teacher)
    )
    best = temperature**2 * (p.detach() * (p.detach() / q).log()).sum() / 4
    torch.testing.assert_close(made, best, atol=1e-12, rtol=1e-12)
    for one, other in zip(*(torch.autograd.grad(loss, student) for loss in (made, best)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    assert torch.autograd.grad(score_distillation_loss(*student, *teacher), teacher, allow_unused=True) == (None, None)
