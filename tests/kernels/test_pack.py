"""pack_knowledge: what is kept, how exactly, what clipping and noise do, and what is refused."""

import math

import pytest
import torch
from codistill.kernels import watch
from codistill.kernels.pack import Packed, pack_knowledge
from codistill.tests.kernels.formula_packed import meaning, others
from torch._dynamo.utils import counters

ENCODINGS = ["int8", "float16", "float8"]
BACKENDS = ["reference", "cpu"]
SIZES = [(10, 3), (10, 10), (10, 1), (1, 1), (257, 16), (1003, 64), (9001, 20)]


def logits(rows, classes, seed=0, dtype=torch.float32):
    return (torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)


def half_step(packed):
    """The greatest relative error of a kept probability, before the kept ones are made to add up."""
    if packed.encoding == "int8":
        return torch.expm1(packed.scales.double() / 2)[:, None]
    return torch.tensor(2**-11 if packed.encoding == "float16" else 2**-4, dtype=torch.float64)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("classes", "k"), SIZES)
@pytest.mark.parametrize("temperature", [0.7, 1.0, 4.0])
def test_the_payload_means_the_teachers_probabilities(backend, encoding, classes, k, temperature):
    teacher = logits(5, classes)
    packed = pack_knowledge(teacher, k=k, temperature=temperature, encoding=encoding, backend=backend)
    p = torch.softmax(teacher.double() / temperature, 1)
    top, _ = p.topk(k, 1)
    kept, tail = meaning(packed)
    torch.testing.assert_close(p.gather(1, packed.indices.long()), top, rtol=0, atol=0)
    torch.testing.assert_close(tail, others(p, packed.indices).sum(1), rtol=1e-5, atol=1e-12)
    # What is far below the largest may be rounded to zero, or be a subnormal number of the format.
    far = {"int8": -16.0, "float16": -20.0, "float8": -9.5}[encoding]
    near = (top / top[:, :1]).log() > far
    off = (kept / top - 1).abs() / (1 + half_step(packed))
    assert (torch.where(near, off, 0.0) <= 2 * half_step(packed) + 1e-5).all()
    assert (kept[~near] <= top[:, :1].expand_as(kept)[~near] * math.exp(far) * 1.1).all()
    torch.testing.assert_close(kept.sum(1) + tail, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_packed_as_their_values(dtype):
    teacher = logits(4, 50, dtype=dtype)
    packed, again = pack_knowledge(teacher, k=7), pack_knowledge(teacher.float(), k=7)
    torch.testing.assert_close(packed.tails, again.tails)
    assert (packed.values.int() - again.values.int()).abs().max() <= 1
    assert packed.scales.dtype == packed.tails.dtype == torch.float32


def test_int8_covers_what_a_row_needs():
    teacher = torch.tensor([[0.0, -5.08, -2.54, -9.0], [0.0, -40.0, -15.0, -50.0], [3.0, 3.0, 3.0, 3.0]])
    packed = pack_knowledge(teacher, k=3)
    torch.testing.assert_close(packed.scales, torch.tensor([5.08, 15.0, 0.0]) / 254)
    assert packed.values.tolist() == [[127, 0, -127], [127, -127, -128], [127, 127, 127]]


def test_a_teacher_that_is_sure_keeps_its_tail():
    teacher = torch.zeros(1, 100)
    teacher[0, 7] = 30.0
    for encoding in ENCODINGS:
        packed = pack_knowledge(teacher, k=1, encoding=encoding)
        rest = 99 * math.exp(-30)
        assert packed.tails.item() == pytest.approx(math.log(rest), rel=1e-6)
        assert packed.probabilities()[1].item() == pytest.approx(rest, rel=1e-5)


@pytest.mark.parametrize(("encoding", "weight"), [("int8", 8 + 5 * 6), ("float16", 4 + 6 * 6), ("float8", 4 + 5 * 6)])
def test_what_it_weighs(encoding, weight):
    assert pack_knowledge(logits(9, 40), k=6, encoding=encoding).bytes == 9 * weight


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_dense_spreads_the_rest_evenly(encoding):
    packed = pack_knowledge(logits(4, 12), k=5, encoding=encoding)
    dense, (kept, tail) = packed.dense(), meaning(packed)
    torch.testing.assert_close(dense.gather(1, packed.indices.long()).double(), kept)
    torch.testing.assert_close(others(dense, packed.indices).double(), (tail / 7)[:, None].expand(4, 7))
    whole = pack_knowledge(logits(4, 12), k=12, encoding=encoding)
    torch.testing.assert_close(whole.dense().sum(1), torch.ones(4))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("rows", [torch.tensor([2, 0, 2]), slice(1, 3), torch.tensor([True, False, True, False])])
def test_rows_can_be_picked_and_moved(encoding, rows):
    teacher = logits(4, 30)
    some = pack_knowledge(teacher, k=5, encoding=encoding)[rows].to("cpu")
    again = pack_knowledge(teacher[rows], k=5, encoding=encoding)
    torch.testing.assert_close(some.dense(), again.dense(), rtol=0, atol=0)
    assert (some.classes, some.temperature, some.encoding, some.bytes) == (30, 1.0, encoding, again.bytes)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_leading_dimensions(encoding):
    teacher = logits(12, 10)
    flat = pack_knowledge(teacher, k=4, encoding=encoding)
    packed = pack_knowledge(teacher.view(3, 4, 10), k=4, encoding=encoding)
    assert packed.indices.shape == packed.values.shape == (3, 4, 4)
    assert packed.tails.shape == (3, 4)
    assert torch.equal(packed.dense().view(12, 10), flat.dense())
    single = pack_knowledge(teacher[0], k=4, encoding=encoding)
    assert single.indices.shape == (4,)
    assert torch.equal(single.dense(), flat.dense()[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_rows(backend, encoding):
    packed = pack_knowledge(torch.empty(0, 10), k=4, encoding=encoding, backend=backend)
    assert packed.indices.shape == packed.values.shape == (0, 4)
    assert packed.bytes == 0
    assert packed.dense().shape == (0, 10)


# Rows that are odd or broken


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_row_is_nan_and_leaves_the_others_alone(encoding, value):
    teacher = logits(4, 10)
    whole = pack_knowledge(teacher, k=4, encoding=encoding).dense()
    teacher[2, 5] = value
    packed = pack_knowledge(teacher, k=4, encoding=encoding)
    assert packed.tails.isnan().tolist() == [False, False, True, False]
    assert packed.dense()[2].isnan().all()
    assert torch.equal(packed.dense()[[0, 1, 3]], whole[[0, 1, 3]])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_excluded_classes_have_no_probability(encoding):
    teacher = logits(3, 10)
    teacher[:, 4:] = -math.inf
    packed = pack_knowledge(teacher, k=6, encoding=encoding)
    assert (packed.tails == -math.inf).all()
    assert not packed.dense()[:, 4:].any()
    tolerance = {"int8": 0.04, "float16": 1e-3, "float8": 0.1}[encoding]
    torch.testing.assert_close(packed.dense(), torch.softmax(teacher, 1), rtol=tolerance, atol=tolerance)


def test_equal_logits_are_all_counted():
    packed = pack_knowledge(torch.zeros(2, 1000), k=10)
    kept, tail = packed.probabilities()
    torch.testing.assert_close(kept, torch.full((2, 10), 1e-3))
    torch.testing.assert_close(tail, torch.full((2,), 0.99))
    assert all(len(set(row)) == 10 for row in packed.indices.tolist())


# Clipping and noise


@pytest.mark.parametrize("backend", BACKENDS)
def test_clipping_shortens_long_rows_only(backend):
    teacher = logits(6, 20)
    teacher[3:] *= 0.01
    packed = pack_knowledge(teacher, k=20, clip=2.0, encoding="float16", backend=backend)
    expected = teacher.double()
    expected[:3] *= 2.0 / expected[:3].norm(dim=1, keepdim=True)
    torch.testing.assert_close(packed.dense().double(), torch.softmax(expected, 1), rtol=2e-3, atol=1e-6)


def differences(rows, **settings):
    """Differences of the two logits of each row, which are zero but for noise."""
    packed = pack_knowledge(torch.zeros(rows, 2), k=2, encoding="float16", **settings)
    signs = 1 - 2 * packed.indices[:, 0]
    ratios = packed.values.double()
    return signs * (ratios[:, 0] / ratios[:, 1]).log()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("clip", "noise"), [(1.0, 0.5), (3.0, 1.0)])
def test_noise_is_gaussian_of_the_promised_size(backend, clip, noise):
    generator = torch.Generator().manual_seed(5)
    drawn = differences(20_000, clip=clip, noise=noise, generator=generator, backend=backend)
    drawn = drawn / (clip * noise * math.sqrt(2))
    assert drawn.mean().abs() < 0.03
    assert drawn.var().item() == pytest.approx(1, abs=0.04)
    for z, share in [(-1.0, 0.1587), (0.0, 0.5), (0.5, 0.6915), (2.0, 0.9772)]:
        assert (drawn < z).double().mean().item() == pytest.approx(share, abs=0.012)


def test_noise_comes_from_the_generator():
    def draw(seed):
        return differences(50, clip=1.0, noise=1.0, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    generator = torch.Generator().manual_seed(1)
    first, second = (differences(50, clip=1.0, noise=1.0, generator=generator) for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    default = differences(50, clip=1.0, noise=1.0)
    torch.manual_seed(3)
    assert torch.equal(default, differences(50, clip=1.0, noise=1.0))


def test_without_noise_nothing_is_drawn():
    generator = torch.Generator().manual_seed(1)
    before = generator.get_state()
    pack_knowledge(logits(3, 10), k=2, clip=1.0, generator=generator)
    assert torch.equal(generator.get_state(), before)


# The operator


OPERATOR = torch.ops.codistill.pack_knowledge.default


@pytest.mark.parametrize("encoding", ["int8", "float16"])  # opcheck cannot compare float8
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_operator_is_registered_as_torch_wants_it(encoding, noise):
    seed = torch.tensor(7) if noise else None
    torch.library.opcheck(OPERATOR, (logits(4, 10), seed, 3, 2.0, encoding, 1.0, noise, ""))


def test_there_is_no_gradient():
    packed = pack_knowledge(logits(4, 10).requires_grad_(), k=3)
    assert not any(tensor.requires_grad for tensor in (packed.values, packed.scales, packed.tails))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_vmap_is_a_loop(encoding):
    teacher = logits(12, 10).view(4, 3, 10)

    def dense(one):
        return pack_knowledge(one, k=4, encoding=encoding).dense()

    looped = torch.stack([dense(teacher[:, i]) for i in range(3)])
    torch.testing.assert_close(torch.func.vmap(dense, in_dims=1)(teacher), looped)


def test_vmap_with_noise_draws_for_every_row():
    def noisy(one):
        return pack_knowledge(one, k=10, clip=1.0, noise=1.0).dense()

    made = torch.func.vmap(noisy, randomness="same")(torch.zeros(3, 2, 10)).view(6, 10)
    assert len({tuple(row) for row in made.tolist()}) == 6
    with pytest.raises(NotImplementedError, match="pack_knowledge: torch.func.vmap over rows"):
        torch.func.vmap(noisy, randomness="different")(torch.zeros(3, 2, 10))


def test_the_compiled_graph_is_made_once_for_any_number_of_rows_and_any_temperature(monkeypatch):
    monkeypatch.setattr("codistill.kernels.cpu.compiled.PAYS_FROM", 1)
    counters.clear()
    torch._dynamo.reset()
    for rows, temperature in [(6, 2.0), (9, 1.0), (33, 0.5)]:
        teacher = logits(rows, 40)
        with watch() as ran:
            packed = pack_knowledge(teacher, k=5, temperature=temperature)
        assert (ran[0].backend, ran[0].detail) == ("cpu", "one graph, compiled")
        plain = pack_knowledge(teacher, k=5, temperature=temperature, backend="reference")
        assert torch.equal(packed.indices, plain.indices)
        assert (packed.values.int() - plain.values.int()).abs().max() <= 1
        torch.testing.assert_close(packed.tails, plain.tails)
    assert counters["stats"]["unique_graphs"] == 1


# What is refused


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"k": 11}, "k is 11 and the logits have 10 classes; expected 1 to 10"),
        ({"k": 0}, "k is 0"),
        ({"k": 2, "temperature": 0.0}, "temperature is 0.0"),
        ({"k": 2, "encoding": "int4"}, "encoding is 'int4'; expected one of int8, float16, float8"),
        ({"k": 2, "clip": 0.0}, "clip is 0.0"),
        ({"k": 2, "clip": 1.0, "noise": -1.0}, "noise is -1.0"),
        ({"k": 2, "noise": 1.0}, "noise is in units of clip, which is None"),
    ],
)
def test_refusals(settings, sentence):
    with pytest.raises(ValueError, match=f"pack_knowledge: {sentence}"):
        pack_knowledge(logits(4, 10), **settings)


def test_whole_numbers_are_no_logits():
    with pytest.raises(ValueError, match="pack_knowledge: logits has shape"):
        pack_knowledge(torch.zeros(4, 10, dtype=torch.int64), k=2)


def test_what_is_made_is_frozen():
    packed = pack_knowledge(logits(2, 4), k=2)
    assert isinstance(packed, Packed)
    with pytest.raises(AttributeError):
        packed.classes = 5
