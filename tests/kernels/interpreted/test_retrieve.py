"""``retrieve`` by Triton, interpreted, against a formula in float64."""

import math
import os
from pathlib import Path
from typing import Any

import codistill.kernels.triton.retrieve as launcher
import pytest
import torch
from codistill.kernels.retrieval import Retrieved, retrieve
from codistill.kernels.triton.retrieve_shapes import Tiles


def oracle(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    k: int,
    similarity: str = "dot",
    scale: float = 1.0,
    temperature: float = 1.0,
    forbidden: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Plain torch in float64: values, indices, weights, scores, log-sum-exp."""
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


def data(rows: int, count: int, dim: int, width: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(rows * 1000 + count)
    made = [torch.randn(*shape, generator=random) for shape in ((rows, dim), (count, dim), (count, width), (count,))]
    return [one.to(dtype) for one in made]


def agree(found: Retrieved, wanted: tuple[torch.Tensor, ...], tolerance: float) -> None:
    assert torch.equal(found.indices, wanted[1])
    for mine, right, allowed in zip(found, wanted, (tolerance, 0.0, 2e-5, 2e-5, 2e-5), strict=True):
        assert mine is not None
        torch.testing.assert_close(mine.double(), right.double(), rtol=allowed, atol=allowed)


def ask(guard: Any, given: list[torch.Tensor], **settings: Any) -> Retrieved:
    bias = guard(given[3]) if len(given) > 3 else None
    named = {name: guard(one) if isinstance(one, torch.Tensor) else one for name, one in settings.items()}
    return retrieve(*(guard(one) for one in given[:3]), bias=bias, backend="triton", **named)


@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
@pytest.mark.parametrize(
    ("rows", "count", "dim", "width", "k", "dtype"),
    [
        (3, 257, 24, 10, 5, torch.float32),
        (3, 40, 70, 3, 16, torch.bfloat16),
        (1, 1003, 16, 40, 1, torch.bfloat16),
    ],
)
def test_values_and_gradients(
    guard: Any, similarity: str, rows: int, count: int, dim: int, width: int, k: int, dtype: torch.dtype
) -> None:
    leaves = [guard(one.requires_grad_()) for one in data(rows, count, dim, width, dtype)]
    exact = [one.detach().double().requires_grad_() for one in leaves]
    settings: dict[str, Any] = {"k": k, "similarity": similarity, "scale": 0.5, "temperature": 1.5}
    found = retrieve(*leaves[:3], bias=leaves[3], backend="triton", **settings)
    wanted = oracle(*exact, **settings)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    agree(found, wanted, tolerance)
    random = torch.Generator().manual_seed(0)
    total: Any = 0
    exact_total: Any = 0
    for mine, right in zip(found, wanted, strict=True):
        if right.dtype == torch.float64 and mine is not None:
            factor = torch.randn(right.shape, generator=random)
            total, exact_total = total + (mine * factor).sum(), exact_total + (right * factor).sum()
    for mine, right in zip(torch.autograd.grad(total, leaves), torch.autograd.grad(exact_total, exact), strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), right, rtol=3 * tolerance, atol=3 * tolerance)


@pytest.mark.parametrize(
    ("tiles", "dtype"),
    [(Tiles(128, 256, 64, 8, 3), torch.bfloat16), (Tiles(64, 128, 64, 4, 3), torch.bfloat16), (None, torch.float32)],
)
def test_large_tiles(guard: Any, tiles: Tiles | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    # With few queries, whatever tiles they would get: the last kernel takes long in the interpreter.
    tiles = tiles or launcher.tiles(torch.empty(1000, 70, dtype=dtype), 300, False)
    monkeypatch.setattr(launcher, "tiles", lambda *given: tiles)
    given = data(3, 300, 70, 4, dtype)[:3]
    wanted = oracle(*(one.double() for one in given), k=2)
    agree(ask(guard, given, k=2), wanted, 1e-5 if dtype == torch.float32 else 1e-2)


def test_masks(guard: Any) -> None:
    given = data(6, 300, 16, 8)
    random = torch.Generator().manual_seed(3)
    masks = {
        "query_owner": torch.randint(0, 4, (6,), generator=random),
        "key_owner": torch.randint(0, 4, (300,), generator=random),
        "query_class": torch.randint(0, 20, (6,), generator=random).int(),
        "key_class": torch.randint(0, 20, (300,), generator=random).int(),
        "key_age": torch.randint(0, 10, (300,), generator=random),
    }
    masks["query_class"][3] = 99  # a class with no memory
    found = ask(guard, given, k=8, max_age=6, **masks)
    forbidden = masks["query_owner"][:, None] == masks["key_owner"]
    forbidden |= (masks["query_class"][:, None] != masks["key_class"]) | (masks["key_age"] > 6)
    agree(found, oracle(*(one.double() for one in given), k=8, forbidden=forbidden), 1e-5)
    assert found.values is not None and not found.values[3].any() and (found.indices[3] == -1).all()


@pytest.mark.parametrize("similarity", ["dot", "cosine", "l2"])
def test_int8_bank(guard: Any, similarity: str) -> None:
    queries, keys, values, bias = data(4, 200, 24, 8)
    scales = [one.abs().amax(1) / 127 for one in (keys, values)]
    codes = [(one / scale[:, None]).round().to(torch.int8) for one, scale in zip((keys, values), scales, strict=True)]
    queries, bias = guard(queries.bfloat16().requires_grad_()), guard(bias.requires_grad_())
    found = retrieve(
        queries,
        guard(codes[0]),
        guard(codes[1]),
        k=6,
        similarity=similarity,
        bias=bias,
        key_scales=guard(scales[0]),
        value_scales=guard(scales[1]),
        backend="triton",
    )
    full = [code.double() * scale.double()[:, None] for code, scale in zip(codes, scales, strict=True)]
    exact = [one.detach().double().requires_grad_() for one in (queries, bias)]
    wanted = oracle(exact[0], *full, exact[1], k=6, similarity=similarity)
    agree(found, wanted, 1e-2)
    gradients = torch.autograd.grad(found.scores.square().sum(), (queries, bias))
    right = torch.autograd.grad(wanted[3].square().sum(), exact)
    for one, other in zip(gradients, right, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("similarity", ["dot", "l2"])
def test_ties_go_to_the_lower_index(guard: Any, similarity: str) -> None:
    random = torch.Generator().manual_seed(1)
    keys = torch.randint(-1, 2, (200, 3), generator=random).float()
    queries = torch.randint(-2, 3, (3, 3), generator=random).float()
    found = ask(guard, [queries, keys, keys], k=5, similarity=similarity)
    scores = queries @ keys.T if similarity == "dot" else -(queries[:, None] - keys).square().sum(2)
    wanted = torch.sort(scores, dim=1, descending=True, stable=True)
    assert torch.equal(found.indices, wanted.indices[:, :5])
    torch.testing.assert_close(found.scores, wanted.values[:, :5])


def test_near_ties_of_long_vectors_are_found_exactly(guard: Any) -> None:
    random = torch.Generator().manual_seed(1)
    keys, queries = (1000 + torch.randn(count, 8, generator=random) for count in (200, 2))
    found = ask(guard, [queries, keys, keys], k=4, similarity="l2")
    wanted = oracle(queries.double(), keys.double(), keys.double(), k=4, similarity="l2")
    assert torch.equal(found.indices, wanted[1])
    torch.testing.assert_close(found.scores.double(), wanted[3], rtol=1e-5, atol=0)


def test_nan_stays_in_its_row(guard: Any) -> None:
    queries, keys, values, bias = data(3, 100, 8, 4)
    keys[7, 2] = bias[50] = math.nan
    queries[1, 1] = math.nan
    queries, keys, values = (guard(one.requires_grad_()) for one in (queries, keys, values))
    found = retrieve(queries, keys, values, k=3, bias=guard(bias), backend="triton")
    forbidden = torch.zeros(100, dtype=torch.bool)
    forbidden[[7, 50]] = True
    exact = (one.detach().nan_to_num().double() for one in (queries, keys, values, bias))
    wanted = oracle(*exact, k=3, forbidden=forbidden)
    assert torch.equal(found.indices[[0, 2]], wanted[1][[0, 2]]) and (found.indices[1] == -1).all()
    for mine, right in zip(found, wanted, strict=True):
        assert mine is not None
        torch.testing.assert_close(mine[[0, 2]].double(), right[[0, 2]].double(), rtol=1e-5, atol=1e-5)
        assert mine.dtype == torch.int64 or mine[1].isnan().all()
    assert found.values is not None
    by_queries, by_keys, by_values = torch.autograd.grad(found.values.sum(), (queries, keys, values))
    assert by_queries[1].isnan().all() and not by_queries[[0, 2]].isnan().any()
    assert not by_keys.isnan().any() and not by_values.isnan().any()


def test_few_memories_and_many_neighbours(guard: Any) -> None:
    given = data(2, 10, 5, 3)[:3]
    found = ask(guard, given, k=20)
    wanted = oracle(*(one.double() for one in given), k=10)
    assert torch.equal(found.indices[:, :10], wanted[1]) and (found.indices[:, 10:] == -1).all()
    assert not found.weights[:, 10:].any() and (found.scores[:, 10:] == -math.inf).all()
    alone = ask(guard, [given[0], given[1], given[2]], k=launcher.MOST + 1)
    assert torch.equal(alone.indices[:, :10], wanted[1])


def test_rows_of_a_bank_beyond_two_to_the_31(tmp_path: Path) -> None:
    # A sparse file: three rows 1.5e9 numbers apart take a few pages of disk, and offsets that int32 cannot hold.
    file = tmp_path / "bank"
    file.touch()
    os.truncate(file, 2 * (2 * 1_500_000_000 + 16))
    whole = torch.from_file(str(file), shared=True, size=2 * 1_500_000_000 + 16, dtype=torch.bfloat16)
    keys = whole.as_strided((3, 16), (1_500_000_000, 1))
    queries, some, _, _ = data(2, 3, 16, 4, torch.bfloat16)
    keys.copy_(some)
    queries.requires_grad_()
    found = retrieve(queries, keys, keys, k=2, backend="triton")
    agree(found, oracle(queries.detach().double(), some.double(), some.double(), k=2), 1e-2)
    (gradient,) = torch.autograd.grad(found.scores.sum(), queries)
    torch.testing.assert_close(gradient, some[found.indices].float().sum(1).bfloat16(), rtol=1e-2, atol=1e-2)


def test_a_bank_without_values(guard: Any) -> None:
    queries, keys, _, _ = data(2, 40, 5, 3)
    queries = guard(queries.requires_grad_())
    found = retrieve(queries, guard(keys), k=3, backend="triton")
    assert found.values is None
    (gradient,) = torch.autograd.grad(found.log_sum_exp.sum(), queries)
    exact = queries.detach().double().requires_grad_()
    (right,) = torch.autograd.grad((exact @ keys.double().T).topk(3, 1)[0].logsumexp(1).sum(), exact)
    torch.testing.assert_close(gradient.double(), right, rtol=1e-5, atol=1e-5)
