"""The nearest entries of a store, by ``codistill.kernels.retrieve`` on the buffers as they lie in the files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..late import late
from .columns import Layout
from .table import Part, Table

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

Similarity = Literal["dot", "cosine", "l2"]

DECODED = 2**22
"""Numbers that are decoded at a time."""

DEAD, EVER = 2**40, 2**32
"""The age of a dead row, and one that no other row reaches, in rounds; apart as float32, in which they are compared."""


@dataclass(frozen=True)
class Found:
    """The k nearest entries of Q queries, best first.

    ``ids`` and ``rows`` int64 [Q, k], -1 where fewer than k may be retrieved; ``weights`` float32 [Q, k]: softmax of
    the scores over the temperature, 0 where there is none; ``scores`` float32 [Q, k], -inf where there is none;
    ``values`` float32 [Q, W]: the weighted sum of the entries' values. Rows are those of the store until it changes.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    weights: torch.Tensor
    scores: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class Question:
    """Who asks and how: ``queries`` float32 [Q, K], ``owners`` int32 [Q] and ``classes`` int64 [Q] or None each."""

    queries: torch.Tensor
    k: int
    similarity: Similarity
    scale: float
    temperature: float
    owners: torch.Tensor | None
    classes: torch.Tensor | None
    max_age: int | None
    round: int


def question(
    table: Table,
    queries: torch.Tensor | np.ndarray,
    k: int,
    similarity: Similarity,
    scale: float,
    temperature: float,
    not_mine: str | Sequence[str] | None,
    same_class: torch.Tensor | np.ndarray | None,
    max_age: int | None,
    round: int,
) -> Question:
    """Return what :meth:`Store.nearest` was asked, as tensors."""
    asked = torch.as_tensor(queries, dtype=torch.float32)
    owners = None
    if not_mine is not None:
        names = [not_mine] * len(asked) if isinstance(not_mine, str) else list(not_mine)
        owners = torch.tensor([table.place(name) for name in names], dtype=torch.int32)
    classes = None if same_class is None else torch.as_tensor(same_class, dtype=torch.int64)
    return Question(asked, k, similarity, scale, temperature, owners, classes, max_age, round)


def tensor(array: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor over the same memory; whoever gets one of a mapped file must not write to it."""
    return torch.from_numpy(array) if array.flags.writeable else torch.utils.dlpack.from_dlpack(array)


def nearest(table: Table, layout: Layout, asked: Question) -> Found:
    """Return the nearest entries of all parts: the k best of each, and of those the k best; ties go to what came first.

    Source of the scores and masks: :func:`codistill.kernels.retrieve`.
    """
    many = asked.queries.shape[0]
    scores = torch.full((many, asked.k), -math.inf)
    rows = torch.full((many, asked.k), -1)
    for start, part in zip(table.starts.tolist(), table.parts, strict=False):
        if part.living:
            for first, keys, scales in _keys(part, layout):
                some = slice(first, first + keys.shape[0])
                found, places = _best(part, some, keys, scales, asked)
                rows = torch.cat([rows, torch.where(places < 0, -1, places + start + first)], 1)
                # What is empty goes last and equal scores stay in the order of rows: they came in that order.
                scores, order = torch.cat([scores, found], 1).sort(dim=1, descending=True, stable=True)
                scores, rows = scores[:, : asked.k], rows.gather(1, order[:, : asked.k])
    there = rows >= 0
    weights = torch.where(there, torch.softmax(scores / asked.temperature, 1), 0.0)
    ids, values = _answers(table, layout, rows, weights)
    return Found(ids, rows, weights, scores, values)


def _keys(part: Part, layout: Layout) -> Iterator[tuple[int, torch.Tensor, torch.Tensor | None]]:
    """Yield runs of keys with their first place: int8 [n, K] with scales [n], or float32 [n, K] with None.

    One run over the part's own memory where it holds either; else decoded, some at a time.
    """
    held = part.block.keys or part.block.values
    if "codes" in held:
        yield 0, tensor(held["codes"]), tensor(held["scale"].reshape(-1))
    elif set(held) == {"values"} and held["values"].dtype == np.float32:
        yield 0, tensor(held["values"]), None
    else:
        step = max(1, DECODED // layout.width)
        for first in range(0, len(part), step):
            yield first, tensor(layout.values({name: one[first : first + step] for name, one in held.items()})), None


def _best(
    part: Part, some: slice, keys: torch.Tensor, scales: torch.Tensor | None, asked: Question
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scores and places in ``some`` [Q, k] of the best of a run of keys."""
    from ...kernels.retrieval import retrieve

    alive, age, most = part.marks.alive[some], None, None
    if asked.max_age is not None or not alive.all():
        age = tensor(np.where(alive, asked.round - part.block.rounds[some].astype(np.int64), DEAD))
        most = float(EVER if asked.max_age is None else asked.max_age)
    with torch.no_grad():
        found = retrieve(
            asked.queries,
            keys,
            k=asked.k,
            similarity=asked.similarity,
            scale=asked.scale,
            temperature=asked.temperature,
            key_scales=scales,
            query_owner=asked.owners,
            key_owner=None if asked.owners is None else tensor(part.block.owners[some]),
            query_class=asked.classes,
            key_class=None if asked.classes is None else tensor(part.block.classes[some]),
            key_age=age,
            max_age=most,
        )
    return found.scores, found.indices


def _answers(
    table: Table, layout: Layout, rows: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids [Q, k] and weighted values [Q, W] of what was found."""
    ids = torch.full_like(rows, -1)
    values = torch.zeros(rows.shape[0], layout.width)
    step = max(1, DECODED // (rows.shape[1] * layout.width))
    for first in range(0, rows.shape[0], step):
        some = slice(first, first + step)
        there = rows[some] >= 0
        if there.any():
            distinct, at = np.unique(rows[some][there].numpy(), return_inverse=True)
            block, _ = table.gather(distinct)
            places = torch.zeros_like(rows[some])
            places[there] = torch.from_numpy(at)
            ids[some] = torch.where(there, torch.from_numpy(block.ids)[places], -1)
            held = torch.from_numpy(np.ascontiguousarray(layout.values(block.values)))
            values[some] = torch.bmm(weights[some, None], held[places])[:, 0]
    return ids, values
