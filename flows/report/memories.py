"""What agents held, how their stores served, and what happened to what came in: figures from a run's tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .text import bytes_text, count_text, natural_key

if TYPE_CHECKING:
    from .results import Results

EVENTS = ("filtered", "refused", "evicted", "forgotten", "kept", "unlearned")


@dataclass
class StoreFigures:
    """One declared store on all agents of a role: what they hold as of each one's last row, and how it served.

    ``hits`` to ``evicted`` are sums over the run; ``mean_age`` is in rounds, each row weighing by its hits.
    """

    store: str
    role: str
    kind: str
    agents: list[str] = field(default_factory=list)
    items: int = 0
    bytes: int = 0
    hits: int = 0
    misses: int = 0
    ages: float = 0.0
    refused: int = 0
    evicted: int = 0

    @property
    def hit_rate(self) -> float | None:
        """The share of what was asked for that was found; None where nothing was asked for."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

    @property
    def mean_age(self) -> float | None:
        """Rounds since what was retrieved was made; None where nothing was."""
        return self.ages / self.hits if self.hits else None


@dataclass
class EventFigures:
    """What happened at one step, to one thing, on all agents of a role: how often on which agent, and what was said."""

    what: str
    step: str
    role: str
    about: str
    first: int
    last: int
    by_agent: dict[str, int] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Rows, or models, in all."""
        return sum(self.by_agent.values())


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def carried(memory: pa.Table) -> pa.Table:
    """Return a memory table in which whoever rests in a round holds what it held, but for its working memory.

    A run writes down what an agent holds in the rounds in which it does something.
    """
    told: dict[str, dict[int, dict[str, tuple[str, int, int]]]] = {}
    for number, agent, role, kind, items, size in _rows(memory):
        told.setdefault(agent, {}).setdefault(number, {})[kind] = (role, items, size)
    rows: list[tuple[Any, ...]] = []
    holding: dict[str, dict[str, tuple[str, int, int]]] = {}
    for number in sorted({number for by_round in told.values() for number in by_round}):
        for agent, by_round in told.items():
            resting = {kind: held for kind, held in holding.get(agent, {}).items() if kind != "working"}
            holding[agent] = by_round.get(number, resting)
            rows += [(number, agent, role, kind, *sizes) for kind, (role, *sizes) in holding[agent].items()]
    columns = list(zip(*rows, strict=True)) or [()] * len(memory.schema)
    arrays = [pa.array(column, each.type) for column, each in zip(columns, memory.schema, strict=True)]
    return pa.table(arrays, memory.schema)


def store_figures(results: Results, by_role: bool = True) -> list[StoreFigures]:
    """Give the figures of each store, by the role of those who have it or (not ``by_role``) over all agents."""
    found: dict[tuple[str, str], StoreFigures] = {}
    last: dict[tuple[str, str], tuple[StoreFigures, int, int]] = {}
    table = results.stores.sort_by([("round", "ascending")])
    for _, agent, role, store, kind, items, size, hits, misses, age, refused, evicted in _rows(table):
        where = role if by_role else ""
        said = found.setdefault((store, where), StoreFigures(store, where, kind))
        said.hits, said.misses = said.hits + hits, said.misses + misses
        said.refused, said.evicted = said.refused + refused, said.evicted + evicted
        said.ages += hits * age if hits and math.isfinite(age) else 0.0
        last[agent, store] = (said, items, size)
    told = {(said.about, said.role): said.count for said in event_figures(results) if said.what == "refused"}
    for (agent, _), (said, items, size) in last.items():
        said.agents.append(agent)
        said.items, said.bytes = said.items + items, said.bytes + size
    for said in found.values():  # a store counts what it refused; events also what lacked a key and never reached it
        where = [role for _, role in told if said.role in ("", role)]
        said.refused = max(said.refused, sum(told.get((said.store, role), 0) for role in set(where)))
    order = roles(results)
    return sorted(found.values(), key=lambda said: (natural_key(said.store), order.index(said.role) if by_role else 0))


def roles(results: Results) -> list[str]:
    """List the roles of a run: learners first, then tiers in the order of the plan."""
    known = [agent.role for agent in results.agents()]
    told = [*results.memory.column("role").to_pylist(), *results.stores.column("role").to_pylist()]
    return list(dict.fromkeys([*known, *sorted(set(told))]))


def served_by_round(results: Results) -> dict[str, list[tuple[int, float, float | None]]]:
    """Give store -> (round, hit rate, mean age of what was retrieved or None), for rounds in which it was asked."""
    sums: dict[str, dict[int, tuple[int, int, float]]] = {}
    for number, _, _, store, _, _, _, hits, misses, age, _, _ in _rows(results.stores):
        if hits + misses:
            before = sums.setdefault(store, {}).get(number, (0, 0, 0.0))
            aged = hits * age if hits and math.isfinite(age) else 0.0
            sums[store][number] = (before[0] + hits, before[1] + misses, before[2] + aged)
    return {
        store: [(n, h / (h + m), ages / h if h else None) for n, (h, m, ages) in sorted(by_round.items())]
        for store, by_round in sorted(sums.items())
    }


def hit_rate(results: Results) -> float | None:
    """Give the share of all that was asked of stores and was found; None where nothing was asked."""
    figures = store_figures(results, by_role=False)
    hits, asked = sum(said.hits for said in figures), sum(said.hits + said.misses for said in figures)
    return hits / asked if asked else None


def event_figures(results: Results) -> list[EventFigures]:
    """Give what happened by what, step, role and what it is about, in that order, and greatest first."""
    role_of = {agent.name: agent.role for agent in results.agents()}
    found: dict[tuple[str, ...], EventFigures] = {}
    for number, agent, step, what, about, count, sentence in _rows(results.events):
        role = role_of.get(agent, "learner")
        said = found.setdefault((what, step, role, about), EventFigures(what, step, role, about, number, number))
        said.first, said.last = min(said.first, number), max(said.last, number)
        said.by_agent[agent] = said.by_agent.get(agent, 0) + count
        if sentence and sentence not in said.sentences:
            said.sentences.append(sentence)
    place = {what: index for index, what in enumerate(EVENTS)}
    return sorted(found.values(), key=lambda said: (place.get(said.what, len(place)), -said.count, said.step))


def event_counts(results: Results) -> dict[str, int]:
    """Give how many rows, or models, were filtered, refused, evicted, forgotten, and kept where they should not be."""
    counts = dict.fromkeys(EVENTS, 0)
    for said in event_figures(results):
        counts[said.what] = counts.get(said.what, 0) + said.count
    return {what: count for what, count in counts.items() if count}


def held_by_role_and_kind(results: Results) -> dict[str, dict[str, dict[int, int]]]:
    """Give role -> kind -> round -> bytes, over all agents of the role."""
    found: dict[str, dict[str, dict[int, int]]] = {role: {} for role in roles(results)}
    for number, _, role, kind, _, size in _rows(results.held):
        by_round = found[role].setdefault(kind, {})
        by_round[number] = by_round.get(number, 0) + size
    return {role: kinds for role, kinds in found.items() if kinds}


def capacity_text(declared: Mapping[str, Any]) -> str:
    """Write the capacity that a declaration gives a store: `100 items`, `64MiB`, `no bound`."""
    capacity = declared.get("capacity") or {}
    items, size = capacity.get("items"), capacity.get("bytes")
    if items is not None:
        return f"{count_text(items)} items"
    return "no bound" if size is None else size if isinstance(size, str) else bytes_text(size)


def choice_text(declared: Mapping[str, Any], key: str) -> str:
    """Write the eviction or the encoding of a declaration; what is chosen in it follows."""
    said = declared.get(key, "–")
    if not isinstance(said, dict):
        return str(said)
    name, chosen = next(iter(said.items()))
    return " ".join([name, *(f"{option} {value}" for option, value in (chosen or {}).items())])
