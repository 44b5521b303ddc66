"""Filtered ranks of true triples among all entities, and what is told of them: MRR and Hits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from .embedding import Embedding
from .known import KnownTriples
from .scores import Side

SCORES_AT_ONCE = 2**21
"""Scores that are held at a time: 8 MB in float32."""

HITS = (1, 3, 10)


@dataclass(frozen=True)
class Ranks:
    """Ranks of the true heads and the true tails of triples, float64 [n] each, 1 the best; ties make halves."""

    heads: torch.Tensor
    tails: torch.Tensor


def rank(embedding: Embedding, triples: torch.Tensor, known: KnownTriples) -> Ranks:
    """Return the filtered ranks of the heads and tails of ``triples`` int64 [n, 3]; see :func:`rank_side`."""
    return Ranks(rank_side(embedding, triples, known, "head"), rank_side(embedding, triples, known, "tail"))


@torch.no_grad()
def rank_side(embedding: Embedding, triples: torch.Tensor, known: KnownTriples, side: Side) -> torch.Tensor:
    """Return the rank of the true ``side`` of each of ``triples`` int64 [n, 3] among all entities, float64 [n].

    Entities that make another triple of ``known`` do not compete (the filtered setting of Bordes et al. 2013).
    Entities whose score equals the true one's count by half: the mean of the optimistic and the pessimistic rank,
    PyKEEN's "realistic". A true triple whose score is NaN is last; a competitor's NaN is below every number.
    """
    ranks = torch.empty(len(triples), dtype=torch.float64, device=triples.device)
    step, rows = max(1, SCORES_AT_ONCE // known.entities), embedding.rows()
    everyone = torch.arange(known.entities, device=triples.device)
    for first in range(0, len(triples), step):
        some = triples[first : first + step]
        scores = embedding.score_candidates(some, everyone, side, rows)
        ranks[first : first + step] = _ranks(scores, some[:, 0 if side == "head" else 2], *known.completing(some, side))
    return ranks


def _ranks(scores: torch.Tensor, true: torch.Tensor, rows: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the ranks of ``true`` [B] in ``scores`` [B, E] without the entities ``ids`` [m] of ``rows`` [m]."""
    own = scores.gather(1, true[:, None])
    competitors = ids != true[rows]
    rows, ids = rows[competitors], ids[competitors]
    theirs, mine = scores[rows, ids], own[rows, 0]
    above = _count(torch.gt, scores, own) - torch.bincount(rows[theirs > mine], minlength=len(true))
    # The true entity equals itself and does not compete; where it is NaN it does not, and nothing is counted.
    equal = _count(torch.eq, scores, own) - 1 - torch.bincount(rows[theirs == mine], minlength=len(true))
    ranks = 1 + above + equal / 2
    last = scores.shape[1] - torch.bincount(rows, minlength=len(true))
    return torch.where(own[:, 0].isnan(), last.double(), ranks)


def _count(compare: Callable[..., torch.Tensor], scores: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return how many of each row of ``scores`` [B, E] compare so with ``own`` [B, 1], float64 [B]."""
    # Ones in the scores' dtype, which 2^24 of sum exactly: to sum truth values, torch makes 64-bit integers of them.
    return compare(scores, own, out=torch.empty_like(scores)).sum(1).double()


@dataclass(frozen=True)
class Quality:
    """Mean reciprocal rank and the shares of ranks of at most 1, 3 and 10, over ``count`` ranks; NaN for no ranks."""

    count: int
    mrr: float
    hits_at_1: float
    hits_at_3: float
    hits_at_10: float


def quality(ranks: torch.Tensor) -> Quality:
    """Return what ``ranks`` float64 [n] amount to."""
    if not len(ranks):
        return Quality(0, *[float("nan")] * 4)
    hits = [float((ranks <= k).double().mean()) for k in HITS]
    return Quality(len(ranks), float(ranks.reciprocal().mean()), *hits)


def both_sides(ranks: Ranks) -> Quality:
    """Return the quality over heads and tails together, as most papers and PyKEEN report it."""
    return quality(torch.cat([ranks.heads, ranks.tails]))


def tails_only(ranks: Ranks) -> Quality:
    """Return the quality over tails alone, as FedE reports it; not comparable with :func:`both_sides`."""
    return quality(ranks.tails)


def heads_only(ranks: Ranks) -> Quality:
    """Return the quality over heads alone."""
    return quality(ranks.heads)


def weighted(clients: Iterable[Quality]) -> Quality:
    """Return the mean of clients' qualities, each weighing as much as it has ranks; those without any are left out."""
    there = [one for one in clients if one.count]
    total = sum(one.count for one in there)
    if not total:
        return quality(torch.empty(0))

    def mean(name: str) -> float:
        return float(sum(one.count * getattr(one, name) for one in there) / total)

    return Quality(total, mean("mrr"), mean("hits_at_1"), mean("hits_at_3"), mean("hits_at_10"))
