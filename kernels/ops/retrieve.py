"""``codistill::retrieve`` and ``codistill::retrieve_backward``, which needs only the former's indices and weights."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..dispatch import Operation
from ..retrieve_settings import Bank, Found, Queries, Settings
from .batching import one_batch

RETRIEVE = Operation(
    "retrieve",
    reference=".reference.retrieve:retrieve",
    cpu=".cpu.retrieve:retrieve",
    triton=".triton.retrieve:retrieve",
)
BACKWARD = Operation(
    "retrieve_backward",
    reference=".reference.retrieve:retrieve_backward",
    cpu=".reference.retrieve:retrieve_backward",
    triton=".triton.retrieve_backward:retrieve_backward",
)

BANK = slice(1, 9)
"""Where the operator's arguments are the bank's."""


def _wide(like: Tensor) -> torch.dtype:
    return torch.float64 if like.dtype == torch.float64 else torch.float32


@torch.library.custom_op("codistill::retrieve", mutates_args=())
def retrieve(
    queries: Tensor,
    keys: Tensor,
    values: Tensor | None,
    bias: Tensor | None,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    kept: Tensor | None,
    key_owner: Tensor | None,
    key_class: Tensor | None,
    query_owner: Tensor | None,
    query_class: Tensor | None,
    k: int,
    similarity: str,
    scale: float,
    temperature: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return values [Q, E] ([Q, 0] if there are none), indices, weights, scores [Q, k] and log-sum-exp [Q]."""
    asked = Queries(queries, query_owner, query_class)
    bank = Bank(keys, values, bias, key_scales, value_scales, kept, key_owner, key_class)
    found: Found = RETRIEVE(backend, queries, asked, bank, Settings(k, similarity, scale, temperature))
    return found


@retrieve.register_fake
def _retrieve_fake(queries: Tensor, keys: Tensor, values: Tensor | None, *said: Any) -> Found:
    rows, k = queries.shape[0], said[8]
    return (
        queries.new_empty(rows, 0 if values is None else values.shape[1]),
        queries.new_empty(rows, k, dtype=torch.int64),
        queries.new_empty(rows, k, dtype=_wide(queries)),
        queries.new_empty(rows, k, dtype=_wide(queries)),
        queries.new_empty(rows, dtype=_wide(queries)),
    )


@torch.library.custom_op("codistill::retrieve_backward", mutates_args=())
def retrieve_backward(
    by_values: Tensor | None,
    by_weights: Tensor,
    by_scores: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor | None,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
    indices: Tensor,
    weights: Tensor,
    similarity: str,
    scale: float,
    temperature: float,
    wanted: Sequence[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients by queries, keys, values and bias, each empty where it is not ``wanted``."""
    made: tuple[Tensor, Tensor, Tensor, Tensor] = BACKWARD(
        backend,
        queries,
        by_values,
        by_weights,
        by_scores,
        queries,
        Bank(keys, values, key_scales=key_scales, value_scales=value_scales),
        indices,
        weights,
        Settings(indices.shape[1], similarity, scale, temperature),
        (wanted[0], wanted[1], wanted[2], wanted[3]),
    )
    return made


@retrieve_backward.register_fake
def _retrieve_backward_fake(
    by_values: Tensor | None,
    by_weights: Tensor,
    by_scores: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor | None,
    *said: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wanted, dtype = said[-2], _wide(queries)
    nothing = values is None or not wanted[2]
    return (
        queries.new_empty(queries.shape if wanted[0] else (0,)),
        keys.new_empty(keys.shape) if wanted[1] else queries.new_empty(0, dtype=dtype),
        queries.new_empty(0, dtype=dtype) if values is None or nothing else values.new_empty(values.shape),
        queries.new_empty(keys.shape[0] if wanted[3] else 0, dtype=dtype),
    )


def _refuse(ctx: Any, *by_gradients: Any) -> Any:
    raise NotImplementedError("retrieve: its gradients are not differentiable a second time")


retrieve_backward.register_autograd(_refuse)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    queries, keys, values, bias, key_scales, value_scales = inputs[:6]
    _, indices, weights, _, _ = output
    ctx.set_materialize_grads(False)  # zeros [Q, E] for values that nobody used would be gathered for nothing
    ctx.mark_non_differentiable(indices)
    ctx.save_for_backward(queries, keys, values, key_scales, value_scales, indices, weights)
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.similarity, ctx.scale, ctx.temperature, ctx.backend = inputs[12:16]


def _backward(ctx: Any, *by_found: Any) -> Any:
    by_values, _, by_weights, by_scores, by_log_sum_exp = by_found
    wanted = list(ctx.needs_input_grad[:4])
    queries, keys, values, key_scales, value_scales, indices, weights = ctx.saved_tensors
    if by_values is None or values is None:
        by_values = values = value_scales = None
        wanted[2] = False
        if by_weights is None and by_scores is None and by_log_sum_exp is None:
            return (None,) * 16
    if by_log_sum_exp is not None:
        # d log_sum_exp / d score = weight / temperature.
        through = by_log_sum_exp[:, None] * weights / ctx.temperature
        by_scores = through if by_scores is None else by_scores + through
    by_weights, by_scores = (torch.zeros_like(weights) if one is None else one for one in (by_weights, by_scores))
    do: Any = _TransformedBackward.apply if _transforming() else retrieve_backward
    made = do(
        by_values,
        by_weights,
        by_scores,
        queries,
        keys,
        values,
        key_scales,
        value_scales,
        indices,
        weights,
        ctx.similarity,
        ctx.scale,
        ctx.temperature,
        wanted,
        ctx.backend,
    )
    gradients: list[Tensor | None] = [one if asked else None for one, asked in zip(made, wanted, strict=True)]
    if gradients[3] is not None:
        gradients[3] = gradients[3].to(ctx.bias_dtype)
    return (*gradients, *[None] * 12)


retrieve.register_autograd(_backward, setup_context=_keep)


@retrieve.register_vmap
def _retrieve_batched(info: Any, in_dims: Any, queries: Tensor, *rest: Any) -> Any:
    if any(dim is not None for dim in in_dims[BANK]):
        raise NotImplementedError(
            "retrieve: vmap over the memory bank is not supported; map over the queries, or call retrieve in a loop"
        )
    bank, (owner, class_), said = rest[:8], rest[8:10], rest[10:]
    size = info.batch_size
    queries = one_batch(queries, in_dims[0], size)
    owner = None if owner is None else one_batch(owner, in_dims[9], size)
    class_ = None if class_ is None else one_batch(class_, in_dims[10], size)
    found = retrieve(queries, *bank, owner, class_, *said)
    rows = queries.shape[0] // size
    return tuple(one.view(size, rows, *one.shape[1:]) for one in found), (0,) * 5


@retrieve_backward.register_vmap
def _retrieve_backward_batched(info: Any, in_dims: Any, *given: Any) -> Any:
    *tensors, similarity, scale, temperature, wanted, backend = given
    if any(wanted[1:]) or any(dim is not None for dim in in_dims[4:8]):
        raise NotImplementedError(
            "retrieve: vmap of gradients by the memory bank is not supported; only those by the queries can be mapped"
        )
    size, bank = info.batch_size, tensors[4:8]
    by_values, by_weights, by_scores, queries, indices, weights = (
        None if tensors[at] is None else one_batch(tensors[at], in_dims[at], size) for at in (0, 1, 2, 3, 8, 9)
    )
    assert queries is not None
    made = retrieve_backward(
        by_values,
        by_weights,
        by_scores,
        queries,
        *bank,
        indices,
        weights,
        similarity,
        scale,
        temperature,
        wanted,
        backend,
    )
    by_queries = made[0].view(size, -1, queries.shape[1]) if wanted[0] else made[0]
    return (by_queries, *made[1:]), (0 if wanted[0] else None, None, None, None)


def _transforming() -> bool:
    """Whether a transform of ``torch.func`` is under way, which custom operators' gradients do not know of."""
    return not torch.compiler.is_compiling() and bool(torch._C._are_functorch_transforms_active())


class _Transformed(torch.autograd.Function):
    """``codistill::retrieve`` under ``torch.func`` transforms."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> Found:
        found: Found = retrieve(*inputs)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _keep(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *by_found: Any) -> Any:
        return _backward(ctx, *by_found)


class _TransformedBackward(torch.autograd.Function):
    """``codistill::retrieve_backward`` under ``torch.func`` transforms."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        made: tuple[Tensor, Tensor, Tensor, Tensor] = retrieve_backward(*inputs)
        return made

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *by_gradients: Any) -> Any:
        return _refuse(ctx, *by_gradients)


def retrieve_op(asked: Queries, bank: Bank, settings: Settings, backend: str) -> Found:
    """Return what :func:`codistill.kernels.reference.retrieve.retrieve` does."""
    given = (
        asked.rows,
        bank.keys,
        bank.values,
        bank.bias,
        None if bank.key_scales is None else bank.key_scales.detach(),
        None if bank.value_scales is None else bank.value_scales.detach(),
        bank.kept,
        bank.owner,
        bank.class_,
        asked.owner,
        asked.class_,
        settings.k,
        settings.similarity,
        settings.scale,
        settings.temperature,
        backend,
    )
    do: Any = _Transformed.apply if _transforming() else retrieve
    found: Found = do(*given)
    return found
