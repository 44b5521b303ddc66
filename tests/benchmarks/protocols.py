"""Published protocols as far as they can be had here: settings, published figures, and what an inquiry changes.

Facts are from the public documents and code of TsingZ0/PFLlib, TsingZ0/FedTGP and wuzhiyuan2000/FedCache, as
docs/fidelity.md says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from codistill.tasks.data.dataset import Ids

AGENTS = 20
CLASSES = 10
PATHOLOGICAL = "pathological"
"""Stands in a protocol for the partition that :func:`two_classes_each` makes and a file states."""


@dataclass(frozen=True)
class Method:
    """One row of a table: a shipped recipe, what a paper or leaderboard says it reached, and how it is set here."""

    recipe: str
    published: str = "–"
    figure: float | None = None
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Protocol:
    """One table: what all its runs have in common. ``reads`` is the accuracy that the source tells.

    ``total``: right answers over test samples; ``mean``: the mean of the agents' accuracies.
    """

    dataset: str
    partition: str
    rounds: int
    common: tuple[str, ...]
    methods: Mapping[str, Method]
    reads: Literal["total", "mean"] = "total"
    take: tuple[int, int] = (7000, 2333)


def train(lr: float, batch: int, more: str = "") -> tuple[str, ...]:
    """Return what sets local training: one epoch of plain SGD."""
    return (
        "recipe.train.epochs=1",
        f"recipe.train.batch={batch}",
        f"recipe.train.optimizer={{sgd: {{lr: {lr}{more}}}}}",
    )


PFLLIB = (f"agents=[{{name: client, count: {AGENTS}, model: fedavg-cnn}}]", *train(0.005, 10))
FEDPROTO = ("recipe.aggregate.weight=agents", "measure.predict=prototypes")
FEDTGP = (
    "recipe.aggregate.margin=nearest",
    "recipe.aggregate.optimizer={sgd: {lr: 0.005}}",
    "recipe.train.losses=[{prototypes: {prototype_weight: 10.0}}]",
    "measure.predict=prototypes",
)
FEDGEN = (
    "recipe.train.losses=[{generated: {generated_ce_weight: 1.0, kd_weight: 0.0, batch: 10, decay: 1.0, "
    "classes: by_count}}]",
    "recipe.aggregate={by: feature_generator, weight: samples, steps: 1000, batch: 10, noise: 512, hidden: 512, "
    "diversity_weight: 0.0, classes: by_count, optimizer: {adam: {lr: 0.005}}}",
)
GLOBAL_ROUNDS = "rounds=20"


def leaderboard(fd: str, proto: str, average: str, generator: str) -> dict[str, Method]:
    """Return the rows of PFLlib's leaderboard that there are recipes for, and the two that it lacks."""

    def first(text: str) -> float:
        return float(text.split()[0])

    return {
        "local": Method("local"),
        "FD": Method("fd", fd, first(fd)),
        "FedProto": Method("fedproto", proto, first(proto), FEDPROTO),
        "FedTGP": Method("fedtgp", "none", None, FEDTGP),
        "FedAvg": Method("fedavg", average, first(average), (GLOBAL_ROUNDS,)),
        "FedGen": Method("fedgen", generator, first(generator), (*FEDGEN, GLOBAL_ROUNDS)),
    }


def some(methods: Mapping[str, Method], *labels: str) -> dict[str, Method]:
    """Return some of the rows of a table."""
    return {label: methods[label] for label in labels}


def as_long(methods: Mapping[str, Method]) -> dict[str, Method]:
    """Return rows of a table without the rounds of their own: they last as long as the protocol says."""
    return {
        label: replace(method, said=tuple(one for one in method.said if one != GLOBAL_ROUNDS))
        for label, method in methods.items()
    }


def demo(model: str) -> tuple[str, ...]:
    """Return how FedCache's demo trains, with another model."""
    return (
        f"agents=[{{name: client, count: {AGENTS}, model: {model}}}]",
        *train(0.01, 8, ", momentum: 0.9, weight_decay: 0.0005"),
        "recipe.train.drop_last=true",
    )


FEDCACHE = ("recipe.train.losses=[{sample_logits: {kd_weight: 1.5, temperature: 3.0}}]",)


def cache(fd: float, fedcache: float) -> dict[str, Method]:
    """Return the rows of FedCache's README that there are recipes for."""
    return {
        "local": Method("local"),
        "FD": Method("fd", f"{fd:.2f}", fd),
        "FedCache": Method("fedcache", f"{fedcache:.2f}", fedcache, FEDCACHE),
    }


ON_MNIST, ON_FASHION = cache(84.19, 87.77), cache(76.32, 77.71)
DIRICHLET = "{by: dirichlet, alpha: 0.1, min_size: 1}"
MILD = "{by: dirichlet, alpha: 1.0, min_size: 10}"
FASHION_PATHOLOGICAL = leaderboard("99.51 ± 0.03", "99.49 ± 0.04", "80.41 ± 0.08", "79.76 ± 0.60")
FASHION_DIRICHLET = leaderboard("97.43 ± 0.04", "97.40 ± 0.02", "85.85 ± 0.19", "84.90 ± 0.31")
FASTER = train(0.05, 10)
"""Ten times PFLlib's learning rate: what more rounds would do, in the time there is."""

PROTOCOLS = {
    "pfllib-pathological": Protocol("fashion-mnist", PATHOLOGICAL, 15, PFLLIB, FASHION_PATHOLOGICAL),
    "pfllib-dirichlet": Protocol("fashion-mnist", DIRICHLET, 15, PFLLIB, FASHION_DIRICHLET, take=(3500, 1167)),
    "fedcache-mnist-cnn": Protocol("mnist", MILD, 12, demo("cnn"), ON_MNIST, "mean", (6000, 1000)),
    "fedcache-fashion-cnn": Protocol("fashion-mnist", MILD, 12, demo("cnn"), ON_FASHION, "mean", (6000, 1000)),
    "fedcache-mnist": Protocol("mnist", MILD, 12, demo("{resnet: {blocks: 1}}"), ON_MNIST, "mean", (4800, 1000)),
    # Inquiries: one thing changed.
    "more-samples": Protocol(
        "fashion-mnist", PATHOLOGICAL, 6, PFLLIB, some(FASHION_PATHOLOGICAL, "FedProto"), take=(28000, 2333)
    ),
    "other-draw": Protocol(
        "fashion-mnist",
        DIRICHLET,
        15,
        (*PFLLIB, "seed=2"),
        some(FASHION_DIRICHLET, "local", "FD", "FedProto"),
        take=(3500, 1167),
    ),
    "more-rounds": Protocol(
        "fashion-mnist",
        DIRICHLET,
        60,
        PFLLIB,
        some(FASHION_DIRICHLET, "local", "FD", "FedProto"),
        take=(7000, 1167),
    ),
    "all-samples": Protocol(
        "fashion-mnist",
        DIRICHLET,
        6,
        PFLLIB,
        some(FASHION_DIRICHLET, "local", "FD", "FedProto"),
        take=(52500, 10000),
    ),
    "faster": Protocol(
        "fashion-mnist",
        DIRICHLET,
        15,
        (*PFLLIB, *FASTER),
        some(FASHION_DIRICHLET, "FedAvg", "FedGen"),
        take=(3500, 1167),
    ),
    "faster-prototypes": Protocol(
        "fashion-mnist",
        DIRICHLET,
        60,
        (*PFLLIB, *FASTER),
        some(FASHION_DIRICHLET, "FedProto"),
        take=(7000, 1167),
    ),
    "faster-pathological": Protocol(
        "fashion-mnist",
        PATHOLOGICAL,
        30,
        (*PFLLIB, *FASTER),
        as_long(some(FASHION_PATHOLOGICAL, "FedAvg")),
        take=(14000, 2333),
    ),
    "faster-and-more": Protocol(
        "fashion-mnist",
        DIRICHLET,
        30,
        (*PFLLIB, *FASTER),
        as_long(some(FASHION_DIRICHLET, "FedAvg", "FedGen")),
        take=(14000, 1167),
    ),
}


def two_classes_each(labels: Ids, generator: np.random.Generator) -> list[Ids]:
    """Return the train ids of 20 agents of whom four share classes 0 and 1, four 2 and 3, and so on.

    This is PFLlib's unbalanced pathological partition: of each class the first three of its four holders get a
    size drawn evenly between a tenth of and a whole fair share, and the fourth the rest. ``labels`` int64 [N].
    """
    holders = AGENTS * 2 // CLASSES
    parts: list[list[Ids]] = [[] for _ in range(AGENTS)]
    for label in range(CLASSES):
        ids = generator.permutation(np.flatnonzero(labels == label).astype(np.int64))
        fair = len(ids) / holders
        ends = np.cumsum(generator.integers(max(1, int(fair / 10)), int(fair), holders - 1))
        first = label // 2 * holders
        for agent, piece in enumerate(np.split(ids, ends), start=first):
            parts[agent].append(piece)
    return [np.sort(np.concatenate(pieces)) for pieces in parts]
