"""``codistill::retrieve`` as torch sees it: opcheck, compilation, export, ``torch.func``."""

from typing import Any

import codistill.kernels.ops.retrieve as ops
import pytest
import torch
from codistill.kernels.reference.retrieve import retrieve_backward
from codistill.kernels.retrieval import retrieve


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(4, 6, generator=random), torch.randn(30, 6, generator=random)
    return queries, keys, torch.randn(30, 3, generator=random), torch.randn(30, generator=random)


def loss(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    found = retrieve(queries, keys, values, k=3, bias=bias, similarity="l2")
    assert found.values is not None
    return found.values.square().sum() + found.log_sum_exp.sum()


def test_opcheck() -> None:
    queries, keys, values, bias = (one.requires_grad_() for one in data())
    owner = torch.arange(4), torch.arange(30) % 4
    said = (3, "cosine", 1.0, 0.5, "")
    retrieve_op = torch.ops.codistill.retrieve.default
    torch.library.opcheck(
        retrieve_op, (queries, keys, values, bias, None, None, None, owner[1], None, owner[0], None, *said)
    )
    # The gradient check has no part that tells an operator without values from its fake one.
    torch.library.opcheck(retrieve_op, (queries, keys, None, None, None, None, torch.ones(30) > 0, *[None] * 4, *said))
    with torch.no_grad():
        found = retrieve_op(queries, keys, values, bias, *[None] * 7, *said)
    torch.library.opcheck(
        torch.ops.codistill.retrieve_backward.default,
        (
            *(torch.ones_like(one) for one in (found[0], found[2], found[3])),
            *(one.detach() for one in (queries, keys, values)),
            None,
            None,
            found[1],
            found[2],
            "dot",
            1.0,
            1.0,
            [True, False, True, True],
            "",
        ),
    )


def test_one_graph() -> None:
    given = [one.requires_grad_() for one in data()]
    right = torch.autograd.grad(loss(*given), given)
    mine = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(*given), given)
    for one, other in zip(mine, right, strict=True):
        torch.testing.assert_close(one, other)


def test_export_with_any_number_of_queries() -> None:
    class Lookup(torch.nn.Module):
        def forward(self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> list[torch.Tensor | None]:
            return list(retrieve(queries, keys, values, k=3))

    queries, keys, values, _ = data()
    rows = {0: torch.export.Dim("rows")}
    exported = torch.export.export(Lookup(), (queries, keys, values), dynamic_shapes=(rows, None, None))
    more = torch.randn(9, 6)
    for one, other in zip(exported.module()(more, keys, values), retrieve(more, keys, values, k=3), strict=True):
        assert torch.equal(one, other)


def test_vmap_over_queries() -> None:
    queries, keys, values, _ = data()
    batches = torch.randn(5, 4, 6)
    owners, owner = torch.randint(0, 3, (5, 4)), torch.arange(30) % 3

    def one(batch: torch.Tensor, mine: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        found = retrieve(batch, keys, values, k=3, query_owner=mine, key_owner=owner)
        return found.values, found.indices

    found = torch.func.vmap(one)(batches, owners)
    for number in range(5):
        for mine, right in zip(found, one(batches[number], owners[number]), strict=True):
            torch.testing.assert_close(mine[number], right)


def test_gradients_by_functions() -> None:
    queries, keys, values, bias = data()
    right = torch.autograd.grad(loss(queries.requires_grad_(), keys, values, bias), queries)[0]
    queries = queries.detach()
    torch.testing.assert_close(torch.func.grad(loss)(queries, keys, values, bias), right)
    each = torch.func.vmap(torch.func.grad(lambda row: loss(row[None], keys, values, bias)))(queries)
    torch.testing.assert_close(each, right)


def test_the_bank_cannot_be_mapped() -> None:
    queries, keys, values, bias = data()
    with pytest.raises(NotImplementedError, match="vmap over the memory bank is not supported"):
        torch.func.vmap(lambda bank: retrieve(queries, bank, k=2).indices)(keys.expand(2, 30, 6))
    with pytest.raises(NotImplementedError, match="gradients by the memory bank is not supported"):
        torch.func.vmap(torch.func.grad(lambda bank, row: loss(row[None], bank, values, bias)), (None, 0))(
            keys, queries
        )


def test_no_second_derivative() -> None:
    queries, keys, values, bias = data()
    queries.requires_grad_()
    (first,) = torch.autograd.grad(loss(queries, keys, values, bias), queries, create_graph=True)
    with pytest.raises(NotImplementedError, match="not differentiable a second time"):
        first.sum().backward()
    with pytest.raises(NotImplementedError, match="not differentiable a second time"):
        torch.func.jacrev(torch.func.grad(loss))(queries.detach(), keys, values, bias)


def test_no_zeros_are_made_for_outputs_that_nobody_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []
    real = ops.BACKWARD._found.get("cpu") or retrieve_backward

    def watched(*arguments: object) -> object:
        given.append(arguments)
        return real(*arguments)

    monkeypatch.setitem(ops.BACKWARD._found, "cpu", watched)
    queries, keys, values, bias = (one.requires_grad_() for one in data())
    found = retrieve(queries, keys, values, k=3, bias=bias)
    by_queries, by_values = torch.autograd.grad(found.scores.sum(), (queries, values), allow_unused=True)
    by_output, bank, wanted = given[0][0], given[0][4], given[0][8]
    assert by_output is None and bank.values is None and by_values is None  # type: ignore[attr-defined]
    assert wanted == (True, True, False, True)
    torch.testing.assert_close(by_queries, keys.detach()[found.indices].sum(1))
    found = retrieve(queries, keys, values, k=3, bias=bias)
    assert found.values is not None
    (alone,) = torch.autograd.grad(found.values.sum(), queries, retain_graph=True)
    (both,) = torch.autograd.grad(found.values.sum() + 0 * (found.scores.sum() + found.weights.sum()), queries)
    torch.testing.assert_close(alone, both)


def test_a_backward_that_gets_nothing_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> object:
        raise AssertionError("nobody asked for a gradient")

    monkeypatch.setitem(ops.BACKWARD._found, "cpu", never)
    queries, keys, values, _ = data()
    found = retrieve(queries.requires_grad_(), keys, values, k=3)

    class Undefined(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, scores: torch.Tensor) -> torch.Tensor:
            return scores.clone()

        @staticmethod
        def backward(ctx: Any, *by_output: Any) -> Any:
            return None

    Undefined.apply(found.scores).sum().backward()  # type: ignore[no-untyped-call]
    assert queries.grad is None
