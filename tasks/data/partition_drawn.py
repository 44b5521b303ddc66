"""Partitions that are drawn: evenly, by class, by size."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..parameters import Parameters
from .dataset import Columns, Ids
from .partition import PARTITIONERS, Partition, check_enough, cut_test, split_evenly
from .stratify import apportion

TRIES = 10_000


class IidParameters(Parameters):
    """Nothing can be chosen."""


class DirichletParameters(Parameters):
    """How unlike the agents' classes are."""

    alpha: float = Field(gt=0, le=1e6, description="Concentration: the smaller, the fewer classes an agent has.")
    min_size: int = Field(10, ge=1, description="Train samples that every agent has at least.")
    min_test: int = Field(1, ge=0, description="Test samples that every agent has at least.")
    balance: bool = Field(True, description="An agent that has its fair share of samples gets no further class.")
    seed: int | None = Field(None, ge=0, description="Draw with this seed instead of the run's.")


class ShardsParameters(Parameters):
    """How many classes each agent holds."""

    classes_per_agent: int = Field(2, ge=1, description="Classes that every agent holds.")


class QuantityParameters(Parameters):
    """How unlike the agents' numbers of samples are."""

    alpha: float = Field(gt=0, le=1e6, description="Concentration: the smaller, the more unequal the sizes.")
    min_size: int = Field(10, ge=1, description="Train samples that every agent has at least.")


def _all(labels: Ids) -> Ids:
    return np.arange(len(labels), dtype=np.int64)


@PARTITIONERS.register("iid", IidParameters)
def iid(
    parameters: IidParameters,
    train_labels: Ids,
    test_labels: Ids,
    columns_train: Columns,
    columns_test: Columns,
    agents: int,
    generator: np.random.Generator,
) -> Partition:
    """Every agent draws alike, and all have the same number of samples to within one."""
    check_enough("iid", agents, len(train_labels))
    train = [np.sort(part) for part in split_evenly(generator.permutation(_all(train_labels)), agents)]
    test = cut_test(train, train_labels, test_labels, generator, _all(test_labels))
    return Partition(tuple(train), tuple(test))


@PARTITIONERS.register("quantity", QuantityParameters)
def quantity(
    parameters: QuantityParameters,
    train_labels: Ids,
    test_labels: Ids,
    columns_train: Columns,
    columns_test: Columns,
    agents: int,
    generator: np.random.Generator,
) -> Partition:
    """Agents draw alike, but have unequal numbers of samples: min_size each, the rest by Dirichlet(alpha)."""
    size = len(train_labels)
    check_enough("quantity", agents, size, parameters.min_size)
    shares = _dirichlet(parameters.alpha, agents, generator)
    sizes = parameters.min_size + apportion(shares, size - agents * parameters.min_size)
    pieces = np.split(generator.permutation(_all(train_labels)), np.cumsum(sizes)[:-1])
    train = [np.sort(piece) for piece in pieces]
    test = cut_test(train, train_labels, test_labels, generator, _all(test_labels))
    return Partition(tuple(train), tuple(test))


@PARTITIONERS.register("shards", ShardsParameters)
def shards(
    parameters: ShardsParameters,
    train_labels: Ids,
    test_labels: Ids,
    columns_train: Columns,
    columns_test: Columns,
    agents: int,
    generator: np.random.Generator,
) -> Partition:
    """Every agent holds exactly classes_per_agent classes, and a class is divided evenly among its holders.

    After the shards of McMahan et al. 2017, but with whole classes: no shard straddles two. Raises ``ValueError``
    if a class would be nobody's, or has fewer samples than holders.
    """
    check_enough("shards", agents, len(train_labels))
    each = parameters.classes_per_agent
    present = np.flatnonzero(np.bincount(train_labels))
    if not len(present) / agents <= each <= len(present):
        raise ValueError(
            f"shards: {agents} agents with {each} classes each cannot hold {len(present)} classes; classes_per_agent "
            f"must be between {-(-len(present) // agents)} and {len(present)}"
        )
    holders = _deal(len(present), agents, each, generator)
    train: list[list[Ids]] = [[] for _ in range(agents)]
    for label, agents_of_label in zip(present, holders, strict=True):
        ids = generator.permutation(np.flatnonzero(train_labels == label).astype(np.int64))
        if len(ids) < len(agents_of_label):
            raise ValueError(
                f"shards: class {label} has {len(ids)} train samples for {len(agents_of_label)} agents; lower "
                "classes_per_agent or the number of agents"
            )
        for agent, piece in zip(agents_of_label, split_evenly(ids, len(agents_of_label)), strict=True):
            train[agent].append(piece)
    together = [np.sort(np.concatenate(pieces)) for pieces in train]
    test = cut_test(together, train_labels, test_labels, generator, _all(test_labels))
    return Partition(tuple(together), tuple(test))


def _deal(classes: int, agents: int, each: int, generator: np.random.Generator) -> list[list[int]]:
    """Return the agents that hold each class: every agent ``each`` classes, all classes equally often to within 1."""
    holders: list[list[int]] = [[] for _ in range(classes)]
    for agent in generator.permutation(agents):
        ties = generator.permutation(classes)
        for label in sorted(range(classes), key=lambda one: (len(holders[one]), ties[one]))[:each]:
            holders[label].append(int(agent))
    return holders


def _dirichlet(alpha: float, agents: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    return generator.dirichlet(np.repeat(alpha, agents))


@PARTITIONERS.register("dirichlet", DirichletParameters)
def dirichlet(
    parameters: DirichletParameters,
    train_labels: Ids,
    test_labels: Ids,
    columns_train: Columns,
    columns_test: Columns,
    agents: int,
    generator: np.random.Generator,
) -> Partition:
    """Each class is divided by its own draw from Dirichlet(alpha), redrawn until every agent has the minimum.

    The test samples of a class are divided by the same draw. Raises ``ValueError`` if the minimum cannot be met,
    or was not met in 10,000 draws.
    """
    size = len(train_labels)
    check_enough("dirichlet", agents, size, parameters.min_size)
    if agents * parameters.min_test > len(test_labels):
        raise ValueError(
            f"dirichlet: {agents} agents with at least {parameters.min_test} test samples each need "
            f"{agents * parameters.min_test:,}, and there are {len(test_labels):,}; lower min_test or the agents"
        )
    if parameters.seed is not None:
        generator = np.random.default_rng(parameters.seed)
    best = (-1, -1)
    for _ in range(TRIES):
        train, test = _draw(parameters, train_labels, test_labels, agents, generator)
        smallest = min(map(len, train)), min(map(len, test))
        if smallest[0] >= parameters.min_size and smallest[1] >= parameters.min_test:
            return Partition(tuple(train), tuple(test))
        best = max(best, smallest)
    raise ValueError(
        f"dirichlet: {TRIES:,} draws with alpha {parameters.alpha:g} over {size:,} train and {len(test_labels):,} test "
        f"samples never gave each of {agents} agents min_size {parameters.min_size} train and min_test "
        f"{parameters.min_test} test samples (in the best one the smallest agent had {best[0]} train, the smallest "
        f"test part {best[1]}); lower min_size, min_test or the number of agents, or raise alpha"
        f"{'' if parameters.balance else ', or set balance'}"
    )


def _draw(
    parameters: DirichletParameters, train_labels: Ids, test_labels: Ids, agents: int, generator: np.random.Generator
) -> tuple[list[Ids], list[Ids]]:
    """Return one draw; the order of what is taken from ``generator`` is that of the workload digits20."""
    size = len(train_labels)
    train: list[list[Ids]] = [[] for _ in range(agents)]
    test: list[list[Ids]] = [[] for _ in range(agents)]
    sizes = np.zeros(agents, dtype=np.int64)
    for label in range(1 + int(max(train_labels.max(), test_labels.max(initial=-1)))):
        train_ids = generator.permutation(np.flatnonzero(train_labels == label).astype(np.int64))
        test_ids = generator.permutation(np.flatnonzero(test_labels == label).astype(np.int64))
        shares = _dirichlet(parameters.alpha, agents, generator)
        if parameters.balance:
            room = sizes < size / agents
            shares = shares * room
            if shares.sum() == 0:
                shares = room.astype(np.float64) if room.any() else np.ones(agents)
        shares /= shares.sum()
        ends = np.cumsum(shares)
        for agent, piece in enumerate(np.split(train_ids, (ends * len(train_ids)).astype(int)[:-1])):
            train[agent].append(piece)
            sizes[agent] += len(piece)
        for agent, piece in enumerate(np.split(test_ids, np.round(ends * len(test_ids)).astype(int)[:-1])):
            test[agent].append(piece)
    return [np.concatenate(pieces) for pieces in train], [np.concatenate(pieces) for pieces in test]
