"""Candidates for the k best by maxima of groups: a matrix product in blocks that never leaves the cache's reach.

The k best memories lie in the k groups with the highest maxima, so a group's maximum is all that is kept of it: M / 8
numbers a query and not M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..reference.kd import accumulated
from ..reference.retrieve import dequantised, length
from ..retrieve_settings import Bank, Queries, Settings

GROUP = 8
"""Memories of a group."""

CHUNK = 8192
"""Memories that are multiplied at a time. Groups are strided in it, so that a maximum runs over whole rows."""

ROWS = 256
"""Queries that are multiplied at a time."""

MAXIMA = 2**24
"""Maxima that are held at a time."""

SPARE = 4
"""Groups taken beyond k: the last of them bounds what was not taken, well below the k-th best."""


@dataclass(frozen=True)
class Candidates:
    """``indices`` int64 [Q, n], -1 where there is none; nothing else exceeds ``bound`` [Q], but by rounding."""

    indices: torch.Tensor
    bound: torch.Tensor


def search(asked: Queries, bank: Bank, settings: Settings) -> Candidates:
    """Return the members of the best k + ``SPARE`` groups of each query."""
    count = bank.keys.shape[0]
    chunks = math.ceil(count / CHUNK)
    wide = CHUNK // GROUP if chunks > 1 else math.ceil(count / GROUP)
    groups = chunks * wide
    many = min(settings.k + SPARE, groups)
    step = max(ROWS, MAXIMA // groups)
    members = torch.arange(GROUP) * wide
    indices, bounds = [], []
    for first in range(0, asked.rows.shape[0], step):
        some = asked.part(slice(first, first + step))
        queries, less = _prepared_queries(some.rows, settings)
        highest, chosen = _maxima(queries, some, bank, settings, wide, chunks).topk(many, 1)
        start = torch.div(chosen, wide, rounding_mode="floor") * (wide * GROUP) + chosen % wide
        at = (start[:, :, None] + members).flatten(1)
        indices.append(torch.where(at < count, at, -1))
        bounds.append(highest[:, -1] - less if many < groups else torch.full(highest.shape[:1], -math.inf))
    return Candidates(torch.cat(indices), torch.cat(bounds))


def _maxima(
    queries: torch.Tensor, asked: Queries, bank: Bank, settings: Settings, wide: int, chunks: int
) -> torch.Tensor:
    """Return the maxima of all groups, [Q, chunks * wide], of prepared ``queries`` [Q, D]."""
    rows = queries.shape[0]
    maxima = torch.empty(rows, chunks * wide)
    # Reused for all blocks: fresh memory costs a page fault every 4 KB.
    space, forbidden = torch.empty(ROWS, wide * GROUP), torch.empty(ROWS, wide * GROUP, dtype=torch.bool)
    for chunk in range(chunks):
        part = bank.part(slice(chunk * wide * GROUP, (chunk + 1) * wide * GROUP))
        keys, offset = _prepared_keys(part, settings)
        count = keys.shape[0]
        for first in range(0, rows, ROWS):
            some = slice(first, min(first + ROWS, rows))
            block = space[: some.stop - first]
            scores = block[:, :count]
            torch.mm(queries[some], keys.T, out=scores)
            if offset is not None:
                scores.add_(offset)
            _mask(scores, asked.part(some), part, forbidden[: some.stop - first, :count])
            block[:, count:] = -math.inf
            into = maxima[some, chunk * wide : (chunk + 1) * wide]
            torch.amax(block.view(-1, GROUP, wide), 1, out=into)
    return maxima


def _mask(scores: torch.Tensor, asked: Queries, bank: Bank, forbidden: torch.Tensor) -> None:
    """Put -inf where an owner or a class forbids it; ``forbidden`` is space for that."""
    if asked.owner is not None and bank.owner is not None:
        torch.eq(asked.owner[:, None], bank.owner, out=forbidden)
        scores.masked_fill_(forbidden, -math.inf)
    if asked.class_ is not None and bank.class_ is not None:
        torch.ne(asked.class_[:, None], bank.class_, out=forbidden)
        scores.masked_fill_(forbidden, -math.inf)


def _prepared_queries(rows: torch.Tensor, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is multiplied with prepared keys [Q, D], and what a row's scores are lower by than the products."""
    queries = accumulated(rows)
    if settings.similarity == "dot":
        return queries * settings.scale, queries.new_zeros(rows.shape[0])
    if settings.similarity == "cosine":
        return queries * (settings.scale / length(queries)), queries.new_zeros(rows.shape[0])
    return queries * (2 * settings.scale), queries.square().sum(1) * settings.scale


def _prepared_keys(bank: Bank, settings: Settings) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return keys [n, D] in float32, and what is added to their scores, [n] or None."""
    keys = dequantised(bank.keys, bank.key_scales, torch.empty(0))
    offset = None if bank.bias is None else bank.bias.float()
    if settings.similarity == "cosine":
        keys = keys / length(keys)
    elif settings.similarity == "l2":
        squares = keys.square().sum(1) * -settings.scale
        offset = squares if offset is None else squares + offset
    if bank.kept is not None:
        offset = torch.zeros(keys.shape[0]) if offset is None else offset
        offset = torch.where(bank.kept, offset, -math.inf)
    return keys, offset
