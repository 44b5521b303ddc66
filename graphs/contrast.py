"""What true triples are held against in a step: candidates, their scores, and the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .losses import one_vs_all_loss, self_adversarial_loss
from .negatives import known_among, own_negatives, shared_negatives
from .scores import Side
from .settings import Contrast
from .table_scores import table_scores

if TYPE_CHECKING:
    from .embedding import Embedding
    from .known import KnownTriples
    from .scores import Score


@dataclass(frozen=True)
class Drawn:
    """``triples`` int64 [B, 3], the ``side`` to replace, and ``candidates`` int64 [B, n], or [n] for all triples.

    ``known`` bool [B, n] says which shared candidates make a known triple; None where that is not asked.
    """

    triples: torch.Tensor
    side: Side
    candidates: torch.Tensor
    known: torch.Tensor | None = None

    @property
    def true(self) -> torch.Tensor:
        """The true entities of the side, int64 [B]."""
        return self.triples[:, 0 if self.side == "head" else 2]


@dataclass(frozen=True)
class Batch:
    """What a step sees: what was ``drawn``, and scores with gradient, without margin.

    ``positive`` [B] are those of the true triples and ``negative`` [B, n] those of the candidates, -inf where a shared
    one makes a known triple. With 1-vs-all the candidates are all entities, and the true one is among them.
    """

    drawn: Drawn
    positive: torch.Tensor
    negative: torch.Tensor

    @property
    def triples(self) -> torch.Tensor:
        """The true triples, int64 [B, 3]."""
        return self.drawn.triples

    @property
    def side(self) -> Side:
        """The side that is replaced."""
        return self.drawn.side

    @property
    def candidates(self) -> torch.Tensor:
        """What replaces it, int64 [B, n], or [n] for all triples."""
        return self.drawn.candidates


def side_of(settings: Contrast, step: int) -> Side:
    """Return which side the ``step``-th batch replaces."""
    turns: dict[str, tuple[Side, Side]] = {"both": ("head", "tail"), "heads": ("head",) * 2, "tails": ("tail",) * 2}
    return turns[settings.corrupt][step % 2]


def draw(
    settings: Contrast,
    triples: torch.Tensor,
    side: Side,
    entities: int,
    generator: torch.Generator,
    known: KnownTriples | None,
) -> Drawn:
    """Return candidates for the ``side`` of ``triples`` [B, 3] among ``entities``; ``known`` are never negatives."""
    if settings.loss == "one-vs-all":
        return Drawn(triples, side, torch.arange(entities, device=triples.device))
    if settings.shared:
        candidates = shared_negatives(settings.negatives, entities, generator).to(triples.device)
        true = None if known is None else known_among(triples, candidates, side, known)
        return Drawn(triples, side, candidates, true)
    return Drawn(triples, side, own_negatives(triples, settings.negatives, side, entities, generator, known))


def renumbered(drawn: Drawn) -> tuple[torch.Tensor, Drawn]:
    """Return which entities were drawn, int64 [k] ascending, and the same draw with places among them for ids."""
    count = len(drawn.triples)
    ids, places = torch.unique(
        torch.cat([drawn.triples[:, 0], drawn.triples[:, 2], drawn.candidates.reshape(-1)]), return_inverse=True
    )
    triples = torch.stack([places[:count], drawn.triples[:, 1], places[count : 2 * count]], 1)
    return ids, Drawn(triples, drawn.side, places[2 * count :].view_as(drawn.candidates), drawn.known)


def scored(
    model: Score, entities: torch.Tensor, relations: torch.Tensor, drawn: Drawn
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the scores of the true triples [B] and of the candidates [B, n]; ids point into the two tables."""

    def scores(candidates: torch.Tensor) -> torch.Tensor:
        return table_scores(model, entities, relations, drawn.triples, candidates, drawn.side)

    true = drawn.true[:, None]
    if drawn.candidates.dim() == 2:
        both = scores(torch.cat([true, drawn.candidates], 1))
        return both[:, 0], both[:, 1:]
    negative = scores(drawn.candidates)
    if drawn.known is not None:
        negative = negative.masked_fill(drawn.known, -float("inf"))
    return scores(true).squeeze(1), negative


def _self_adversarial(
    embedding: Embedding, batch: Batch, settings: Contrast, weights: torch.Tensor | None
) -> torch.Tensor:
    margin = embedding.logit_margin
    return self_adversarial_loss(
        batch.positive, batch.negative, margin=margin, temperature=settings.temperature, weights=weights
    )


def _one_vs_all(embedding: Embedding, batch: Batch, settings: Contrast, weights: torch.Tensor | None) -> torch.Tensor:
    return one_vs_all_loss(batch.negative, batch.drawn.true, weights=weights)


LOSSES: dict[str, Callable[[Embedding, Batch, Contrast, torch.Tensor | None], torch.Tensor]] = {
    "self-adversarial": _self_adversarial,
    "one-vs-all": _one_vs_all,
}
"""The mean loss of a batch, by the name that settings say; ``weights`` [B] weigh its triples."""
