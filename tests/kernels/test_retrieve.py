"""``retrieve`` against a formula in float64, with masks, int8 banks, ties, NaN and nothing to find."""

import math
from typing import Any

import codistill.kernels.cpu.faiss_search as faiss_search
import codistill.kernels.cpu.group_search as group_search
import pytest
import torch
from codistill.kernels.dispatch import watch
from codistill.kernels.retrieval import Retrieved, retrieve

BACKENDS = ["reference", "cpu", "groups"]


def oracle(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    k: int,
    similarity: str = "dot",
    scale: float = 1.0,
    temperature: float = 1.0,
    bias: torch.Tensor | None = None,
    forbidden: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Plain torch in float64, differentiable by autograd: values, indices, weights, scores, log-sum-exp."""
    if similarity == "cosine":
        queries, keys = queries / queries.norm(dim=1, keepdim=True), keys / keys.norm(dim=1, keepdim=True)
    scores = -(queries[:, None] - keys[None]).square().sum(2) if similarity == "l2" else queries @ keys.T
    scores = scores * scale if bias is None else scores * scale + bias
    if forbidden is not None:
        scores = scores.masked_fill(forbidden, -math.inf)
    best, indices = scores.topk(min(k, scores.shape[1]), 1)
    weights = torch.nan_to_num(torch.softmax(best / temperature, 1))
    indices = torch.where(best > -math.inf, indices, -1)
    return (weights[:, :, None] * values[indices]).sum(1), indices, weights, best, (best / temperature).logsumexp(1)


def run(backend: str, monkeypatch: pytest.MonkeyPatch, *arguments: Any, **settings: Any) -> Retrieved:
    """Call ``retrieve``; "groups" is the CPU back end without faiss, in chunks small enough that there are several."""
    if backend == "groups":
        monkeypatch.setattr(faiss_search, "installed", lambda name: False)
        monkeypatch.setattr(group_search, "CHUNK", 64)
        monkeypatch.setattr(group_search, "ROWS", 4)
        backend = "cpu"
    return retrieve(*arguments, backend=backend, **settings)


def data(rows: int, count: int, width: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(rows * 1000 + count)
    made = [torch.randn(*shape, generator=random) for shape in ((rows, width), (count, width), (count, 7), (count,))]
    return tuple(one.to(dtype) for one in made)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
@pytest.mark.parametrize(("rows", "count", "width", "k"), [(9, 1003, 24, 5), (1, 257, 2, 1), (6, 10, 33, 10)])
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients(
    backend: str,
    similarity: str,
    rows: int,
    count: int,
    width: int,
    k: int,
    biased: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leaves = [one.requires_grad_() for one in data(rows, count, width)]
    exact = [one.detach().double().requires_grad_() for one in leaves]
    settings: dict[str, Any] = {"k": k, "similarity": similarity, "scale": 0.7, "temperature": 1.5}
    found = run(backend, monkeypatch, *leaves[:3], bias=leaves[3] if biased else None, **settings)
    wanted = oracle(*exact[:3], bias=exact[3] if biased else None, **settings)
    assert torch.equal(found.indices, wanted[1])
    random = torch.Generator().manual_seed(0)
    total, exact_total = torch.zeros(()), torch.zeros((), dtype=torch.float64)
    for mine, right in zip(found, wanted, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine.double(), right.double(), rtol=1e-5, atol=1e-5)
        if right.dtype == torch.float64:
            factor = torch.randn(right.shape, generator=random)
            total, exact_total = total + (mine * factor).sum(), exact_total + (right * factor).sum()
    inputs = slice(4) if biased else slice(3)
    gradients = torch.autograd.grad(total, leaves[inputs])
    for mine, right in zip(gradients, torch.autograd.grad(exact_total, exact[inputs]), strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
def test_gradcheck(similarity: str) -> None:
    queries, keys, values, bias = (one.requires_grad_() for one in data(3, 9, 4, torch.float64))

    def differentiable(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = retrieve(*given[:3], bias=given[3], k=4, similarity=similarity, scale=0.8, temperature=0.6)
        assert found.values is not None
        return found.values, found.weights, found.scores, found.log_sum_exp

    assert torch.autograd.gradcheck(differentiable, (queries, keys, values, bias))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_float32(backend: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = [one.requires_grad_() for one in data(5, 300, 24, dtype)[:3]]
    exact = [one.detach().double().requires_grad_() for one in leaves]
    found = run(backend, monkeypatch, *leaves, k=4, similarity="l2")
    wanted = oracle(*exact, k=4, similarity="l2")
    assert found.values is not None and found.values.dtype == dtype and found.weights.dtype == torch.float32
    assert torch.equal(found.indices, wanted[1])
    torch.testing.assert_close(found.scores.double(), wanted[3], rtol=1e-5, atol=1e-5)
    found.values.sum().backward()
    wanted[0].sum().backward()
    for mine, right in zip(leaves, exact, strict=True):
        assert mine.grad is not None and mine.grad.dtype == dtype
        torch.testing.assert_close(mine.grad.double(), right.grad, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_bank(backend: str, similarity: str, dtype: torch.dtype) -> None:
    queries, keys, values, bias = data(6, 200, 24)
    queries = queries.to(dtype)
    scales = [one.abs().amax(1) / 127 for one in (keys, values)]
    codes = [(one / scale[:, None]).round().to(torch.int8) for one, scale in zip((keys, values), scales, strict=True)]
    mine, exact = queries.clone().requires_grad_(), queries.double().requires_grad_()
    bias.requires_grad_()
    found = retrieve(
        mine,
        *codes,
        k=8,
        similarity=similarity,
        key_scales=scales[0],
        value_scales=scales[1],
        bias=bias,
        backend=backend,
    )
    full = [code.double() * scale.double()[:, None] for code, scale in zip(codes, scales, strict=True)]
    exact_bias = bias.detach().double().requires_grad_()
    wanted = oracle(exact, *full, k=8, similarity=similarity, bias=exact_bias)
    assert found.values is not None and torch.equal(found.indices, wanted[1])
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found.values.double(), wanted[0], rtol=tolerance, atol=tolerance)
    found.values.float().square().sum().backward()
    (2 * found.values.detach().double() * wanted[0]).sum().backward()
    for leaf, right in ((mine, exact), (bias, exact_bias)):
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad.double(), right.grad, rtol=tolerance * 2, atol=tolerance * 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, bias = data(9, 400, 16)
    random = torch.Generator().manual_seed(3)

    def some(most: int, count: int) -> torch.Tensor:
        return torch.randint(0, most, (count,), generator=random)

    masks = {
        "query_owner": some(4, 9),
        "key_owner": some(4, 400),
        "query_class": some(30, 9).int(),
        "key_class": some(30, 400).int(),
        "key_age": some(10, 400),
    }
    masks["query_class"][3] = 99  # a class with no memory
    found = run(backend, monkeypatch, queries, keys, values, k=8, bias=bias, max_age=6, **masks)
    forbidden = masks["query_owner"][:, None] == masks["key_owner"]
    forbidden |= (masks["query_class"][:, None] != masks["key_class"]) | (masks["key_age"] > 6)
    wanted = oracle(queries.double(), keys.double(), values.double(), k=8, bias=bias.double(), forbidden=forbidden)
    assert (found.indices < 0).any() and torch.equal(found.indices, wanted[1])
    for mine, right in zip(found, wanted, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine.double(), right.double(), rtol=1e-5, atol=1e-5)
    assert found.values is not None and not found.values[3].any() and not found.weights[3].any()
    assert found.log_sum_exp[3] == -math.inf


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_query_without_memories_has_no_gradient(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, bias = (one.requires_grad_() for one in data(2, 20, 4))
    owner = torch.zeros(2, dtype=torch.int64)
    found = run(
        backend,
        monkeypatch,
        queries,
        keys,
        values,
        k=3,
        bias=bias,
        query_owner=owner,
        key_owner=torch.zeros(20, dtype=torch.int64),
    )
    assert found.values is not None
    for one in torch.autograd.grad(found.values.sum() + found.weights.sum(), (queries, keys, values, bias)):
        assert not one.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("similarity", ["dot", "l2"])
def test_ties_go_to_the_lower_index(backend: str, similarity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(1)
    keys = torch.randint(-1, 2, (500, 3), generator=random).float()
    queries = torch.randint(-2, 3, (9, 3), generator=random).float()
    found = run(backend, monkeypatch, queries, keys, k=20, similarity=similarity)
    scores = queries @ keys.T if similarity == "dot" else -(queries[:, None] - keys).square().sum(2)
    wanted = torch.sort(scores, dim=1, descending=True, stable=True)
    assert torch.equal(found.indices, wanted.indices[:, :20])
    torch.testing.assert_close(found.scores, wanted.values[:, :20])


@pytest.mark.parametrize("backend", BACKENDS)
def test_near_ties_of_long_vectors_are_found_exactly(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # |q|^2 - 2 q k + |k|^2 has no digit right here, so that candidates chosen by it would be wrong.
    random = torch.Generator().manual_seed(1)
    keys = (1000 + torch.randn(600, 8, generator=random)).float()
    queries = (1000 + torch.randn(7, 8, generator=random)).float()
    found = run(backend, monkeypatch, queries, keys, k=4, similarity="l2")
    wanted = oracle(queries.double(), keys.double(), keys.double(), k=4, similarity="l2")
    assert torch.equal(found.indices, wanted[1])
    torch.testing.assert_close(found.scores.double(), wanted[3], rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_k_beyond_the_bank_is_padded(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, _ = data(3, 4, 5)
    found = run(backend, monkeypatch, queries, keys, values, k=6)
    wanted = oracle(queries.double(), keys.double(), values.double(), k=4)
    assert torch.equal(found.indices[:, :4], wanted[1]) and (found.indices[:, 4:] == -1).all()
    assert not found.weights[:, 4:].any() and (found.scores[:, 4:] == -math.inf).all()
    torch.testing.assert_close(found.log_sum_exp.double(), wanted[4], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("rows", "count"), [(3, 0), (0, 5), (0, 0)])
def test_nothing_to_ask_or_to_find(backend: str, rows: int, count: int) -> None:
    queries, keys, values, bias = (one.requires_grad_() for one in data(rows, count, 4))
    found = retrieve(queries, keys, values, k=2, bias=bias, backend=backend)
    assert found.values is not None and found.values.shape == (rows, 7) and not found.values.any()
    assert found.indices.tolist() == [[-1, -1]] * rows and not found.weights.any()
    assert found.log_sum_exp.tolist() == [-math.inf] * rows
    (found.values.sum() + found.weights.sum()).backward()
    for one in (queries, keys, values, bias):
        assert one.grad is not None and not one.grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_stays_in_its_row(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, _ = data(5, 300, 4)
    clean = run(backend, monkeypatch, queries, keys, values, k=3)
    queries[2, 1] = math.nan
    queries.requires_grad_(), keys.requires_grad_(), values.requires_grad_()
    found = run(backend, monkeypatch, queries, keys, values, k=3)
    others = torch.tensor([0, 1, 3, 4])
    assert found.values is not None and clean.values is not None
    for mine, right in zip(found, clean, strict=True):
        torch.testing.assert_close(mine[others], right[others])
    assert found.indices[2].tolist() == [-1] * 3
    for one in (found.values, found.weights, found.scores, found.log_sum_exp[:, None]):
        assert one[2].isnan().all()
    by_queries, by_keys, by_values = torch.autograd.grad(found.values.sum(), (queries, keys, values))
    assert by_queries[2].isnan().all() and not by_queries[others].isnan().any()
    assert not by_keys.isnan().any() and not by_values.isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
def test_a_memory_of_nan_is_never_retrieved(backend: str, similarity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, bias = data(5, 300, 4)
    broken = torch.tensor([0, 17, 130, 131, 299])
    keys[broken[:3], 1], bias[broken[3:]] = math.nan, math.nan
    found = run(backend, monkeypatch, queries, keys, values, k=6, similarity=similarity, bias=bias)
    forbidden = torch.zeros(300, dtype=torch.bool)
    forbidden[broken] = True
    wanted = oracle(
        queries.double(),
        keys.nan_to_num().double() + 1e-9,
        values.double(),
        k=6,
        similarity=similarity,
        bias=bias.nan_to_num().double(),
        forbidden=forbidden,
    )
    assert torch.equal(found.indices, wanted[1]) and found.values is not None
    torch.testing.assert_close(found.values.double(), wanted[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_infinite_scores(backend: str) -> None:
    queries, keys, values, bias = data(4, 300, 4)
    bias[:298] = -math.inf
    found = retrieve(queries, keys, values, k=3, bias=bias, backend=backend)
    assert found.indices.sort(1).values.tolist() == [[-1, 298, 299]] * 4
    torch.testing.assert_close(found.weights.sum(1), torch.ones(4))
    bias[5] = math.inf
    found = retrieve(queries, keys, values, k=3, bias=bias, backend=backend)
    assert (found.indices[:, 0] == 5).all() and (found.scores[:, 0] == math.inf).all()
    assert found.weights[:, 0].isnan().all()  # as in torch.softmax of an infinity


def test_a_bank_without_values() -> None:
    queries, keys, _, _ = data(4, 30, 5)
    keys.requires_grad_()
    found = retrieve(queries, keys, k=3)
    assert found.values is None
    (gradient,) = torch.autograd.grad(found.log_sum_exp.sum(), keys)
    exact = keys.detach().double().requires_grad_()
    (right,) = torch.autograd.grad((queries.double() @ exact.T).topk(3, 1)[0].logsumexp(1).sum(), exact)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-5, atol=1e-6)


def test_a_call_says_how_it_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, values, bias = data(4, 30, 5)
    with watch() as ran:
        retrieve(queries, keys, values, k=3)
        retrieve(queries, keys, values, k=3, bias=bias)
        retrieve(queries.double(), keys.double(), values, k=3)
        run("groups", monkeypatch, queries, keys, values, k=3)
    assert [one.backend for one in ran] == ["cpu", "cpu", "reference", "cpu"]
    assert ran[0].detail == "faiss" and "neither masks nor biases" in ran[1].detail
    assert "float64" in ran[2].reason and "not installed" in ran[3].detail


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"k": 0}, "k is 0"),
        ({"similarity": "l1"}, "similarity is 'l1'"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"queries": torch.zeros(3)}, r"queries has shape \(3,\)"),
        ({"keys": torch.zeros(5, 3)}, r"keys has shape \(5, 3\); expected \[M, 4\]"),
        ({"keys": torch.zeros(5, 4).half()}, "keys are torch.float16"),
        ({"keys": torch.zeros(5, 4, dtype=torch.int8)}, "give one scale a row"),
        ({"values": torch.zeros(4, 2)}, r"values has shape \(4, 2\)"),
        ({"values": torch.zeros(5, 2, dtype=torch.int64)}, "values are torch.int64"),
        ({"key_scales": torch.zeros(5)}, "the keys are not int8"),
        ({"bias": torch.zeros(4)}, r"bias has shape \(4,\); expected \[5\], one a key"),
        ({"bias": torch.zeros(5, dtype=torch.int64)}, "bias is torch.int64; expected floats"),
        ({"query_owner": torch.zeros(3, dtype=torch.int64)}, "query_owner is given without key_owner"),
        ({"max_age": 3}, "max_age is given without key_age"),
        ({"query_class": torch.zeros(3), "key_class": torch.zeros(5)}, "query_class is torch.float32"),
        ({"backend": "cuda"}, "there is no back end 'cuda'"),
    ],
)
def test_refusals(changes: dict[str, Any], sentence: str) -> None:
    given = {"queries": torch.zeros(3, 4), "keys": torch.zeros(5, 4), "values": torch.zeros(5, 2), "k": 2, **changes}
    with pytest.raises(ValueError, match=sentence):
        retrieve(**given)
