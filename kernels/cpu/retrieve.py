"""``retrieve`` on a CPU: candidates by maxima of groups or by faiss, their exact scores, and a proof that they do.

Candidates come with a bound: no other memory scores above it, but for rounding. Where the k-th best candidate is above
the bound by more than rounding can do, the k best are exact, ties and all. Other rows are done again over all memories.
"""

from __future__ import annotations

import math

import torch

from ..dispatch import detail
from ..reference.kd import accumulated
from ..reference.retrieve import BLOCK, answer, dequantised, length, score_matrix
from ..reference.retrieve import retrieve as plainly
from ..retrieve_settings import Bank, Found, Queries, Settings
from . import faiss_search, native
from .group_search import SPARE, Candidates, search

ROOM = 2**20
"""Numbers of candidates' keys that are held at a time: few enough to stay in a cache."""

TOGETHER = 256
"""Queries that are searched again at a time."""


def retrieve(asked: Queries, bank: Bank, settings: Settings) -> Found:
    """Do what :func:`codistill.kernels.reference.retrieve.retrieve` does."""
    rows, count = asked.rows.shape[0], bank.keys.shape[0]
    many = min(settings.k + SPARE, count)
    if not rows or not count:
        return plainly(asked, bank, settings)
    not_native, not_faiss = native.why_not(rows, count), faiss_search.why_not(asked, bank, settings, many)
    if not_native and not not_faiss:
        detail("faiss")
        indices, scores = faiss_search.search(asked.rows, bank.keys, settings, many)
        bound = scores[:, -1] if many < count else scores.new_full((rows,), -math.inf)
        candidates = Candidates(indices, bound, longest(bank.keys))
    else:
        detail(f"maxima of groups, by torch: {not_native}; {not_faiss}" if not_native else "maxima of groups, native")
        candidates = search(asked, bank, settings, natively=not not_native)
    indices, scores, sure = _best_of(candidates, asked, bank, settings)
    again = (~sure & ~asked.rows.isnan().any(1)).nonzero()[:, 0]
    if again.numel():
        indices[again], scores[again] = _best_of_all(asked.part(again), bank, settings)
    return answer(asked.rows, bank, indices, scores, settings)


def _best_of(
    candidates: Candidates, asked: Queries, bank: Bank, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return indices and scores [Q, k] of the best candidates, and which rows [Q] are surely right."""
    rows, many = candidates.indices.shape
    k, kept = settings.k, min(settings.k, many)
    indices = torch.full((rows, k), -1)
    scores = torch.full((rows, k), -math.inf)
    step = max(1, ROOM // (many * bank.keys.shape[1]))
    for first in range(0, rows, step):
        some = slice(first, first + step)
        at = candidates.indices[some]
        packed = pack(score_candidates(at, asked.part(some), bank, settings), at)
        scores[some, :kept], indices[some, :kept] = unpack(packed.topk(kept, 1)[0])
    error = 2 * rounding(asked, bank, settings, candidates.longest)
    sure = (candidates.bound < scores[:, -1] - error) | (candidates.bound == -math.inf)
    return indices, scores, sure


def _best_of_all(asked: Queries, bank: Bank, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return indices and scores [Q, k] of the best of M memories; M is more than k."""
    chosen = []
    for some in torch.arange(asked.rows.shape[0]).split(TOGETHER):
        part, best = asked.part(some), torch.empty(len(some), 0, dtype=torch.int64)
        # The bank by parts: an int8 one of a million rows would be half a gigabyte in float32.
        for every in torch.arange(bank.keys.shape[0]).split(BLOCK // TOGETHER):
            scores = score_matrix(part, bank.part(slice(int(every[0]), int(every[-1]) + 1)), settings)
            best = torch.cat([best, pack(scores, every)], 1)
            best = best.topk(min(settings.k, best.shape[1]), 1)[0]
        chosen.append(best)
    scores, indices = unpack(torch.cat(chosen))
    return indices, scores


def score_candidates(at: torch.Tensor, asked: Queries, bank: Bank, settings: Settings) -> torch.Tensor:
    """Return the scores [Q, n] of the memories ``at`` [Q, n]; -inf where that is -1, a mask forbids it or it is NaN."""
    there = at >= 0
    inside = at.clamp(min=0)
    flat = inside.flatten()
    queries = accumulated(asked.rows)
    scales = None if bank.key_scales is None else bank.key_scales[flat]
    keys = dequantised(bank.keys.index_select(0, flat), scales, queries).view(*at.shape, -1)
    if settings.similarity == "l2":
        scores = -(keys - queries[:, None]).square_().sum(-1)
    else:
        scores = torch.bmm(queries[:, None], keys.transpose(1, 2)).squeeze(1)
        if settings.similarity == "cosine":
            scores = scores / (length(keys).squeeze(2) * length(queries))
    scores = scores * settings.scale
    if bank.bias is not None:
        scores = scores + bank.bias.to(scores.dtype)[inside]
    if bank.kept is not None:
        there = there & bank.kept[inside]
    if asked.owner is not None and bank.owner is not None:
        there = there & (bank.owner[inside] != asked.owner[:, None])
    if asked.class_ is not None and bank.class_ is not None:
        there = there & (bank.class_[inside] == asked.class_[:, None])
    return torch.where(there & ~scores.isnan(), scores, -math.inf)


def rounding(asked: Queries, bank: Bank, settings: Settings, longest: float) -> torch.Tensor:
    """Return by how much float32 may miss a score, [Q]: the bound for sums of D products (Higham 2002, sec. 3.1).

    ``longest`` is the length of the longest finite key.
    """
    terms = bank.keys.shape[1] + 4
    queries = torch.linalg.vector_norm(accumulated(asked.rows), dim=1)
    if settings.similarity == "dot":
        size = queries * longest
    elif settings.similarity == "cosine":
        size = torch.full_like(queries, 2.0)  # the lengths are rounded too
    else:
        size = (queries + longest).square()
    size = size * abs(settings.scale)
    if bank.bias is not None:
        size = size + bank.bias.float().nan_to_num(0.0, 0.0, 0.0).abs().max()
    error: torch.Tensor = size * (terms * 2.0**-24)
    return error


def longest(keys: torch.Tensor) -> float:
    """Return the length of the longest finite key of float32 ``keys`` [M, D]."""
    lengths: torch.Tensor = torch.linalg.vector_norm(keys, dim=1)
    return float(lengths.nan_to_num_(0.0, 0.0, 0.0).max())


def pack(scores: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Return int64 that order as float32 ``scores`` do, and equal scores by falling index."""
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)  # -0.0 equals 0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.long() << 32) | (0x7FFFFFFF - indices)


def unpack(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scores and indices that :func:`pack` was given."""
    ordered = (packed >> 32).int()
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.view(torch.float32), 0x7FFFFFFF - (packed & 0x7FFFFFFF)
