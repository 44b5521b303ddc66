"""The kind of data ``triples``: facts of a knowledge graph, which an embedding scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ..tasks.kinds import DATA_KINDS
from ..tasks.late import late
from ..tasks.measure import Nothing
from .encoders import Widths
from .knowledge_graph import KnowledgeGraph, restored
from .metrics import RANK_METRICS
from .partition import GRAPH_PARTITIONERS

if TYPE_CHECKING:
    import torch

    from ..tasks.agent import Agent, Context, World
    from ..tasks.kinds import Arrays
    from . import embedding, encoded, ranking, some_shared, structure, world
    from .models import EmbeddingArchitecture
else:
    embedding = late("codistill.graphs.embedding")
    encoded = late("codistill.graphs.encoded")
    ranking = late("codistill.graphs.ranking")
    some_shared = late("codistill.graphs.some_shared")
    structure = late("codistill.graphs.structure")
    world = late("codistill.graphs.world")


@DATA_KINDS.register("triples", Nothing)
class Facts:
    """Head, relation and tail: facts of a knowledge graph."""

    unit = "triples"
    metrics = RANK_METRICS
    partitioners = GRAPH_PARTITIONERS

    @staticmethod
    def restore(description: Mapping[str, Any], arrays: Arrays) -> KnowledgeGraph:
        """Return the graph that was prepared with this description and these arrays."""
        return restored(description, arrays)

    @staticmethod
    def world(data: KnowledgeGraph, holders: Mapping[str, Any], **common: Any) -> World:
        """Return the graph as tensors over the arrays of ``data``."""
        return world.world_of(data, holders, **common)

    @staticmethod
    def build(
        one: EmbeddingArchitecture, generator: torch.Generator, agent: Agent, here: World, alike: bool
    ) -> torch.nn.Module:
        """Return a row for each entity and relation that the agent holds.

        ``alike``: rows are drawn for all names, so that agents who hold the same name begin with the same row.
        An encoder hears through the triples that the agent trains on, but not through those that it is asked to forget:
        what it lets go of must not stand in its graph.
        """
        held = cast("world.GraphWorld", here).share(agent)

        def drawn(entities: int, relations: int) -> embedding.Embedding:
            return embedding.Embedding(entities, relations, one.dimension, one.score, generator, margin=one.margin)

        own = drawn(len(held.entities), len(held.relations))
        if alike:
            generator.manual_seed(generator.initial_seed())
            whole = drawn(one.input_shape[0], one.classes)
            own.entities.data = whole.entities.data[held.entities]
            own.relations.data = whole.relations.data[held.relations]
        if one.encoder is not None:
            graph = structure.message_graph(held.kept, len(held.entities), len(held.relations))
            widths = Widths(one.width("entities"), one.width("relations"))
            own.encoder = encoded.graph_encoder(one.encoder, graph, widths, generator)
        return own

    @staticmethod
    def measure(agent: Agent, metrics: Sequence[str], predict: str, context: Context) -> dict[str, tuple[float, int]]:
        """Return each metric of the ranks of an agent's triples, among the entities that it holds, and their number.

        Most metrics are of test triples; those of a part that an agent has nothing of are left out.
        """
        held, model = world.graph_of(context).share(agent), agent.models["model"]
        found: dict[str, tuple[float, int]] = {}
        for part in dict.fromkeys(RANK_METRICS[name].parameters().part for name in metrics):  # type: ignore[attr-defined]
            triples = getattr(held, part)
            if not len(triples):
                continue
            ranks = ranking.rank(cast("embedding.Embedding", model), triples, held.known)
            of_part = [RANK_METRICS[name] for name in metrics]
            of_part = [one for one in of_part if one.parameters().part == part]  # type: ignore[attr-defined]
            found |= {one.name: (one.function(ranks), len(triples)) for one in of_part}
        return {name: found[name] for name in metrics if name in found}

    @staticmethod
    def drawn(agent: Agent, context: Context) -> dict[str, torch.Tensor]:
        """Return the rows of some entities that the agent shares with others; the same entities in every round."""
        return some_shared.rows(agent, context)
