"""``codistill::graph_distances``, which ``graph_scores`` is made of, and its derivative."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..dispatch import Operation

DISTANCES = Operation(
    "graph_scores",
    reference=".reference.graph_scores:distances",
    cpu=".cpu.graph_scores:distances",
    triton=".triton.graph_scores:distances",
)
BACKWARD = Operation(
    "graph_scores_backward",
    reference=".reference.graph_scores:distances_backward",
    cpu=".cpu.graph_scores:distances_backward",
    triton=".triton.graph_scores_backward:distances_backward",
)

NOT_TRANSFORMED = (
    "graph_scores: torch.func transforms (vmap, grad) are not supported; rows of one call are independent, so put "
    "several batches into one call, and use backward()"
)


@torch.library.custom_op("codistill::graph_distances", mutates_args=())
def graph_distances(query: Tensor, entities: Tensor, candidates: Tensor, kind: str, backend: str) -> Tensor:
    """Return the distances [B, n] of ``query`` [B, D] to rows ``candidates`` [B, n] or [n] of ``entities`` [E, D]."""
    made: Tensor = DISTANCES(backend, query, query, entities, candidates, kind)
    return made


@graph_distances.register_fake
def _graph_distances_fake(query: Tensor, entities: Tensor, candidates: Tensor, kind: str, backend: str) -> Tensor:
    return query.new_empty(query.shape[0], candidates.shape[-1])


@torch.library.custom_op("codistill::graph_distances_backward", mutates_args=())
def graph_distances_backward(
    by_distances: Tensor,
    query: Tensor,
    entities: Tensor,
    candidates: Tensor,
    made: Tensor,
    kind: str,
    backend: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """Return the gradients by ``query`` and ``entities``; see ``reference.graph_scores.distances_backward``."""
    gradients: tuple[Tensor, Tensor] = BACKWARD(
        backend, query, by_distances, query, entities, candidates, made, kind, wanted
    )
    return gradients


@graph_distances_backward.register_fake
def _graph_distances_backward_fake(
    by_distances: Tensor,
    query: Tensor,
    entities: Tensor,
    candidates: Tensor,
    made: Tensor,
    kind: str,
    backend: str,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    width = query.shape[1]
    return (
        query.new_empty(query.shape[0] if wanted[0] else 0, width),
        entities.new_empty(entities.shape[0] if wanted[1] else 0, width),
    )


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    query, entities, candidates, ctx.kind, ctx.backend = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, entities, candidates, output)


def _backward(ctx: Any, by_distances: Tensor | None) -> Any:
    if by_distances is None:
        return (None,) * 5
    wanted = list(ctx.needs_input_grad[:2])
    gradients = graph_distances_backward(by_distances.contiguous(), *ctx.saved_tensors, ctx.kind, ctx.backend, wanted)
    return (*(made if want else None for made, want in zip(gradients, wanted, strict=True)), None, None, None)


graph_distances.register_autograd(_backward, setup_context=_keep)


@graph_distances.register_vmap
def _graph_distances_batched(info: Any, in_dims: Any, *arguments: Any) -> Any:
    raise NotImplementedError(NOT_TRANSFORMED)


def graph_distances_op(query: Tensor, entities: Tensor, candidates: Tensor, kind: str, backend: str) -> Tensor:
    """Return distances [B, n]; arguments as :func:`codistill.kernels.reference.graph_scores.distances` has them."""
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise NotImplementedError(NOT_TRANSFORMED)
    made: Tensor = graph_distances(query, entities, candidates, kind, backend)
    return made
