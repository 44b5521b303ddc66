"""The absorption ``translated``: others' rows are turned into an agent's own space and kept if they serve (FKGE)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from pydantic import Field

from ..tasks.absorb.registry import ABSORBS
from ..tasks.agent import Agent, Context
from ..tasks.knowledge import Knowledge, Rows
from ..tasks.late import late
from ..tasks.memory import Event
from ..tasks.parameters import Step
from .absorbs import fitting
from .settings import Fit
from .tables import TABLES
from .train import descend

if TYPE_CHECKING:
    import torch

    from . import ranking, world
    from .embedding import Embedding
    from .world import Share
else:
    torch = late("torch")
    ranking = late("codistill.graphs.ranking")
    world = late("codistill.graphs.world")


class Translated(Fit, Step):
    """FKGE."""

    reads: ClassVar[str] = "triples"
    takes: ClassVar[tuple[str, ...]] = tuple(TABLES)
    of: ClassVar[str] = "model"

    share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="of what is translated, in a row that both hold"
    )
    epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(1, description="passes over the triples before it is tried")


@ABSORBS.register("translated", Translated)
def translated(agent: Agent, received: Knowledge, said: Translated, context: Context) -> None:
    """Each other agent's rows are turned into the own space, mixed in, trained on, and kept if validation is better.

    Peng et al. 2021 (FKGE), with the orthogonal map that fits best over the rows that both hold (Schoenemann 1966) in
    place of a GAN: W = U V' of X' Y = U S V'. Where the mean reciprocal rank of validation triples is not higher than
    before, the agent goes back to what it had, and this is counted. Agents without validation triples take all.
    """
    assert isinstance(received, Rows) and received.owners is not None
    held, model = world.graph_of(context).share(agent), cast("Embedding", agent.models["model"])
    quality: float | None = None
    for place, name in enumerate(received.contributors):
        rows = received.part(received.owners == place)
        if name == agent.name or not rows.items:
            continue
        found = fitting(agent, rows, "model", context)
        if found is None or not len(found[1]):
            continue
        if quality is None:  # of what is kept, so each is ranked once
            quality = _quality(model, held)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        table, at, fit_rows = found
        with torch.no_grad():
            table[at] = torch.lerp(table[at], turned(fit_rows.values, table[at]), said.share)
        if said.epochs and len(held.train):
            descend(agent, said, context, held.train, held.trained, [])
        reached = _quality(model, held)
        if reached > quality or not len(held.valid):
            quality = reached
        else:
            model.load_state_dict(before)
            sentence = f"what {name} told did not serve {agent.name}"
            agent.memory.note(Event(context.place, "filtered", "backtrack", rows.items, sentence))


def turned(rows: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return ``rows`` [n, D] under the rotation (or reflection) that brings them nearest to ``own`` [n, D]."""
    left, _, right = torch.linalg.svd(rows.double().T @ own.double())
    made: torch.Tensor = (rows.double() @ (left @ right)).float()
    return made


def _quality(model: Embedding, held: Share) -> float:
    if not len(held.valid):
        return 0.0
    ranks = ranking.rank(model, held.valid, held.known)
    return float(torch.cat([ranks.heads, ranks.tails]).reciprocal().mean())
