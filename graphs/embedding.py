"""The embedding of a knowledge graph: a row for each entity and for each relation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from .scores import Side, score_model
from .table_scores import table_scores

if TYPE_CHECKING:
    from .encoded import GraphEncoder

Tables = tuple[torch.Tensor, torch.Tensor]
"""Rows of all entities [E, width] and all relations [R, width']."""

EPSILON = 2.0
"""What is added to the margin in the range of initial numbers (Sun et al. 2019, their code)."""


class Embedding(torch.nn.Module):
    """Rows of entities and relations under one score model.

    ``entities`` [E, width] and ``relations`` [R, width'] are float32 parameters; the widths are the score model's for
    ``dimension``. Both begin uniformly in [-range, range], range = (``margin`` + 2) / ``dimension`` (Sun et al. 2019,
    their code), but RotatE's phases, which begin uniformly in [-pi, pi]. ``margin`` is the gamma that losses add to the
    scores of distance models; for inner products it is part of the range and nothing else, as in that code.
    ``encoder``, if there is one, stands between the tables and the score.

    Equal generators make equal rows. Raises ``ValueError`` for an unknown score model and for sizes that are not
    positive.
    """

    def __init__(
        self,
        entities: int,
        relations: int,
        dimension: int,
        score: str,
        generator: torch.Generator,
        *,
        margin: float = 9.0,
    ) -> None:
        super().__init__()
        self.score = score_model(score)
        for what, count in (("entities", entities), ("relations", relations), ("dimension", dimension)):
            if count < 1:
                raise ValueError(f"Embedding: {what} is {count}; expected 1 or more")
        if not margin >= 0:
            raise ValueError(f"Embedding: margin is {margin}; expected 0 or more")
        self.dimension, self.margin = dimension, margin
        self.range = (margin + EPSILON) / dimension
        phases = math.pi if self.score.model == "rotate" else self.range
        self.entities = torch.nn.Parameter(
            _uniform(entities, self.score.entity_width(dimension), self.range, generator)
        )
        self.relations = torch.nn.Parameter(
            _uniform(relations, self.score.relation_width(dimension), phases, generator)
        )
        self.encoder: GraphEncoder | None = None

    @property
    def relation_unit(self) -> float:
        """How far a relation's number goes where an entity's goes by 1.

        RotatE's authors store phase * range / pi and take the same steps with all numbers; here phases are radians, so
        that they mean the same to every agent, and their steps are pi / range as long. For other models it is 1.
        """
        return math.pi / self.range if self.score.model == "rotate" else 1.0

    @property
    def logit_margin(self) -> float:
        """What is added to a score to make a logit of it: the margin, or 0 for inner products."""
        return self.margin if self.score.distance else 0.0

    @property
    def weights(self) -> list[torch.nn.Parameter]:
        """What is learned besides the tables: the encoder's weights."""
        return [] if self.encoder is None else list(self.encoder.parameters())

    def rows(self, left_out: torch.Tensor | None = None) -> Tables:
        """Return the rows of entities [E, width] and relations [R, width'] that are scored.

        They are the tables, or what the encoder makes of them. A triple ``left_out`` int64 [N, 3] is not read off the
        graph: in training those of the batch are left out.
        """
        if self.encoder is None:
            return self.entities, self.relations
        return self.encoder.forward(self.entities, self.relations, left_out)

    def score_triples(self, triples: torch.Tensor, rows: Tables | None = None) -> torch.Tensor:
        """Return the scores [n] of ``triples`` int64 [n, 3] (head, relation, tail), without margin."""
        return self.score_candidates(triples, triples[:, 2:], "tail", rows).squeeze(1)

    def score_candidates(
        self, triples: torch.Tensor, candidates: torch.Tensor, side: Side, rows: Tables | None = None
    ) -> torch.Tensor:
        """Return the scores [B, n] of ``triples`` [B, 3] whose ``side`` is replaced by ``candidates`` [B, n] or [n].

        ``rows``: what :meth:`rows` has returned, where it is asked once for many scores; nothing said: of all edges.
        """
        return table_scores(self.score, *(self.rows() if rows is None else rows), triples, candidates, side)


def _uniform(rows: int, width: int, most: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(rows, width, generator=generator).mul_(2 * most).sub_(most)
