"""Who may talk to whom. A pattern knows agents by their place in a list and knows no method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import networkx as nx
import numpy as np
from pydantic import Field, model_validator

from .choice import Choice, choice
from .models import MODELS
from .parameters import Name, Parameters
from .registry import Registry

Edges = list[tuple[int, int]]

if TYPE_CHECKING:
    ModelChoice = Choice
else:
    ModelChoice = choice("Model", MODELS, "The model of an agent.")

GRAPHS: Registry[Callable[..., Edges]] = Registry("graphs")
PATTERNS: Registry[Callable[..., Topology]] = Registry("patterns")


class Plain(Parameters):
    """Nothing to choose."""


class KRegular(Parameters):
    """A random graph in which every agent has the same number of neighbours."""

    degree: Annotated[int, Field(ge=1)] = Field(4, description="neighbours of each agent")
    redraw: bool = Field(False, description="a new graph each round")


class ErdosRenyi(Parameters):
    """A random graph."""

    probability: Annotated[float, Field(gt=0, le=1)] = Field(0.3, description="of a link between two agents")
    redraw: bool = Field(False, description="a new graph each round")


class Exponential(Parameters):
    """Links over distances that double."""

    redraw: bool = Field(True, description="one of the distances, drawn anew each round; if not, all of them always")


class EdgeList(Parameters):
    """Links by name."""

    links: list[tuple[str, str]] = Field(min_length=1, description="pairs of agents' names; links go both ways")


@GRAPHS.register("ring", Plain)
def ring(parameters: Plain, names: list[str], generator: np.random.Generator) -> Edges:
    """Each agent has two neighbours."""
    return _clean((i, (i + 1) % len(names)) for i in range(len(names)))


@GRAPHS.register("torus", Plain)
def torus(parameters: Plain, names: list[str], generator: np.random.Generator) -> Edges:
    """A grid that closes on itself, as square as the number of agents allows: four neighbours each."""
    count = len(names)
    rows = max(d for d in range(1, int(count**0.5) + 1) if count % d == 0)
    grid = nx.grid_2d_graph(rows, count // rows, periodic=True)
    width = count // rows
    return _clean((a * width + b, c * width + d) for (a, b), (c, d) in grid.edges)


@GRAPHS.register("k-regular", KRegular)
def k_regular(parameters: KRegular, names: list[str], generator: np.random.Generator) -> Edges:
    """A random connected graph with the same number of neighbours for every agent."""
    count, degree = len(names), parameters.degree
    if degree >= count or degree * count % 2:
        raise ValueError(
            f"a {degree}-regular graph over {count} agents does not exist: the degree must be below the number of "
            "agents and degree x agents even"
        )
    return _connected(lambda seed: nx.random_regular_graph(degree, count, seed), generator)


@GRAPHS.register("erdos-renyi", ErdosRenyi)
def erdos_renyi(parameters: ErdosRenyi, names: list[str], generator: np.random.Generator) -> Edges:
    """Each pair is linked with the same probability; drawn anew until the graph is connected."""
    return _connected(lambda seed: nx.gnp_random_graph(len(names), parameters.probability, seed), generator)


@GRAPHS.register("complete", Plain)
def complete(parameters: Plain, names: list[str], generator: np.random.Generator) -> Edges:
    """Everybody talks to everybody."""
    return [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]


@GRAPHS.register("edges", EdgeList)
def edges(parameters: EdgeList, names: list[str], generator: np.random.Generator) -> Edges:
    """The links that the spec lists."""
    at = {name: index for index, name in enumerate(names)}
    unknown = sorted({end for pair in parameters.links for end in pair} - set(at))
    if unknown:
        raise ValueError(f"no agent is called {', '.join(unknown)}; the agents are {', '.join(names)}")
    return _clean((at[a], at[b]) for a, b in parameters.links)


@GRAPHS.register("pairs", Plain)
def pairs(parameters: Plain, names: list[str], generator: np.random.Generator) -> Edges:
    """Random pairs, drawn anew each round; with an odd number one agent rests."""
    order = generator.permutation(len(names)).tolist()
    return _clean(zip(order[::2], order[1::2], strict=False))


@GRAPHS.register("exponential", Exponential)
def exponential(parameters: Exponential, names: list[str], generator: np.random.Generator) -> Edges:
    """Agents on a ring reach over 1, 2, 4, ... others, at one of these distances each round (Ying et al. 2021)."""
    count = len(names)
    distances = [2**power for power in range((count - 1).bit_length())]
    if parameters.redraw:
        distances = [distances[int(generator.integers(len(distances)))]]
    return _clean((i, (i + distance) % count) for distance in distances for i in range(count))


def _clean(links: object) -> Edges:
    return sorted({(min(a, b), max(a, b)) for a, b in links if a != b})  # type: ignore[attr-defined]


def _connected(draw: Callable[[int], nx.Graph], generator: np.random.Generator, tries: int = 200) -> Edges:
    for _ in range(tries):
        graph = draw(int(generator.integers(2**31)))
        if nx.is_connected(graph):
            return _clean(graph.edges)
    raise ValueError(f"{tries} draws gave no connected graph; ask for more links")


if TYPE_CHECKING:
    GraphChoice = Choice
else:
    GraphChoice = choice("Graph", GRAPHS, "The links between peers.")


class Server(Parameters):
    """The agent in the middle of a star."""

    name: Name = "server"
    model: ModelChoice | None = Field(None, description="a model of its own, where the recipe has use for one")


class Distributed(Parameters):
    """A star: agents and one server."""

    server: Server = Field(default_factory=Server, description="the aggregator")


class Tier(Parameters):
    """One layer of aggregators."""

    name: Name = Field(description="agents of the tier are called name-1, name-2, ...")
    count: Annotated[int, Field(ge=1)] = 1
    model: ModelChoice | None = Field(None, description="a model of its own, where the recipe has use for one")


class Hierarchical(Parameters):
    """A tree of any depth."""

    tiers: list[Tier] = Field(
        min_length=1, description="from the tier above the learners to the top, which has one agent"
    )
    forward: Literal["merged", "own"] = Field(
        "merged",
        description="what a tier sends on: what it merged, or what its own model says after absorbing",
    )

    @model_validator(mode="after")
    def _shape(self) -> Hierarchical:
        if self.tiers[-1].count != 1:
            raise ValueError("the last tier is the top of the tree and has exactly one agent")
        counts = [tier.count for tier in self.tiers]
        if any(upper > lower for lower, upper in zip(counts, counts[1:], strict=False)):
            raise ValueError("a tier has no more agents than the one below it")
        if len({tier.name for tier in self.tiers}) < len(self.tiers):
            raise ValueError("two tiers have the same name")
        return self


class Decentralized(Parameters):
    """Peers and their links."""

    graph: GraphChoice = Field(
        default_factory=lambda: GraphChoice.model_validate("ring"), description="who is whose neighbour"
    )


@dataclass(frozen=True)
class Aggregator:
    """An agent without private data: its name, its tier (0 is nearest the learners), its parent's place or None."""

    name: str
    tier: int
    tier_name: str
    parent: int | None
    model: Choice | None


@dataclass(frozen=True)
class Topology:
    """``parents[i]``: the place of learner i's parent in ``aggregators``; empty where peers talk by themselves."""

    aggregators: tuple[Aggregator, ...]
    parents: tuple[int, ...]
    tiers: int
    forward: Literal["merged", "own"] = "merged"


def _shares(children: int, parents: int) -> list[int]:
    """Divide ``children`` places evenly over ``parents``, neighbours together."""
    return [index * parents // children for index in range(children)]


@PATTERNS.register("distributed", Distributed)
def distributed(parameters: Distributed, learners: int) -> Topology:
    """A star: every agent talks to one server."""
    server = Aggregator(parameters.server.name, 0, "server", None, parameters.server.model)
    return Topology((server,), (0,) * learners, 1)


@PATTERNS.register("hierarchical", Hierarchical)
def hierarchical(parameters: Hierarchical, learners: int) -> Topology:
    """A tree: agents talk to an edge, edges to the tier above, up to the top and back."""
    tiers = parameters.tiers
    if tiers[0].count > learners:
        raise ValueError(f"the tier {tiers[0].name!r} has {tiers[0].count} agents for {learners} learners below it")
    starts = np.cumsum([0, *(tier.count for tier in tiers)]).tolist()
    made: list[Aggregator] = []
    for level, tier in enumerate(tiers):
        above = _shares(tier.count, tiers[level + 1].count) if level + 1 < len(tiers) else [None]
        for index, parent in enumerate(above):
            place = None if parent is None else starts[level + 1] + parent
            name = tier.name if tier.count == 1 else f"{tier.name}-{index + 1}"
            made.append(Aggregator(name, level, tier.name, place, tier.model))
    return Topology(tuple(made), tuple(_shares(learners, tiers[0].count)), len(tiers), parameters.forward)


@PATTERNS.register("decentralized", Decentralized)
def decentralized(parameters: Decentralized, learners: int) -> Topology:
    """Peers: agents talk to their neighbours in a graph, and nobody stands in the middle."""
    if learners < 2:
        raise ValueError("peers need at least two agents")
    return Topology((), (), 0)


if TYPE_CHECKING:
    PatternChoice = Choice
else:
    PatternChoice = choice("Pattern", PATTERNS, "Who may talk to whom.")


def changes(graph: Choice) -> bool:
    """Whether the graph is drawn anew each round."""
    return graph.name == "pairs" or bool(getattr(graph.parameters, "redraw", False))
