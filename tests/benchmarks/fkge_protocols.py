"""What the runs of docs/fkge.md are: the graphs and their clients, the methods, and what all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PATTERNS = {
    "star": "pattern=distributed",
    "tree": "pattern={hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}",
    "peers": "pattern={decentralized: {graph: ring}}",
}
"""One server; two edges under a cloud; a ring, in which each agent hears two others."""
PAIRS = "pattern={decentralized: {graph: pairs}}"
"""Peers of FKGE, which meet two by two."""


@dataclass(frozen=True)
class Method:
    """A recipe as it is run.

    ``width`` and ``companion`` are the dimensions of model and companion over the protocol's; ``aside`` names places
    besides the training whose settings follow it; ``against`` is the label whose clients a gain is taken over.
    """

    recipe: str
    against: str | None = "local"
    width: float = 1.0
    companion: float | None = None
    aside: tuple[str, ...] = ()
    partition: str | None = None
    pattern: Mapping[str, str] = field(default_factory=lambda: PATTERNS)


ALONE = {"any": "pattern=distributed"}
EVENLY = "{by: uniform}"
METHODS = {
    "local": Method("local-kge", None, pattern=ALONE),
    "collective": Method("local-kge", pattern={"one agent": "pattern=distributed"}),
    "fede": Method("fede"),
    "fedec": Method("fedec"),
    "fedlu": Method("fedlu", companion=1.0),
    "feds": Method("feds"),
    "fkge": Method("fkge", aside=("recipe.absorb.",), pattern={"peers": PAIRS}),
    "local, half as wide": Method("local-kge", None, width=0.5, pattern=ALONE),
    "fedkd-kge": Method("fedkd-kge", "local, half as wide", width=0.5, companion=1.0),
    "local, dealt evenly": Method("local-kge", None, partition=EVENLY, pattern=ALONE),
    "fedr, dealt evenly": Method("fedr", "local, dealt evenly", partition=EVENLY),
    "fede, dealt evenly": Method("fede", "local, dealt evenly", partition=EVENLY, pattern={"star": PATTERNS["star"]}),
}
"""Every shipped recipe but unlearning. Where relations are dealt out nobody shares one, so FedR needs another cut."""


@dataclass(frozen=True)
class Protocol:
    """A graph, its clients, what every method does with them, and which methods.

    ``patterns``: which patterns, or the star alone. ``seeds``: seed 1 to this unless asked otherwise.
    """

    title: str
    dataset: str
    partition: str
    clients: int
    rounds: int
    train: Mapping[str, float]
    methods: tuple[str, ...]
    every: int = 5
    dimension: int = 64
    score: str = "transe"
    margin: float = 8.0
    patterns: bool = False
    seeds: int = 3

    def overrides(self, name: str, label: str, said: str, seed: int, rounds: int | None = None) -> list[str]:
        """Return what makes the shared spec the run of method ``label`` under the pattern ``said``."""
        method = METHODS[label]
        count = 1 if label == "collective" else self.clients
        partition = "{by: relation}" if label == "collective" else method.partition or self.partition
        made = [
            f"name={name}-{label.replace(', ', '-').replace(' ', '-')}",
            f"seed={seed}",
            f"rounds={rounds or self.rounds}",
            f"data.dataset={self.dataset}",
            f"data.partition={partition}",
            f"agents[0].count={count}",
            f"agents[0].model={self._model(method.width)}",
            f"measure.every={self.every}",
            said,
            f"recipe={method.recipe}",
        ]
        for key, value in self.train.items():
            made.append(f"recipe.train.{key}={value}")
            made += [f"{place}{key}={value}" for place in method.aside if key != "epochs"]
        if method.companion is not None:
            made.append(f"recipe.companion={self._model(method.companion)}")
        return made

    def _model(self, width: float) -> str:
        return f"{{{self.score}: {{dimension: {round(width * self.dimension)}, margin: {self.margin}}}}}"


FB_TRAIN = {"epochs": 1, "lr": 0.005, "negatives": 64, "batch": 512}
FB_METHODS = ("local", "fede", "fedlu", "collective")
PROTOCOLS = {
    "codex": Protocol(
        title="CoDEx-S, six clients by relation",
        dataset="codex",
        partition="{by: relation}",
        clients=6,
        rounds=20,
        train={"epochs": 2, "lr": 0.01, "negatives": 64, "batch": 512},
        methods=tuple(METHODS),
        margin=4.0,
        patterns=True,
    ),
    "fb15k237-3": Protocol(
        title="FB15k-237, three clients by relation",
        dataset="fb15k237",
        partition="{by: relation}",
        clients=3,
        rounds=40,
        train=FB_TRAIN,
        methods=FB_METHODS,
        every=10,
    ),
    "fb15k237-r10": Protocol(
        title="FB15k-237-R10FL, FedLU's ten clients",
        dataset="fb15k237-r10",
        partition="{by: column, column: client}",
        clients=10,
        rounds=40,
        train=FB_TRAIN,
        methods=FB_METHODS,
        every=10,
    ),
}
