"""``codistill list``: what can be said, one a line with its sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from ...graphs.encoders import ENCODERS
from ...graphs.terms import GRAPH_TERMS
from ...specs.library import RECIPES, find_spec, recipe_names, spec_names
from ...specs.tree import plain, read
from ...tasks.absorb import ABSORBS
from ...tasks.aggregate import AGGREGATES
from ...tasks.data import DATASETS, PARTITIONERS
from ...tasks.encoding import ENCODINGS
from ...tasks.extract import EXTRACTS
from ...tasks.filters import FILTERS
from ...tasks.keys import KEYS
from ...tasks.kinds import DATA_KINDS
from ...tasks.memory import MEANINGS
from ...tasks.models import MODELS
from ...tasks.operations import OPERATIONS
from ...tasks.optimizers import OPTIMIZERS
from ...tasks.patterns import GRAPHS, PATTERNS
from ...tasks.registry import Registry
from ...tasks.retrievals import RETRIEVALS
from ...tasks.stores import EVICTIONS
from ...tasks.terms import TERMS
from ...tasks.trackers import TRACKERS
from ...tasks.train import TRAINS
from ...tasks.valence import VALENCES

Lines = Iterable[tuple[str, str]]


def _each(*registries: Registry[Any]) -> Lines:
    return ((entry.name, entry.sentence) for registry in registries for entry in registry)


def _of(registry: Registry[Any]) -> Callable[[], Lines]:
    return lambda: _each(registry)


def _recipes() -> Lines:
    for name in recipe_names():
        node, _ = read(RECIPES / f"{name}.yaml")
        yield name, plain(node)["cite"] if node is not None else ""


def _specs() -> Lines:
    for name in spec_names():
        node, _ = read(find_spec(name))
        data = plain(node) if node is not None else {}
        recipe = data["recipe"] if isinstance(data["recipe"], str) else data["recipe"].get("use", "its own steps")
        agents = sum(group.get("count", 1) for group in data["agents"])
        yield name, f"{recipe}, {agents} agents, {data['rounds']} rounds"


def _operations() -> Lines:
    for name, (function, _) in OPERATIONS.items():
        yield name, " ".join((function.__doc__ or "").split("\n\n")[0].split())


KINDS: dict[str, Callable[[], Lines]] = {
    "recipes": _recipes,
    "specs": _specs,
    "operations": _operations,
    "datasets": _of(DATASETS),
    "partitioners": lambda: _each(PARTITIONERS, *(kind.function.partitioners for kind in DATA_KINDS)),
    "models": _of(MODELS),
    "patterns": _of(PATTERNS),
    "graphs": _of(GRAPHS),
    "extracts": _of(EXTRACTS),
    "aggregates": _of(AGGREGATES),
    "absorbs": _of(ABSORBS),
    "trains": _of(TRAINS),
    "terms": _of(TERMS),
    "graph-terms": _of(GRAPH_TERMS),
    "encoders": _of(ENCODERS),
    "encodings": _of(ENCODINGS),
    "memories": MEANINGS.items,
    "retrievals": _of(RETRIEVALS),
    "evictions": _of(EVICTIONS),
    "keys": _of(KEYS),
    "filters": _of(FILTERS),
    "valences": _of(VALENCES),
    "optimizers": _of(OPTIMIZERS),
    "trackers": _of(TRACKERS),
    "metrics": lambda: _each(*(kind.function.metrics for kind in DATA_KINDS)),
}


def list_command(what: str) -> None:
    """Print the names of a kind; exit with status 2 where there is no such kind."""
    if what not in KINDS:
        print(f"there is no list of {what!r}; expected one of {', '.join(KINDS)}", file=sys.stderr)
        raise SystemExit(2)
    lines = list(KINDS[what]())
    width = max(len(name) for name, _ in lines)
    for name, sentence in lines:
        print(f"{name:<{width}}  {sentence}")
