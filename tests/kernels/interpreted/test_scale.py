"""The product in place of the way back, as a Triton kernel."""

import pytest
import torch
from codistill.kernels.triton import scale as launcher
from codistill.kernels.triton.scale import multiply


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [0, 1, 4096, 9001])
def test_every_number_is_multiplied_once(guard, monkeypatch, dtype, count):
    monkeypatch.setattr(launcher, "PROGRAMS", 2)  # so that a program has more than one block
    plain = torch.linspace(-3, 3, count).to(dtype)
    values = guard(plain)
    multiply(values, guard(torch.full((1,), 0.3)))
    assert torch.equal(values, (plain.float() * torch.full((1,), 0.3)).to(dtype))


def test_a_factor_of_one_changes_nothing_not_even_nan(guard):
    plain = torch.tensor([1.0, float("nan"), float("inf")])
    values = guard(plain)
    multiply(values, guard(torch.ones(1)))
    assert torch.equal(values.nan_to_num(7.0), plain.nan_to_num(7.0))
