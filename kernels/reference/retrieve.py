"""``retrieve`` in readable torch: every score of a block of queries, a stable sort, and gradients from the indices."""

from __future__ import annotations

import math

import torch

from ..retrieve_settings import SMALLEST_NORM, Bank, Found, Queries, Settings
from .kd import accumulated

BLOCK = 2**24
"""Scores that are held at a time."""

GATHERED = 2**20
"""Numbers of gathered rows that are held at a time: few enough to stay in a cache."""


def retrieve(asked: Queries, bank: Bank, settings: Settings) -> Found:
    """Return values, indices, weights, scores and log-sum-exp; see :class:`codistill.kernels.Retrieved`.

    Where the bank has no values they are [Q, 0].
    """
    rows = asked.rows.shape[0]
    many = max(1, BLOCK // max(1, bank.keys.shape[0]))
    blocks = [best(asked.part(slice(first, first + many)), bank, settings) for first in range(0, max(rows, 1), many)]
    indices = torch.cat([indices for indices, _ in blocks])
    scores = torch.cat([scores for _, scores in blocks])
    return answer(asked.rows, bank, indices, scores, settings)


def best(asked: Queries, bank: Bank, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return indices int64 [Q, k] and scores [Q, k] of the k best; what is missing has the score -inf."""
    scores = score_matrix(asked, bank, settings)
    # A stable sort leaves equal scores in the order of their indices.
    scores, indices = torch.sort(scores, dim=1, descending=True, stable=True)
    missing = max(0, settings.k - scores.shape[1])
    scores = torch.nn.functional.pad(scores[:, : settings.k], (0, missing), value=-math.inf)
    return torch.nn.functional.pad(indices[:, : settings.k], (0, missing), value=-1), scores


def score_matrix(asked: Queries, bank: Bank, settings: Settings) -> torch.Tensor:
    """Return every score [Q, M]: -inf where a mask forbids it, and where it would be NaN."""
    queries, keys = accumulated(asked.rows), dequantised(bank.keys, bank.key_scales, asked.rows)
    if settings.similarity == "dot":
        scores = queries @ keys.T
    elif settings.similarity == "cosine":
        scores = unit(queries) @ unit(keys).T
    else:
        # Not by |q|^2 - 2 q k + |k|^2, which loses all digits of small distances between long vectors.
        scores = -torch.cdist(queries, keys, compute_mode="donot_use_mm_for_euclid_dist").square()
    scores = scores * settings.scale
    if bank.bias is not None:
        scores = scores + bank.bias.to(scores.dtype)
    if bank.kept is not None:
        scores = scores.masked_fill(~bank.kept, -math.inf)
    if asked.owner is not None and bank.owner is not None:
        scores = scores.masked_fill(asked.owner[:, None] == bank.owner, -math.inf)
    if asked.class_ is not None and bank.class_ is not None:
        scores = scores.masked_fill(asked.class_[:, None] != bank.class_, -math.inf)
    return scores.masked_fill(scores.isnan(), -math.inf)


def answer(queries: torch.Tensor, bank: Bank, indices: torch.Tensor, scores: torch.Tensor, settings: Settings) -> Found:
    """Make everything else of the k best: ``indices`` [Q, k], any where the ``scores`` [Q, k] are -inf."""
    found = scores > -math.inf
    log_sum_exp = torch.logsumexp(scores / settings.temperature, 1)
    weights = torch.where(found, torch.softmax(scores / settings.temperature, 1), 0.0)
    if bank.values is None or not bank.values.shape[0]:
        width = 0 if bank.values is None else bank.values.shape[1]
        values = scores.new_zeros(scores.shape[0], width)
    else:
        # What is missing points to the best: whatever its values are, they come with weight zero a second time.
        at = torch.where(found, indices, torch.where(found[:, :1], indices[:, :1], 0))
        values = _means(bank.values, bank.value_scales, at, weights)
    broken = queries.isnan().any(1, keepdim=True)
    return (
        values.masked_fill(~found[:, :1], 0.0).masked_fill(broken, math.nan).to(queries.dtype),
        torch.where(found, indices, -1).masked_fill(broken, -1),
        weights.masked_fill(broken, math.nan),
        scores.masked_fill(broken, math.nan),
        log_sum_exp.masked_fill(broken[:, 0], math.nan),
    )


def _means(values: torch.Tensor, scales: torch.Tensor | None, at: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sums of ``weights`` [Q, k] times the rows ``at`` [Q, k] of the values [M, E], as [Q, E]."""
    made = weights.new_empty(at.shape[0], values.shape[1])
    step = max(1, GATHERED // max(1, at.shape[1] * values.shape[1]))
    for first in range(0, at.shape[0], step):
        some = slice(first, first + step)
        rows = _gathered(values, scales, at[some].flatten(), weights).view(*at[some].shape, -1)
        torch.bmm(weights[some, None], rows, out=made[some, None])
    return made


def retrieve_backward(
    by_values: torch.Tensor | None,
    by_weights: torch.Tensor,
    by_scores: torch.Tensor,
    queries: torch.Tensor,
    bank: Bank,
    indices: torch.Tensor,
    weights: torch.Tensor,
    settings: Settings,
    wanted: tuple[bool, bool, bool, bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients by queries [Q, D], keys [M, D], values [M, E] and bias [M]; empty where not ``wanted``.

    ``by_values`` [Q, E], ``by_weights`` [Q, k] and ``by_scores`` [Q, k] are the gradients by what was returned; that by
    the log-sum-exp is in ``by_scores`` already. The gradient by the bias has the dtype of the weights.
    """
    total = accumulated(queries)
    by_queries = torch.zeros_like(total) if wanted[0] else total.new_empty(0)
    by_keys = total.new_zeros(bank.keys.shape) if wanted[1] else total.new_empty(0)
    by_memories = total.new_zeros(bank.values.shape) if wanted[2] and bank.values is not None else total.new_empty(0)
    by_bias = total.new_zeros(bank.keys.shape[0]) if wanted[3] else total.new_empty(0)
    width = max(bank.keys.shape[1], 0 if bank.values is None else bank.values.shape[1])
    many = max(1, GATHERED // max(1, settings.k * width))
    for first in range(0, queries.shape[0] if bank.keys.shape[0] else 0, many):
        some = slice(first, first + many)
        found, p = indices[some] >= 0, weights[some]
        at = indices[some].clamp(min=0)
        flat = at.flatten()
        by_weight = by_weights[some]
        if by_values is not None and bank.values is not None:
            by_value = accumulated(by_values[some])
            values = _gathered(bank.values, bank.value_scales, flat, total).view(*at.shape, -1)
            by_weight = by_weight + torch.einsum("qkd,qd->qk", values, by_value)
            if wanted[2]:
                shares = torch.where(found, p, 0.0)[:, :, None]
                by_memories.index_add_(0, flat, (shares * by_value[:, None]).flatten(0, 1))
        by_weight = torch.where(found, by_weight, 0.0)
        by_score = p * (by_weight - (p * by_weight).sum(1, keepdim=True)) / settings.temperature + by_scores[some]
        by_score = torch.where(found, by_score, 0.0)
        if wanted[3]:
            by_bias.index_add_(0, flat, by_score.flatten())
        if wanted[0] or wanted[1]:
            rows = total[some]
            keys = _gathered(bank.keys, bank.key_scales, flat, total).view(*at.shape, -1)
            by_query, by_key = similarity_backward(rows, keys, by_score * settings.scale, settings.similarity)
            if wanted[0]:
                by_queries[some] = by_query.masked_fill(p.isnan().any(1, keepdim=True), math.nan)
            if wanted[1]:
                by_key = torch.where(found[:, :, None], by_key, 0.0)
                by_keys.index_add_(0, flat, by_key.flatten(0, 1))
    return (
        by_queries.to(queries.dtype),
        by_keys.to(bank.keys.dtype if wanted[1] else total.dtype),
        by_memories if bank.values is None or not wanted[2] else by_memories.to(bank.values.dtype),
        by_bias,
    )


def similarity_backward(
    queries: torch.Tensor, keys: torch.Tensor, by_similarity: torch.Tensor, similarity: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return gradients by ``queries`` [Q, D] and by each query's ``keys`` [Q, k, D], from [Q, k] by similarity."""
    share = by_similarity[:, :, None]
    if similarity == "dot":
        return (share * keys).sum(1), share * queries[:, None]
    if similarity == "l2":
        apart = 2 * share * (queries[:, None] - keys)
        return -apart.sum(1), apart
    q, k = unit(queries)[:, None], unit(keys)
    cosine = (q * k).sum(-1, keepdim=True)
    by_query = (share * (k - cosine * q)).sum(1) / length(queries)
    return by_query, share * (q - cosine * k) / length(keys)


def dequantised(rows: torch.Tensor, scales: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """Return rows [M, D] in the dtype that sums over ``like`` are made in, times their scales [M] if there are any."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    wide = rows.to(dtype)
    return wide if scales is None else wide * scales.to(dtype)[:, None]


def _gathered(rows: torch.Tensor, scales: torch.Tensor | None, flat: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return dequantised(rows[flat], None if scales is None else scales[flat], like)


def length(rows: torch.Tensor) -> torch.Tensor:
    """Return the length of each row [..., D], as [..., 1] and at least ``SMALLEST_NORM``."""
    lengths: torch.Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return lengths.clamp(min=SMALLEST_NORM)


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Return rows [..., D] divided by their length."""
    return rows / length(rows)
