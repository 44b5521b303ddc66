"""Every form under every encoding: what arrives, and what it weighs."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from codistill.tasks.encoding import factors
from codistill.tasks.knowledge import Models, Rows
from codistill.tasks.models import MODELS
from codistill.tasks.networks import build
from codistill.tasks.packet import Label, decode, read, write
from codistill.tasks.share import EncodingChoice, share
from codistill.tasks.sizes import exact, model_bytes, rows_bytes, told_bytes
from codistill.tasks.streams import torch_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

LABEL = Label("phone-12", 117, 1, 0.5)
FORMS = ["logits", "class_logits", "prototypes"]
ROW_ENCODINGS = ["float32", "float16", "int8", *({"bits": {"bits": n}} for n in (1, 2, 3, 8)), {"top-k": {"k": 3}}]


def sent(knowledge, said):
    message = share(knowledge, EncodingChoice.model_validate(said), LABEL)
    found, head = decode(message.to_pybytes())
    assert head["form"] == knowledge.form and head["sender"] == "phone-12" and head["round"] == "117"
    return found, message.size


def rows_of(values, weights=None, form="logits", samples=37.0):
    ids = torch.arange(len(values)) * 3 + 1
    weights = np.ones(len(values)) if weights is None else weights
    return Rows(form, ids, torch.tensor(values), torch.tensor(weights, dtype=torch.float64), samples)


def floats(low=-1e4, high=1e4):
    return st.floats(low, high, width=32)


shapes = st.tuples(st.integers(0, 6), st.integers(1, 9))
matrices = shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=floats()))
probabilities = shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=floats(0, 1)))
quick = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("said", ROW_ENCODINGS, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weights", [None, [0.5, 3.0, 1 / 3, 1e9]])
def test_ids_weights_samples_and_form_arrive_as_they_were(said, form, weights):
    given = rows_of(np.random.default_rng(1).random((4, 5), dtype=np.float32), weights, form, 1 / 3)
    found, _ = sent(given, said)
    assert torch.equal(found.ids, given.ids) and found.ids.dtype == torch.int64
    assert torch.equal(found.weights, given.weights) and found.weights.dtype == torch.float64
    assert (found.form, found.samples) == (form, given.samples)
    assert found.values.dtype == torch.float32 and found.values.shape == given.values.shape


@pytest.mark.parametrize("said", ROW_ENCODINGS, ids=str)
def test_nothing_arrives_as_nothing_of_the_same_width(said):
    found, _ = sent(rows_of(np.zeros((0, 4), np.float32)), said)
    assert found.values.shape == (0, 4) and found.items == 0 and found.values.dtype == torch.float32


@quick
@given(matrices)
def test_float32_is_exact(values):
    found, _ = sent(rows_of(values), "float32")
    assert found.values.numpy().tobytes() == values.tobytes()


@quick
@given(matrices)
def test_float16_is_the_nearest_half(values):
    found, _ = sent(rows_of(values), "float16")
    assert np.array_equal(found.values.numpy(), values.astype(np.float16).astype(np.float32))


@quick
@given(matrices)
def test_int8_is_within_half_a_step_of_its_row(values):
    found, _ = sent(rows_of(values), "int8")
    largest = np.abs(values).max(axis=1, keepdims=True) if len(values) else np.zeros((0, 1))
    assert (np.abs(found.values.numpy() - values) <= largest / 127 * 0.5 * (1 + 1e-4) + 2e-38 * 127).all()


@quick
@given(probabilities, st.integers(2, 8))
def test_bits_are_within_half_a_level(values, bits):
    found, _ = sent(rows_of(values), {"bits": {"bits": bits}})
    assert np.abs(found.values.numpy() - values).max(initial=0) <= 0.5 / (2**bits - 1) + 1e-6


@quick
@given(matrices)
def test_one_bit_keeps_the_largest_class_alone(values):
    found, _ = sent(rows_of(values), "bits")
    assert np.array_equal(found.values.numpy(), np.eye(values.shape[1], dtype=np.float32)[values.argmax(1)])


def test_three_classes_of_three_bits_share_bytes():
    values = np.array([[0, 0.5, 1], [1, 1, 1], [1 / 7, 6 / 7, 3 / 7]], np.float32)
    found, _ = sent(rows_of(values), {"bits": {"bits": 3}})
    expected = np.array([[0, 4, 7], [7, 7, 7], [1, 6, 3]]) / 7
    np.testing.assert_allclose(found.values, expected, atol=1e-7)


@quick
@given(matrices, st.integers(1, 10))
def test_top_k_keeps_the_largest_and_lowers_the_others_to_the_smallest_kept(values, k):
    found = sent(rows_of(values), {"top-k": {"k": k}})[0].values.numpy()
    half = values.astype(np.float16).astype(np.float32)
    for whole, got in zip(half, found, strict=True):
        kept = np.sort(whole)[::-1][:k]
        assert np.array_equal(np.sort(got)[::-1][:k], kept)
        assert np.array_equal(got, np.maximum(whole, kept.min()))


def network(name, shape, **said):
    from codistill.tasks.models import architecture

    one = architecture(name, MODELS[name].parameters(**said), shape, 10)
    state = {key: value.detach() for key, value in build(one, torch_stream(1, name)).state_dict().items()}
    return one, Models({one.name: state}, {one.name: 55.0})


NETWORKS = [
    ("linear", (1, 8, 8), {}),
    ("mlp", (1, 8, 8), {}),
    ("mlp", (4,), {"hidden": [8] * 30}),
    ("cnn", (1, 8, 8), {}),
    ("fedavg-cnn", (1, 28, 28), {}),
    ("resnet", (3, 32, 32), {}),
    ("resnet", (3, 32, 32), {"blocks": 6, "width": 4}),
]


@pytest.mark.parametrize(("name", "shape", "said"), NETWORKS[:5])
def test_models_arrive(name, shape, said):
    _, model = network(name, shape, **said)
    both = Models({**model.tensors, "scalar": {"s": torch.tensor(2.5)}}, {**model.samples_by, "scalar": 1 / 3})
    whole, half = sent(both, "float32")[0], sent(both, "float16")[0]
    assert whole.samples_by == half.samples_by == both.samples_by
    for identity, tensors in both.tensors.items():
        assert list(whole.tensors[identity]) == list(tensors)
        for key, value in tensors.items():
            assert torch.equal(whole.tensors[identity][key], value)
            assert torch.equal(half.tensors[identity][key], value.half().float())


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (8, 4, 5, 5)])
@pytest.mark.parametrize("share_kept", [0.3, 0.9])
def test_svd_keeps_the_energy_with_the_fewest_factors(shape, share_kept):
    # A spectrum that falls: what a few directions hold of a trained layer.
    generator = torch_stream(1, "svd")
    matrix = torch.randn(shape, generator=generator).flatten(1)
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s * 0.7 ** torch.arange(len(s))
    tensor = (u * s @ v).float().reshape(shape)
    said = {"svd": {"energy_start": share_kept - 0.1, "energy_end": share_kept + 0.1}}  # half way: share_kept
    found, size = sent(Models({"a": {"w": tensor}}, {"a": 1.0}), said)
    error = (found.tensors["a"]["w"] - tensor).double().square().sum() / tensor.double().square().sum()
    assert found.tensors["a"]["w"].shape == shape
    assert error <= 1 - share_kept + 1e-6
    squared = s.square()
    rank = int((squared.cumsum(0) < share_kept * squared.sum()).sum()) + 1
    assert error == pytest.approx(float(squared[rank:].sum() / squared.sum()), abs=1e-6)
    left, right = factors(tensor.flatten(1), share_kept)
    assert left.shape == (matrix.shape[0], rank) and right.shape == (rank, matrix.shape[1])
    assert size < sent(Models({"a": {"w": tensor}}, {"a": 1.0}), "float32")[1]


def test_svd_sends_whole_what_factors_would_not_make_smaller():
    tensors = {"flat": torch.randn(20, 20), "zero": torch.zeros(9, 9), "bias": torch.randn(30)}
    found, _ = sent(Models({"a": tensors}, {"a": 1.0}), {"svd": {"energy_start": 0.999, "energy_end": 0.999}})
    assert all(torch.equal(found.tensors["a"][key], tensors[key]) for key in tensors)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(TypeError, match="float32, float16 or svd, not int8"):
        sent(Models({"a": {"w": torch.ones(2)}}, {"a": 1.0}), "int8")
    with pytest.raises(TypeError, match="svd encodes whole models"):
        sent(rows_of(np.ones((1, 2), np.float32)), "svd")


@pytest.mark.parametrize("said", ROW_ENCODINGS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_weight_of_rows_is_foretold(said, weighted):
    chosen = EncodingChoice.model_validate(said)
    assert exact(chosen)
    for form in FORMS:
        for count in (1, 10, 359):
            for width in (3, 10, 64):
                weights = np.full(count, 2.5) if weighted else None
                _, size = sent(rows_of(np.ones((count, width), np.float32), weights, form), said)
                assert abs(size - rows_bytes(chosen, count, width, weighted)) <= 150


@pytest.mark.parametrize("said", ROW_ENCODINGS, ids=str)
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("width", [0, 3, 64])
def test_the_weight_of_labels_and_keys_is_foretold(said, labels, width):
    chosen = EncodingChoice.model_validate(said)
    for count in (1, 10, 359):
        rows = rows_of(np.ones((count, 10), np.float32) / 10)
        classes = torch.zeros(count, dtype=torch.int64) if labels else None
        rows = replace(rows, classes=classes, keys=torch.ones(count, width) if width else None)
        foretold = rows_bytes(chosen, count, 10, False) + told_bytes(chosen, count, labels, width)
        assert abs(sent(rows, said)[1] - foretold) <= 60


@pytest.mark.parametrize(("name", "shape", "parameters"), NETWORKS)
def test_the_weight_of_models_is_foretold(name, shape, parameters):
    one, model = network(name, shape, **parameters)
    for said in ("float32", "float16"):
        _, size = sent(model, said)
        foretold = model_bytes(EncodingChoice.model_validate(said), one)
        assert abs(size - foretold) <= max(300, 0.02 * size)
    svd = EncodingChoice.model_validate("svd")
    assert not exact(svd)
    assert sent(model, "svd")[1] <= model_bytes(svd, one) + max(300, 0.02 * model_bytes(svd, one))


def test_a_packet_is_an_arrow_stream_that_arrow_alone_can_read(tmp_path, rows):
    given = rows([2, 5], weights=[3.0, 4.0])
    message = share(given, EncodingChoice.model_validate("float32"), LABEL)
    table = pa.ipc.open_stream(message).read_all()
    assert table.schema.names == ["id", "values", "weight"]
    assert not any(pa.types.is_binary(field.type) for field in table.schema)
    assert np.array_equal(np.stack(table["values"].to_pylist()).astype(np.float32), given.values.numpy())
    assert b"pickle" not in message.to_pybytes() and b"\x80\x04\x95" not in message.to_pybytes()
    write(tmp_path / "p.arrow", message)
    assert (tmp_path / "p.arrow").stat().st_size == message.size
    assert torch.equal(read(tmp_path / "p.arrow").values, given.values)


def test_what_was_read_is_the_readers_own(tmp_path, models, rows):
    for one in (models(3), rows([1, 2], weights=[2.0, 2.0])):
        write(tmp_path / "p.arrow", share(one, EncodingChoice.model_validate("float32"), LABEL))
        before = (tmp_path / "p.arrow").read_bytes()
        first = read(tmp_path / "p.arrow")
        mine = first.tensors["a"].values() if isinstance(first, Models) else (first.values, first.weights, first.ids)
        for value in mine:
            value.add_(1)
        assert (tmp_path / "p.arrow").read_bytes() == before
        second = read(tmp_path / "p.arrow")
        if isinstance(one, Models):
            assert torch.equal(second.tensors["a"]["w"], one.tensors["a"]["w"])
        else:
            assert torch.equal(second.values, one.values) and torch.equal(second.weights, one.weights)
