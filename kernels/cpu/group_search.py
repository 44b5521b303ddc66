"""Candidates for the k best by maxima of groups: a matrix product in blocks that never leaves the cache's reach.

The k best memories lie in the k groups with the highest maxima, so a group's maximum is all that is kept of it, and of
the maxima only the best so far. The bank is read once for every ``ROWS`` queries, front to back, as a memory-mapped one
wants it; an int8 bank becomes float32 a block at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from ..reference.kd import accumulated
from ..reference.retrieve import length
from ..retrieve_settings import SMALLEST_NORM, Bank, Queries, Settings
from . import native

GROUP = 8
"""Memories of a group in a bank of up to ``MANY``; more beyond: maxima cost by M / group, members by group."""

WIDER = {True: 4 * GROUP, False: 2 * GROUP}
"""Memories of a group in a larger bank, by whether native code picks the best members of the best groups."""

REFINED = (torch.float32, torch.int8)
"""What keys are where it does."""

MANY = 2**18

CHUNK = 1024
"""Memories that are multiplied at a time with ``ROWS`` queries; with fewer queries there are more."""

ROWS = 1024
"""Queries that are multiplied at a time."""

MAXIMA = 2**22
"""Maxima that are held at a time, beside the best so far."""

SPARE = 4
"""Groups taken beyond k: the last of them bounds what was not taken, well below the k-th best."""


@dataclass(frozen=True)
class Candidates:
    """``indices`` int64 [Q, n], -1 where there is none; nothing else exceeds ``bound`` [Q], but by rounding.

    ``longest`` is the length of the longest finite key that was looked at, on which the rounding depends.
    """

    indices: torch.Tensor
    bound: torch.Tensor
    longest: float


def search(asked: Queries, bank: Bank, settings: Settings, natively: bool) -> Candidates:
    """Return the best candidates of each query: members of its best groups, sought ``natively`` or by torch.

    With classes, a query meets only the memories of its class, in place of all with a mask.
    """
    rows, count = asked.rows.shape[0], bank.keys.shape[0]
    if asked.class_ is None or bank.class_ is None or count <= CHUNK:
        return _among(None, asked, bank, settings, natively)
    indices = torch.full((rows, (settings.k + SPARE) * max(WIDER.values())), -1)
    bound, longest = torch.full((rows,), -math.inf), 0.0
    for some, members in _by_class(asked.class_, bank):
        part = replace(asked.part(some), class_=None)
        found = _among(members, part, replace(bank, class_=None, kept=None), settings, natively)
        indices[some, : found.indices.shape[1]] = found.indices
        bound[some] = found.bound
        longest = max(longest, found.longest)
    return Candidates(indices, bound, longest)


def _by_class(asked: torch.Tensor, bank: Bank) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the queries of a class and the memories that are kept of it, for each class that has both."""
    assert bank.class_ is not None
    kept = torch.arange(len(bank.class_)) if bank.kept is None else bank.kept.nonzero()[:, 0]
    classes, order = bank.class_[kept].sort(stable=True)
    kept = kept[order]
    queries, turn = asked.to(classes.dtype).sort(stable=True)
    there, sizes = queries.unique_consecutive(return_counts=True)
    first, last = (torch.searchsorted(classes, there, right=right).tolist() for right in (False, True))
    for some, start, stop in zip(turn.split(sizes.tolist()), first, last, strict=True):
        if start < stop:
            yield some, kept[start:stop]


def _among(members: torch.Tensor | None, asked: Queries, bank: Bank, settings: Settings, natively: bool) -> Candidates:
    """Search among the ``members`` of the bank, or in all of it."""
    count = bank.keys.shape[0] if members is None else len(members)
    indices, bounds, longest = [], [], 0.0
    for first in range(0, asked.rows.shape[0], ROWS):
        some = asked.part(slice(first, first + ROWS))
        queries, less = _prepared_queries(some.rows, settings)
        at, bound, longest = _best_members(queries, some, members, count, bank, settings, natively)
        there = at < count
        if members is not None:
            at = members[at.clamp_(max=count - 1)]
        at = torch.where(there, at, -1)
        if natively and bank.keys.dtype in REFINED:
            at, bound = _refined(at, bound, queries, some, bank, settings)
        indices.append(at)
        bounds.append(bound - less)
    return Candidates(torch.cat(indices), torch.cat(bounds), longest)


def _refined(
    at: torch.Tensor, bound: torch.Tensor, queries: torch.Tensor, asked: Queries, bank: Bank, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the k + ``SPARE`` best of the candidates, and what bounds all else."""
    many = settings.k + SPARE
    if at.shape[1] <= many:
        return at, bound
    scores = native.member_scores(native.pack(queries, asked), queries, at, bank, settings)
    best, which = scores.topk(many, 1)
    return at.gather(1, which), torch.maximum(bound, best[:, -1])


def _best_members(
    queries: torch.Tensor,
    asked: Queries,
    members: torch.Tensor | None,
    count: int,
    bank: Bank,
    settings: Settings,
    natively: bool,
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return positions among ``count`` members, or beyond, of the best groups, the bound, and the longest key."""
    rows, many = queries.shape[0], settings.k + SPARE
    group = GROUP if count <= MANY else WIDER[natively and bank.keys.dtype in REFINED]
    if natively:
        wide = 1
        spans = _native_spans(queries, asked, members, count, bank, settings, group)
    else:
        wide = min(math.ceil(count / group), CHUNK * max(1, ROWS // rows) // group)
        spans = _plain_spans(queries, asked, members, count, bank, settings, group, wide)
    highest, chosen, longest = torch.empty(rows, 0), torch.empty(rows, 0, dtype=torch.int64), 0.0
    passed = 0
    for maxima, long in spans:
        longest = max(longest, long)
        more, at = _top(maxima, many)
        highest, chosen = torch.cat([highest, more], 1), torch.cat([chosen, at + passed], 1)
        highest, at = highest.topk(min(many, highest.shape[1]), 1)
        chosen = chosen.gather(1, at)
        passed += maxima.shape[1]
    bound = highest[:, -1] if many < passed else torch.full((rows,), -math.inf)
    start = torch.div(chosen, wide, rounding_mode="floor") * (wide * group) + chosen % wide
    return (start[:, :, None] + torch.arange(group) * wide).flatten(1), bound, longest


def _native_spans(
    queries: torch.Tensor,
    asked: Queries,
    members: torch.Tensor | None,
    count: int,
    bank: Bank,
    settings: Settings,
    group: int,
) -> Iterator[tuple[torch.Tensor, float]]:
    """Yield the maxima [Q, n] of the groups of a span of memories, and the length of its longest key."""
    packed = native.pack(queries, asked)
    block = native.MEMORIES * group
    span = max(1, MAXIMA // (len(queries) * native.MEMORIES)) * block
    space = torch.empty(len(queries), min(math.ceil(count / block) * block, span) // group)
    single = bank.keys.dtype in REFINED
    for first in range(0, count, span):
        some = slice(first, min(first + span, count))
        maxima = space[:, : math.ceil((some.stop - first) / block) * native.MEMORIES]
        if members is None:
            long = native.group_maxima(packed, bank.part(some), None, settings, group, maxima)
        elif single:
            long = native.group_maxima(packed, bank, members[some], settings, group, maxima)
        else:
            long = native.group_maxima(packed, bank.part(members[some]), None, settings, group, maxima)
        yield maxima, long


def _plain_spans(
    queries: torch.Tensor,
    asked: Queries,
    members: torch.Tensor | None,
    count: int,
    bank: Bank,
    settings: Settings,
    group: int,
    wide: int,
) -> Iterator[tuple[torch.Tensor, float]]:
    """Yield the same by torch: groups are strided by ``wide``, so that a maximum runs over whole rows."""
    rows, chunk, chunks = len(queries), wide * group, math.ceil(count / (wide * group))
    held = min(chunks, max(1, MAXIMA // (rows * wide)))
    # Reused for all blocks: fresh memory costs a page fault every 4 KB.
    space, forbidden = torch.empty(rows, chunk), torch.empty(rows, chunk, dtype=torch.bool)
    maxima, single = torch.empty(rows, held * wide), torch.empty(chunk, queries.shape[1])
    longest = 0.0
    for number in range(chunks):
        some = slice(number * chunk, min((number + 1) * chunk, count))
        part = bank.part(some if members is None else members[some])
        keys, offset, long = _prepared_keys(part, settings, single)
        longest = max(longest, long)
        scores = space[:, : len(keys)]
        torch.mm(queries, keys.T, out=scores)
        if offset is not None:
            scores.add_(offset)
        _mask(scores, asked, part, forbidden[:, : len(keys)])
        space[:, len(keys) :] = -math.inf
        filled = (number % held + 1) * wide
        torch.amax(space.view(rows, group, wide), 1, out=maxima[:, filled - wide : filled])
        if number % held == held - 1 or number == chunks - 1:
            yield maxima[:, :filled], longest


def _top(maxima: torch.Tensor, many: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ``many`` highest of each row, or all, and where they are: by groups, as for memories."""
    count = maxima.shape[1]
    wide = count // GROUP
    if wide <= many * GROUP or count % GROUP:
        return maxima.topk(min(many, count), 1)
    _, groups = _top(maxima.unflatten(1, (GROUP, wide)).amax(1), many)
    at = (groups[:, :, None] + torch.arange(GROUP) * wide).flatten(1)
    highest, best = maxima.gather(1, at).topk(many, 1)
    return highest, at.gather(1, best)


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


def _prepared_keys(
    bank: Bank, settings: Settings, space: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, float]:
    """Return keys [n, D] in float32, what is added to their scores, [n] or None, and the length of the longest.

    ``space`` [m, D] holds the keys of a bank that is not float32.
    """
    keys = bank.keys
    if bank.key_scales is not None:
        keys = torch.mul(keys, bank.key_scales.float()[:, None], out=space[: len(keys)])
    elif keys.dtype != torch.float32:
        keys = space[: len(keys)].copy_(keys)
    offset = None if bank.bias is None else bank.bias.float()
    lengths = torch.linalg.vector_norm(keys, dim=1)
    if settings.similarity == "cosine":
        keys = keys / lengths.clamp(min=SMALLEST_NORM)[:, None]
    elif settings.similarity == "l2":
        squares = lengths.square() * -settings.scale
        offset = squares if offset is None else squares + offset
    if bank.kept is not None:
        offset = torch.zeros(keys.shape[0]) if offset is None else offset
        offset = torch.where(bank.kept, offset, -math.inf)
    return keys, offset, float(lengths.nan_to_num_(0.0, 0.0, 0.0).max())
