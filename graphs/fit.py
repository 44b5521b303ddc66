"""Local training of an embedding on one client's triples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .adam import TableAdam
from .contrast import LOSSES, Batch, draw, renumbered, scored, side_of
from .embedding import Embedding
from .known import KnownTriples
from .settings import Fit


class DivergedError(ValueError):
    """A loss stopped being a number."""


Term = Callable[[Batch], torch.Tensor]
"""What is added to the loss of a step: a scalar with gradients to the embedding's parameters or the scores."""


@dataclass(frozen=True)
class Fitted:
    """How local training went: ``steps`` and the mean loss of each epoch, without terms."""

    steps: int
    losses: tuple[float, ...]


def fit(
    embedding: Embedding,
    triples: torch.Tensor,
    settings: Fit,
    generator: torch.Generator,
    *,
    known: KnownTriples | None = None,
    terms: Sequence[Term] = (),
    beside: Sequence[Embedding] = (),
    more: Sequence[torch.Tensor] = (),
) -> Fitted:
    """Train ``embedding`` in place on ``triples`` int64 [n, 3], with Adam made anew.

    Each epoch goes once through the triples in an order drawn from ``generator``, which draws the negatives too: equal
    generators and embeddings make equal results on one machine. ``known`` are the triples that are never negatives;
    nothing said: those trained on. No triples make no step. An encoder does not see the triples of the batch.

    With ``optimizer`` "adam" every row moves in every step, as in the published codes; with "lazy-adam" entities that
    are neither in the batch nor among its negatives rest, so that a step's cost does not grow with the graph. With 256
    negatives of each triple's own a batch touches nearly all of a small graph and the two are alike; with shared ones a
    lazy row takes fewer steps, and other ones, since its momentum does not wear off in between. Under an encoder those
    rest whose rows had no part in the loss.

    ``beside``: further embeddings, and ``more``: further parameters, that ``terms`` give gradients to; they take the
    same steps. Raises ``DivergedError`` where the loss or a row stops being a number; all is then as it was before.
    """
    trained = [*embedding.parameters(), *(one for other in beside for one in other.parameters()), *more]
    weights_of_encoders = [weight for one in (embedding, *beside) for weight in one.weights]
    further = _further(beside, [*weights_of_encoders, *more], settings.lr)
    steps = _Steps(embedding, settings, generator, known, terms, further)
    if settings.filtered and known is None:
        steps.known = KnownTriples(triples, len(embedding.entities), len(embedding.relations))
    weights = frequency_weights(triples) if settings.frequency_weights else None
    before = [one.detach().clone() for one in trained]
    losses = []
    for epoch in range(settings.epochs if len(triples) else 0):
        total = torch.zeros((), device=triples.device)
        order = torch.randperm(len(triples), generator=generator).to(triples.device)
        for chosen in order.split(settings.batch):
            loss = steps.down(triples[chosen], None if weights is None else weights[chosen])
            total += loss * len(chosen)
        losses.append(float(total) / len(triples))
        if not (losses[-1] < float("inf") and all(bool(one.isfinite().all()) for one in trained)):
            with torch.no_grad():
                for one, old in zip(trained, before, strict=True):
                    one.copy_(old)
            raise DivergedError(
                f"after epoch {epoch + 1} the loss is {losses[-1]} and not every row is a number; "
                "a lower learning rate may help"
            )
    return Fitted(steps.count, tuple(losses))


def frequency_weights(triples: torch.Tensor) -> torch.Tensor:
    """Return a weight [n] for each triple, so that frequent pairs do not rule: 1 / sqrt(6 + f(h, r) + f(r, t)).

    f counts the triples that share the pair. Sun et al. (2019, their code) add two counts that begin at 4: 6 above f.
    """
    total = torch.full((len(triples),), 6, device=triples.device)
    for pair in ([0, 1], [1, 2]):
        _, place, counts = torch.unique(triples[:, pair], dim=0, return_inverse=True, return_counts=True)
        total += counts[place]
    return total.float().rsqrt()


Further = list[tuple[torch.Tensor, TableAdam]]
"""Tables besides the embedding's own, and what moves each."""


def _further(beside: Sequence[Embedding], more: Sequence[torch.Tensor], lr: float) -> Further:
    made: Further = []
    for one in beside:
        made.append((one.entities, TableAdam(one.entities.data, lr)))
        made.append((one.relations, TableAdam(one.relations.data, lr, one.relation_unit)))
    return [*made, *((one, TableAdam(one.data, lr)) for one in more)]


class _Steps:
    """Steps of one local training, and what they keep from one to the next."""

    def __init__(
        self,
        embedding: Embedding,
        settings: Fit,
        generator: torch.Generator,
        known: KnownTriples | None,
        terms: Sequence[Term],
        further: Further,
    ) -> None:
        self._further = further
        self.count, self.known = 0, known if settings.filtered else None
        self._embedding, self._settings, self._generator, self._terms = embedding, settings, generator, terms
        self._entities = TableAdam(embedding.entities.data, settings.lr)
        self._relations = TableAdam(embedding.relations.data, settings.lr, embedding.relation_unit)
        self._lazy = settings.optimizer == "lazy-adam"
        # A few rows are cut out of the table, and so is their gradient; own negatives are nearly all rows.
        few = settings.loss != "one-vs-all" and (settings.shared or self._lazy)
        self._few = few and embedding.encoder is None
        self._gradient = torch.zeros_like(embedding.entities) if self._few and not self._lazy else None

    def down(self, triples: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        """Take a step on a batch of ``triples`` [B, 3] and return its mean loss."""
        embedding, settings = self._embedding, self._settings
        side = side_of(settings, self.count)
        drawn = draw(settings, triples, side, len(embedding.entities), self._generator, self.known)
        ids, placed = renumbered(drawn) if self._few else (None, drawn)
        table, relations = embedding.rows(triples)
        if ids is not None:
            table = table.detach()[ids].requires_grad_()
        batch = Batch(drawn, *scored(embedding.score, table, relations, placed))
        loss = LOSSES[settings.loss](embedding, batch, settings, weights)
        whole = loss
        for term in self._terms:
            whole = whole + term(batch)
        others = [one for one, _ in self._further]
        if ids is None:
            asked = (embedding.entities, embedding.relations, *others)
            by_entities, by_relations, *by_others = torch.autograd.grad(whole, asked)
            self._all_rows(by_entities)
        else:
            cut = (table, embedding.relations, embedding.entities, *others)
            by_rows, by_relations, by_terms, *by_others = torch.autograd.grad(whole, cut, allow_unused=True)
            self._few_rows(ids, by_rows, by_terms)
        for (_, optimizer), gradient in zip(self._further, by_others, strict=True):
            optimizer.step(gradient)
        self._relations.step(by_relations)
        self.count += 1
        return loss.detach()

    def _all_rows(self, by_entities: torch.Tensor) -> None:
        """Step down the gradient [E, D] of the whole table."""
        if not self._lazy or self._embedding.encoder is None:
            return self._entities.step(by_entities)
        ids = by_entities.any(1).nonzero().squeeze(1)
        return self._entities.step_rows(ids, by_entities[ids])

    def _few_rows(self, ids: torch.Tensor, by_rows: torch.Tensor, by_terms: torch.Tensor | None) -> None:
        """Step down the gradient ``by_rows`` [k, D] of the entities ``ids`` [k] and that of terms [E, D], if any."""
        if by_terms is not None:
            by_all = by_terms.index_add(0, ids, by_rows)
            if not self._lazy:
                return self._entities.step(by_all)
            ids = torch.unique(torch.cat([ids, by_terms.any(1).nonzero().squeeze(1)]))
            by_rows = by_all[ids]
        if self._gradient is None:
            return self._entities.step_rows(ids, by_rows)
        self._gradient[ids] = by_rows
        self._entities.step(self._gradient)
        self._gradient[ids] = 0.0
        return None
