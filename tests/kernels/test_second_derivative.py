"""No operation has a second derivative, and none may pretend that it is zero."""

from collections.abc import Callable

import pytest
import torch
from codistill import kernels

ROWS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
HEAD = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "kd_loss": lambda x: kernels.kd_loss(x, [ROWS.flip(0)]),
    "sparse_kd_loss": lambda x: kernels.sparse_kd_loss(x, kernels.pack_knowledge(ROWS.flip(0), k=2)),
    "linear_kd_loss": lambda x: kernels.linear_kd_loss(x, HEAD, [ROWS.flip(0)], [HEAD]),
    "relation_distance_loss": lambda x: kernels.relation_distance_loss(x, ROWS.flip(0)),
    "relation_angle_loss": lambda x: kernels.relation_angle_loss(x, ROWS.flip(0)),
    "graph_scores": lambda x: kernels.graph_scores(x, ROWS, ROWS, torch.arange(5), model="transe").square().sum(),
    "retrieve": lambda x: kernels.retrieve(x, ROWS, HEAD[:5], k=2).values.square().sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_second_derivative_is_refused(name):
    x = (ROWS * 0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](x), x, create_graph=True)
    assert gradient.abs().sum() > 0
    with pytest.raises((NotImplementedError, RuntimeError)):
        gradient.square().sum().backward()


@pytest.mark.parametrize("name", LOSSES)
def test_the_first_is_scaled_by_what_comes_from_above(name):
    x = (ROWS * 0.5).requires_grad_()
    (once,) = torch.autograd.grad(LOSSES[name](x), x)
    (thrice,) = torch.autograd.grad(3 * LOSSES[name](x), x)
    assert torch.allclose(3 * once, thrice, rtol=1e-5, atol=1e-6)
