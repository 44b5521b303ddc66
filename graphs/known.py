"""Which entities complete a pair of entity and relation: built once from triples, asked for many pairs at a time."""

from __future__ import annotations

import torch

from .scores import Side


class KnownTriples:
    """True triples of a graph of ``entities`` and ``relations``, as sorted integers: no object for each triple.

    ``triples`` is int64 [n, 3] (head, relation, tail); duplicates count once. Raises ``ValueError`` for ids outside of
    the graph, and for graphs whose number of conceivable triples is above 2^63.
    """

    def __init__(self, triples: torch.Tensor, entities: int, relations: int) -> None:
        if triples.dtype != torch.int64 or triples.dim() != 2 or triples.shape[1] != 3:
            raise ValueError(f"triples have shape {tuple(triples.shape)}, {triples.dtype}; expected int64 [n, 3]")
        if entities * entities * relations >= 2**63:
            raise ValueError(f"{entities} entities and {relations} relations are too many for 64-bit keys of triples")
        for column, many, what in ((0, entities, "head"), (1, relations, "relation"), (2, entities, "tail")):
            if len(triples) and not 0 <= int(triples[:, column].min()) <= int(triples[:, column].max()) < many:
                raise ValueError(f"a {what} of the triples is outside of 0 to {many - 1}")
        self.entities, self.relations = entities, relations
        sides: tuple[tuple[Side, int], ...] = (("tail", 2), ("head", 0))
        self._keys = {
            side: torch.unique(self._pairs(triples, side) * entities + triples[:, column]) for side, column in sides
        }
        self._completing = {side: keys % entities for side, keys in self._keys.items()}

    def _pairs(self, triples: torch.Tensor, side: Side) -> torch.Tensor:
        return triples[:, 0 if side == "tail" else 2] * self.relations + triples[:, 1]

    def completing(self, triples: torch.Tensor, side: Side) -> tuple[torch.Tensor, torch.Tensor]:
        """Return all entities that make true triples in place of the ``side`` of each of ``triples`` [B, 3].

        They are (rows, ids), int64 [m] each: for row b the ids ascend, and rows ascend.
        """
        keys = self._keys[side]
        pairs = self._pairs(triples, side) * self.entities
        first = torch.searchsorted(keys, pairs)
        counts = torch.searchsorted(keys, pairs + self.entities) - first
        rows = torch.repeat_interleave(counts)
        at = torch.arange(len(rows), device=rows.device) + (first - (counts.cumsum(0) - counts))[rows]
        return rows, self._completing[side][at]
