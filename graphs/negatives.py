"""Corrupted triples: candidates that take the place of heads or tails, drawn from a generator."""

from __future__ import annotations

import torch

from .known import KnownTriples
from .scores import Side

_BITS = 31
_MARKS = 2**23
"""Marks of known entities that are held at a time: 8 MB."""


def own_negatives(
    triples: torch.Tensor,
    count: int,
    side: Side,
    entities: int,
    generator: torch.Generator,
    known: KnownTriples | None = None,
) -> torch.Tensor:
    """Return ``count`` entities for the ``side`` of each of ``triples`` [B, 3]: int64 [B, count], uniform, repeated.

    With ``known``, entities that make a known triple are never drawn, and all others are equally likely. A pair that
    every entity completes is drawn for as if nothing were known.
    """
    drawn = torch.randint(entities, (len(triples), count), generator=generator).to(triples.device)
    if known is not None:
        step = max(1, _MARKS // entities)
        for first in range(0, len(triples), step):
            _replace_known(drawn[first : first + step], triples[first : first + step], side, generator, known)
    return drawn


def _replace_known(
    drawn: torch.Tensor, triples: torch.Tensor, side: Side, generator: torch.Generator, known: KnownTriples
) -> None:
    """Draw anew what is known among ``drawn`` [B, n]: at once, from the unknown entities of its row."""
    batch, entities, device = len(triples), known.entities, triples.device
    rows, taken = known.completing(triples, side)
    # Flat: indices of two dimensions cost more than all else here.
    marks = torch.zeros(batch * entities, dtype=torch.bool, device=device)
    marks[rows * entities + taken] = True
    beginnings = torch.arange(0, batch * entities, entities, device=device)[:, None]
    at, column = marks.take(drawn + beginnings).nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=batch)
    unfilled = (counts < entities)[at]
    at, column = at[unfilled], column[unfilled]
    # A number below how many entities are left; each known one that is not above it is stepped over.
    number = torch.randint(2**_BITS, (len(at),), generator=generator).to(device)
    number = (number * (entities - counts)[at]) >> _BITS
    before = counts.cumsum(0) - counts
    steps = taken - (torch.arange(len(rows), device=device) - before[rows])
    over = torch.searchsorted(rows * entities + steps, at * entities + number, right=True) - before[at]
    drawn[at, column] = number + over


def shared_negatives(count: int, entities: int, generator: torch.Generator) -> torch.Tensor:
    """Return ``count`` different entities, int64 [count], for all triples of a batch; all where there are fewer."""
    return torch.randperm(entities, generator=generator)[:count]


def known_among(triples: torch.Tensor, candidates: torch.Tensor, side: Side, known: KnownTriples) -> torch.Tensor:
    """Return which of the shared ``candidates`` int64 [n], all different, make known triples: bool [B, n].

    A row that all candidates complete is False throughout, so that something is left to learn from.
    """
    rows, ids = known.completing(triples, side)
    device = triples.device
    place = torch.full((known.entities,), -1, device=device)
    place[candidates] = torch.arange(len(candidates), device=device)
    at = place[ids]
    there = at >= 0
    true = torch.zeros(len(triples), len(candidates), dtype=torch.bool, device=device)
    true[rows[there], at[there]] = True
    true[true.all(1)] = False
    return true
