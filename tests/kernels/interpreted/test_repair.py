"""What the other tests here stand on: bfloat16 as a GPU has it, and canaries that notice."""

import pytest
import torch
import triton
import triton.language as tl

from .conftest import MARGIN, Guard


@triton.jit
def _product(a, b, out, COUNT: tl.constexpr):
    at = tl.arange(0, COUNT)[:, None] * COUNT + tl.arange(0, COUNT)[None, :]
    tl.store(out + at, tl.dot(tl.load(a + at), tl.load(b + at)))


@triton.jit
def _rounded(values, out, COUNT: tl.constexpr):
    at = tl.arange(0, COUNT)
    tl.store(out + at, tl.load(values + at).to(out.dtype.element_ty))


@triton.jit
def _doubled(values, COUNT: tl.constexpr):
    at = tl.arange(0, COUNT)
    value = tl.load(values + at)
    tl.store(values + at, value + value)


def test_a_product_of_bfloat16_is_exact_in_float32():
    a, b = (torch.randn(16, 16).bfloat16() for _ in range(2))
    out = torch.empty(16, 16)
    _product[(1,)](a, b, out, COUNT=16)
    torch.testing.assert_close(out, a.float() @ b.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
def test_casts_to_and_from_bfloat16_are_those_of_torch(dtype):
    values = torch.tensor([0.0, 1.0, -1.00390625, 1.01171875, 3.14159, 100.3, -7.0, 0.1]).to(dtype)
    if dtype == torch.float32:
        values = torch.cat([values, torch.tensor([float("nan"), float("inf"), -3.4e38, 1e-40] * 2)])
    out = torch.empty(len(values), dtype=torch.bfloat16)
    _rounded[(1,)](values, out, COUNT=len(values))
    torch.testing.assert_close(out, values.bfloat16(), rtol=0, atol=0, equal_nan=True)
    back = torch.empty(len(values), dtype=dtype)
    finite = out.nan_to_num(0, 0, 0)
    _rounded[(1,)](finite, back, COUNT=len(values))
    torch.testing.assert_close(back, finite.to(dtype), rtol=0, atol=0)


def test_arithmetic_in_bfloat16_is_refused():
    with pytest.raises(Exception, match="make it float32 first"):
        _doubled[(1,)](torch.ones(8).bfloat16(), COUNT=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.int64, torch.float8_e4m3fn])
def test_guard_returns_an_equal_tensor_amid_canaries(guard, dtype):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    inner = guard(tensor)
    assert torch.equal(inner.float(), tensor.float())
    assert inner.is_contiguous()
    assert inner.data_ptr() % 16 == 0
    around = inner.as_strided((8,), (1,), MARGIN - 1)[[0, 7]].float()
    assert around.isnan().all() if dtype.is_floating_point else (around < -100).all()


def test_what_is_written_beside_a_guarded_tensor_is_noticed():
    guard = Guard()
    inner = guard(torch.zeros(4))
    guard.check()
    inner.as_strided((1,), (1,), MARGIN + 4).zero_()
    with pytest.raises(AssertionError, match="beside the guarded tensor number 0"):
        guard.check()
