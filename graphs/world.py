"""Triples as workers see them, and what each agent holds of the whole graph, by ids of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch

from ..tasks.agent import Agent, Context, World
from ..tasks.samples import shared
from .known import KnownTriples
from .triples import triple_keys

if TYPE_CHECKING:
    from .knowledge_graph import KnowledgeGraph

KEPT_MEASURED = 512
"""Triples that an agent keeps and that are ranked where these are measured: ranking all may cost more than training."""


@dataclass(frozen=True, eq=False)
class Share:
    """What one agent holds of the graph. A local id is a place in ``entities`` or ``relations``.

    ``entities`` int64 [e] and ``relations`` int64 [r] are global ids, rising. ``train``, ``valid``, ``test`` and
    ``unlearn`` int64 [N, 3] are of local ids; ``unlearn`` is a part of ``train``.
    """

    entities: torch.Tensor
    relations: torch.Tensor
    train: torch.Tensor
    valid: torch.Tensor
    test: torch.Tensor
    unlearn: torch.Tensor

    @cached_property
    def trained(self) -> KnownTriples:
        """The triples that are trained on: never negatives."""
        return KnownTriples(self.train, len(self.entities), len(self.relations))

    @cached_property
    def kept(self) -> torch.Tensor:
        """The triples that are trained on, less those that are to be forgotten, int64 [N, 3]."""
        if not len(self.unlearn):
            return self.train
        keys, gone = (triple_keys(t, len(self.entities), len(self.relations)) for t in (self.train, self.unlearn))
        return self.train[~torch.isin(keys, gone)]

    @cached_property
    def some_kept(self) -> torch.Tensor:
        """At most ``KEPT_MEASURED`` triples of ``kept``, from all over it, int64 [n, 3]: always the same ones."""
        count = min(len(self.kept), KEPT_MEASURED)
        return self.kept[torch.arange(count) * len(self.kept) // max(count, 1)]

    @cached_property
    def trained_kept(self) -> KnownTriples:
        """The triples of ``kept``: never negatives once the others are forgotten."""
        return KnownTriples(self.kept, len(self.entities), len(self.relations))

    @cached_property
    def known(self) -> KnownTriples:
        """All true triples of the agent, which do not compete where it is measured."""
        every = torch.cat([self.train, self.valid, self.test])
        return KnownTriples(every, len(self.entities), len(self.relations))


@dataclass(frozen=True)
class GraphWorld(World):
    """The graph, resident. ``x_train`` and ``x_test`` are int64 [N, 3] of global ids; labels are relations.

    ``holders``: ids of train, valid and test triples of each learner, by name. ``unlearn`` bool [N]: which train
    triples their holders are asked to forget.
    """

    x_valid: torch.Tensor = field(kw_only=True)
    unlearn: torch.Tensor = field(kw_only=True)
    entities: tuple[str, ...] = field(kw_only=True)
    holders: Mapping[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(kw_only=True)
    _shares: dict[str, Share] = field(default_factory=dict, kw_only=True)

    @property
    def bytes_each(self) -> int:
        """The bytes of one triple."""
        return 24

    def share(self, agent: Agent) -> Share:
        """Return what an agent holds, made once: its own triples, or for an aggregator every name and no triple."""
        if agent.name not in self._shares:
            self._shares[agent.name] = self._made(agent)
        return self._shares[agent.name]

    def _made(self, agent: Agent) -> Share:
        if agent.name not in self.holders:
            nothing = torch.empty(0, 3, dtype=torch.int64)
            test = self.x_test[agent.test_ids]
            return Share(torch.arange(len(self.entities)), torch.arange(self.classes), nothing, nothing, test, nothing)
        train_ids, valid_ids, test_ids = self.holders[agent.name]
        parts = (self.x_train[train_ids], self.x_valid[valid_ids], self.x_test[test_ids])
        entities, relations = _names(parts)
        local = [_local(part, entities, relations) for part in parts]
        return Share(entities, relations, local[0], local[1], local[2], local[0][self.unlearn[train_ids]])

    @cached_property
    def owners(self) -> dict[str, dict[str, torch.Tensor]]:
        """Who holds which entity and which relation: for ``entities`` and ``relations`` bool [E] and [R], by name."""
        found: dict[str, dict[str, torch.Tensor]] = {"entities": {}, "relations": {}}
        for name, (train, valid, test) in self.holders.items():
            ids = _names((self.x_train[train], self.x_valid[valid], self.x_test[test]))
            for what, size, held in zip(found, (len(self.entities), self.classes), ids, strict=True):
                found[what][name] = torch.zeros(size, dtype=torch.bool)
                found[what][name][held] = True
        return found

    @cached_property
    def owner_counts(self) -> dict[str, torch.Tensor]:
        """How many learners hold each entity and each relation, int64 [E] and [R]."""
        return {what: torch.stack(list(held.values())).sum(0) for what, held in self.owners.items()}


def _names(parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    every = torch.cat(parts)
    return torch.unique(every[:, [0, 2]]), torch.unique(every[:, 1])


def _local(triples: torch.Tensor, entities: torch.Tensor, relations: torch.Tensor) -> torch.Tensor:
    tables = (entities, relations, entities)
    return torch.stack([torch.searchsorted(t, triples[:, i].contiguous()) for i, t in enumerate(tables)], dim=1)


def world_of(
    data: KnowledgeGraph, holders: Mapping[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]], **common: Any
) -> GraphWorld:
    """Return the graph ``data`` as tensors over its arrays."""
    unlearn = data.columns_train.get("unlearn")
    x = {part: shared(getattr(data, f"x_{part}")) for part in ("train", "valid", "test")}
    return GraphWorld(
        x["train"],
        x["train"][:, 1],
        x["test"],
        x["test"][:, 1],
        **common,
        x_valid=x["valid"],
        unlearn=torch.zeros(len(x["train"]), dtype=torch.bool) if unlearn is None else shared(unlearn),
        entities=data.entities,
        holders=holders,
    )


def graph_of(context: Context) -> GraphWorld:
    """Return the world of a run over triples."""
    return cast(GraphWorld, context.world)
