"""Scores of triples that are ids into tables, with one gradient for each table."""

from __future__ import annotations

from typing import Any

import torch

from .scores import Score, Side, score_candidates


def table_scores(
    model: Score,
    entities: torch.Tensor,
    relations: torch.Tensor,
    triples: torch.Tensor,
    candidates: torch.Tensor,
    side: Side,
) -> torch.Tensor:
    """Return the scores [B, n] of ``triples`` int64 [B, 3] whose ``side`` is replaced by ``candidates`` [B, n] or [n].

    Ids point into ``entities`` [E, width] and ``relations`` [R, width']. As
    :func:`codistill.graphs.scores.score_candidates` of the looked-up rows, but the gradient of the known entities is
    added to that of the candidates in place: autograd alone would make a second table for it. Once differentiable.
    """
    if torch.is_grad_enabled() and (entities.requires_grad or relations.requires_grad):
        made: torch.Tensor = _TableScores.apply(  # type: ignore[no-untyped-call]
            entities, relations, triples, candidates, side, model
        )
        return made
    return score_candidates(
        model, entities[triples[:, _known(side)]], relations[triples[:, 1]], entities, candidates, side
    )


def _known(side: Side) -> int:
    return 0 if side == "tail" else 2


class _TableScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        entities: torch.Tensor,
        relations: torch.Tensor,
        triples: torch.Tensor,
        candidates: torch.Tensor,
        side: Side,
        model: Score,
    ) -> torch.Tensor:
        known = triples[:, _known(side)]
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[0])
        rows, by_relation, table = leaves = [
            one.detach().requires_grad_(want)
            for one, want in zip((entities[known], relations[triples[:, 1]], entities), wanted, strict=True)
        ]
        with torch.enable_grad():
            scores = score_candidates(model, rows, by_relation, table, candidates, side)
        ctx.scores, ctx.leaves, ctx.relations = scores, leaves, len(relations)
        ctx.save_for_backward(known, triples[:, 1])
        return scores.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_scores: torch.Tensor) -> Any:
        known, relation = ctx.saved_tensors
        asked = [leaf for leaf in ctx.leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(ctx.scores, asked, by_scores, retain_graph=True))
        by_known, by_relation, by_entities = (next(found) if leaf.requires_grad else None for leaf in ctx.leaves)
        by_relations = None
        if by_entities is not None and by_known is not None:
            by_entities.index_add_(0, known, by_known)
        if by_relation is not None:
            by_relations = by_relation.new_zeros(ctx.relations, by_relation.shape[1])
            by_relations.index_add_(0, relation, by_relation)
        return by_entities, by_relations, None, None, None, None
