"""The kernels of pack_knowledge: what the payload means in float64, clipping, and the distribution of the noise."""

import math
import os

import pytest
import torch
from codistill.kernels.pack import pack_knowledge
from codistill.kernels.triton import pack as launcher
from codistill.tests.kernels.formula_packed import meaning, others

ENCODINGS = ["int8", "float16", "float8"]


def logits(rows, classes, dtype=torch.float32):
    return (torch.randn(rows, classes, generator=torch.Generator().manual_seed(classes)) * 3).to(dtype)


def check(teacher, packed, temperature):
    p = torch.softmax(teacher.double() / temperature, 1)
    top, _ = p.topk(packed.indices.shape[1], 1)
    kept, tail = meaning(packed)
    torch.testing.assert_close(p.gather(1, packed.indices.long()), top, rtol=0, atol=0)
    torch.testing.assert_close(tail, others(p, packed.indices).sum(1), rtol=1e-5, atol=1e-12)
    step = {"int8": 0.033, "float16": 2**-11, "float8": 2**-4}[packed.encoding]
    near = top > 1e-3 * top[:, :1]
    assert torch.where(near, (kept / top - 1).abs(), 0.0).max() <= 2 * step + 1e-5
    torch.testing.assert_close(kept.sum(1) + tail, torch.ones(len(top), dtype=torch.float64))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("classes", "k"), [(1, 1), (10, 3), (10, 10), (10, 1), (257, 16), (1000, 70), (1003, 64), (9001, 20)]
)
def test_the_payload_means_the_teachers_probabilities(guard, encoding, classes, k):
    teacher = logits(4, classes)
    packed = pack_knowledge(guard(teacher), k=k, temperature=2.0, encoding=encoding, backend="triton")
    check(teacher, packed, 2.0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_codes_are_those_of_torch(encoding):
    # fine steps over all that float8 tells apart, down to its subnormal numbers and zero
    teacher = -torch.arange(1500, dtype=torch.float32)[None] / 100
    found = pack_knowledge(teacher, k=1500, encoding=encoding, backend="triton")
    plain = pack_knowledge(teacher, k=1500, encoding=encoding, backend="reference")
    apart = (found.values.view(torch.uint8).int() - plain.values.view(torch.uint8).int()).abs()
    assert (apart > 0).float().mean() < 0.01
    torch.testing.assert_close(found.dense(), plain.dense(), rtol=0.13, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_teachers_and_equal_logits(guard, dtype):
    teacher = logits(4, 300, dtype)
    teacher[2] = 1.0
    packed = pack_knowledge(guard(teacher), k=7, temperature=2.0, backend="triton")
    check(teacher, packed, 2.0)
    assert len(set(packed.indices[2].tolist())) == 7


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_broken_rows_and_excluded_classes(guard, encoding):
    teacher = logits(6, 20)
    teacher[1, 5], teacher[2, 6], teacher[3] = math.nan, math.inf, -math.inf
    teacher[4, 4:] = -math.inf
    packed = pack_knowledge(guard(teacher), k=6, encoding=encoding, backend="triton")
    assert packed.tails.isnan().tolist() == [False, True, True, True, False, False]
    assert packed.tails[4] == -math.inf
    dense = packed.dense()
    assert dense[[1, 2, 3]].isnan().all()
    assert not dense[4, 4:].any()
    sound = teacher[[0, 5]]
    check(sound, packed[[0, 5]], 1.0)


@pytest.mark.parametrize("classes", [20, 5000])
def test_clipping_shortens_long_rows_only(guard, classes):
    teacher = logits(4, classes)
    teacher[2:] *= 0.001
    packed = pack_knowledge(guard(teacher), k=10, clip=2.0, backend="triton")
    expected = teacher.double()
    expected[:2] *= 2.0 / expected[:2].norm(dim=1, keepdim=True)
    p = torch.softmax(expected, 1)
    torch.testing.assert_close(packed.probabilities()[1].double(), others(p, packed.indices).sum(1))
    teacher[0, 3] = math.nan
    packed = pack_knowledge(guard(teacher), k=10, clip=2.0, backend="triton")
    assert packed.tails.isnan().tolist() == [True, False, False, False]


def noise(seed, rows=4, classes=4097):
    """What is added to logits of zero, without a payload in between."""
    return launcher._perturbed(torch.zeros(rows, classes), torch.tensor(seed), 2.0, 0.25) / 0.5


def test_noise_is_gaussian_of_the_promised_size():
    drawn = noise(2**62 + 11).double()
    assert drawn.mean().abs() < 0.03
    assert drawn.var().item() == pytest.approx(1, abs=0.04)
    assert (drawn.pow(4).mean() / drawn.var() ** 2).item() == pytest.approx(3, abs=0.2)
    for z, share in [(-2.0, 0.0228), (-1.0, 0.1587), (0.0, 0.5), (0.5, 0.6915), (2.0, 0.9772)]:
        assert (drawn < z).double().mean().item() == pytest.approx(share, abs=0.012)
    assert torch.corrcoef(drawn).triu(1).abs().max() < 0.06
    assert torch.corrcoef(torch.stack([drawn[0, 1:], drawn[0, :-1]]))[0, 1].abs() < 0.06


def test_noise_comes_from_the_seed():
    assert torch.equal(noise(1, 2, 10), noise(1, 2, 10))
    assert not torch.equal(noise(1, 2, 10), noise(2, 2, 10))
    made = [
        pack_knowledge(torch.zeros(2, 10), k=3, clip=1.0, noise=1.0, generator=generator, backend="triton").dense()
        for generator in (torch.Generator().manual_seed(4), torch.Generator().manual_seed(4))
    ]
    assert torch.equal(*made)


def test_no_rows_strides_and_too_many_kept(guard):
    assert pack_knowledge(torch.empty(0, 10), k=3, clip=1.0, noise=1.0, backend="triton").dense().shape == (0, 10)
    wide = guard(logits(3, 40))
    check(wide[:, 5:25], pack_knowledge(wide[:, 5:25], k=4, backend="triton"), 1.0)
    turned = logits(12, 3).t()
    check(turned, pack_knowledge(turned, k=4, backend="triton"), 1.0)
    with pytest.raises(ValueError, match="pack_knowledge: k is 8193; .* at most 8192"):
        pack_knowledge(torch.zeros(1, 9001), k=8193, backend="triton")


def far_apart(path, classes):
    """Three rows of which the last starts beyond what 32 bits can say; the file between them takes no room."""
    apart = 1_500_000_000
    size = 2 * apart + classes
    path.touch()
    os.truncate(path, 2 * size)
    rows = torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16).as_strided((3, classes), (apart, 1))
    rows.copy_(logits(3, classes))
    return rows


@pytest.mark.parametrize("clip", [None, 100.0])
def test_rows_beyond_32_bit_offsets(tmp_path, clip):
    rows = far_apart(tmp_path / "rows", 40)
    check(rows.clone(), pack_knowledge(rows, k=5, clip=clip, backend="triton"), 1.0)
