"""Score models: how plausible a triple of rows of an embedding is. Higher is more plausible.

Every model here is a comparison of a candidate entity with a point that the known entity and the relation make, so all
of them score one candidate or all entities with the same code; see :func:`codistill.kernels.graph_scores`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..tasks.late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

Side = Literal["head", "tail"]


@dataclass(frozen=True)
class Score:
    """One score model: what it computes in one ``sentence``, and how wide its rows are for a dimension D.

    ``distance`` models score minus a distance, never above 0, and a margin is added where a loss asks for a logit; the
    others score an inner product, which is a logit already.
    """

    name: str
    sentence: str
    model: Literal["transe", "rotate", "distmult", "complex"]
    norm: Literal[1, 2]
    entity_numbers: int
    distance: bool

    def entity_width(self, dimension: int) -> int:
        """Return how many numbers an entity has: D, or 2 D where they are complex (real parts first)."""
        return dimension * self.entity_numbers

    def relation_width(self, dimension: int) -> int:
        """Return how many numbers a relation has: as many as an entity, and D phases in radians for RotatE."""
        return dimension if self.model == "rotate" else self.entity_width(dimension)


def _registry(models: Iterable[Score]) -> dict[str, Score]:
    return {one.name: one for one in models}


SCORES = _registry(
    (
        Score("transe", "-|h + r - t| in the 1-norm (Bordes et al. 2013).", "transe", 1, 1, True),
        Score("transe-l2", "-|h + r - t| in the 2-norm (Bordes et al. 2013).", "transe", 2, 1, True),
        Score(
            "rotate", "Minus the sum of the moduli of h o r - t (Sun et al. 2019, their code).", "rotate", 1, 2, True
        ),
        Score("rotate-l2", "Minus the 2-norm of the complex h o r - t, as PyKEEN has it.", "rotate", 2, 2, True),
        Score("distmult", "The sum of h r t (Yang et al. 2015).", "distmult", 1, 1, False),
        Score("complex", "The real part of the sum of h r conj(t) (Trouillon et al. 2016).", "complex", 1, 2, False),
    )
)
"""Score models by name."""


def score_model(name: str) -> Score:
    """Return the score model ``name``; raises ``ValueError`` with the nearest name where there is none."""
    if name in SCORES:
        return SCORES[name]
    near = difflib.get_close_matches(name, SCORES, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"there is no score model {name!r}; expected one of {', '.join(SCORES)}{hint}")


def score(model: Score, heads: torch.Tensor, relations: torch.Tensor, tails: torch.Tensor) -> torch.Tensor:
    """Return the scores [B] of triples whose rows are ``heads``, ``tails`` [B, width] and ``relations`` [B, width']."""
    candidates = torch.arange(len(tails), device=tails.device)[:, None]
    return score_candidates(model, heads, relations, tails, candidates, "tail").squeeze(1)


def score_candidates(
    model: Score,
    known: torch.Tensor,
    relations: torch.Tensor,
    entities: torch.Tensor,
    candidates: torch.Tensor,
    side: Side,
) -> torch.Tensor:
    """Return the scores [B, n] of candidates for the ``side`` of triples whose other side is ``known`` [B, width].

    ``entities`` [E, width] is the table that ``candidates`` int64 points into: [B, n], each row its own, or [n], shared
    by all rows. Nothing of size [B, n, width] is made. Gradients go to the three tables; see
    :func:`codistill.kernels.graph_scores`.
    """
    from ..kernels import graph_scores

    return graph_scores(known, relations, entities, candidates, model=model.model, norm=model.norm, side=side)


def score_all(
    model: Score, known: torch.Tensor, relations: torch.Tensor, entities: torch.Tensor, side: Side
) -> torch.Tensor:
    """Return the scores [B, E] of every row of ``entities`` [E, width] for the ``side`` of triples."""
    return score_candidates(
        model, known, relations, entities, torch.arange(len(entities), device=entities.device), side
    )
