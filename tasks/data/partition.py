"""Who holds which samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..registry import Registry
from .dataset import Columns, Ids
from .stratify import apportion


@dataclass(frozen=True, eq=False)
class Partition:
    """The positions of each agent's train and test samples: int64 arrays, one per agent.

    ``valid``: the same of the validation part, where the data have one of their own; else nothing.

    Raises ``ValueError`` for wrong dtypes, unequal numbers of agents, or a sample that two agents hold.
    """

    train: tuple[Ids, ...]
    test: tuple[Ids, ...]
    valid: tuple[Ids, ...] = ()

    def __post_init__(self) -> None:
        if len(self.train) != len(self.test) or not self.train:
            raise ValueError(f"{len(self.train)} train parts and {len(self.test)} test parts")
        if self.valid and len(self.valid) != len(self.train):
            raise ValueError(f"{len(self.train)} train parts and {len(self.valid)} validation parts")
        parts = (("train", self.train), ("test", self.test), ("validation", self.valid))
        for part, arrays in parts[: 3 if self.valid else 2]:
            if any(ids.dtype != np.int64 or ids.ndim != 1 for ids in arrays):
                raise ValueError(f"the {part} ids must be int64 [N]")
            together = np.concatenate(arrays)
            values, counts = np.unique(together, return_counts=True)
            if len(values) != len(together):
                raise ValueError(f"the {part} sample {values[counts > 1][0]} is given out {counts.max()} times")
            if len(values) and values[0] < 0:
                raise ValueError(f"the {part} ids must be 0 or more, not {values[0]}")

    @property
    def agents(self) -> int:
        """The number of agents."""
        return len(self.train)

    def digest(self) -> str:
        """Return the SHA-256 (hex) over ids and offsets, int64, of train and then test (and then valid)."""
        digest = hashlib.sha256()
        for part in (self.train, self.test, self.valid)[: 3 if self.valid else 2]:
            digest.update(np.concatenate(part).tobytes())
            digest.update(np.cumsum([0, *(len(ids) for ids in part)], dtype=np.int64).tobytes())
        return digest.hexdigest()

    def train_digest(self) -> str:
        """Return the SHA-256 (hex) over the train ids, agent after agent, as the workload digits20 states it."""
        return hashlib.sha256(np.concatenate(self.train).tobytes()).hexdigest()

    def within(self, train_ids: Ids, test_ids: Ids | None = None) -> Partition:
        """Return the partition with positions looked up in ``train_ids`` (and ``test_ids``).

        For labels that were themselves a selection, such as the private samples of ``split_public``.
        """
        test = self.test if test_ids is None else tuple(test_ids[ids] for ids in self.test)
        return Partition(tuple(train_ids[ids] for ids in self.train), test, self.valid)

    def left_out(self, train_size: int, test_size: int) -> tuple[Ids, Ids]:
        """Return the train and the test positions that no agent holds, of so many samples."""
        return (
            np.setdiff1d(np.arange(train_size, dtype=np.int64), np.concatenate(self.train)),
            np.setdiff1d(np.arange(test_size, dtype=np.int64), np.concatenate(self.test)),
        )


Partitioner: TypeAlias = Callable[[Any, Ids, Ids, Columns, Columns, int, np.random.Generator], Partition]
"""(parameters, train_labels, test_labels, columns_train, columns_test, agents, generator) -> Partition"""

PARTITIONERS: Registry[Partitioner] = Registry("partitioners")


def check_enough(by: str, agents: int, train_size: int, minimum: int = 1) -> None:
    """Raise ``ValueError`` unless there are agents, and ``minimum`` train samples for each."""
    if agents < 1:
        raise ValueError(f"{by}: at least 1 agent is needed, not {agents}")
    if agents * minimum > train_size:
        raise ValueError(
            f"{by}: {agents} agents with at least {minimum} train samples each need {agents * minimum:,}, and there "
            f"are {train_size:,}; lower the number of agents or the minimum"
        )


def cut_test(
    train: Sequence[Ids], train_labels: Ids, test_labels: Ids, generator: np.random.Generator, test_ids: Ids
) -> list[Ids]:
    """Return ``test_ids`` divided so that each agent's classes have the proportions of its train samples.

    A class that nobody trains on is divided by how much each agent trains. An agent left without a test sample
    gets one of a class it trains on, from the agent with most; if there is none to give, it has none.
    """
    agents = len(train)
    classes = 1 + int(max(train_labels.max(initial=-1), test_labels.max(initial=-1)))
    counts = np.stack([np.bincount(train_labels[ids], minlength=classes) for ids in train]).astype(np.float64)
    sizes = np.array([len(ids) for ids in train], dtype=np.float64)
    parts: list[list[int]] = [[] for _ in range(agents)]
    debt = np.zeros(agents)
    for label in range(classes):
        ids = generator.permutation(test_ids[test_labels[test_ids] == label])
        weights = counts[:, label] if counts[:, label].any() else sizes
        debt += weights / weights.sum() * len(ids)
        for one in ids:
            agent = int(np.argmax(np.where(weights > 0, debt, -np.inf)))
            debt[agent] -= 1
            parts[agent].append(int(one))
    _give_each_one(parts, counts, test_labels)
    return [np.sort(np.array(part, dtype=np.int64)) for part in parts]


def _give_each_one(parts: list[list[int]], counts: np.ndarray[Any, Any], test_labels: Ids) -> None:
    for agent, part in enumerate(parts):
        if part:
            continue
        for giver in sorted(range(len(parts)), key=lambda other: -len(parts[other])):
            fitting = [one for one in parts[giver] if counts[agent, test_labels[one]] > 0]
            if len(parts[giver]) > 1 and fitting:
                parts[giver].remove(fitting[-1])
                part.append(fitting[-1])
                break


def split_evenly(ids: Ids, parts: int) -> list[Ids]:
    """Return ``ids`` cut into ``parts`` pieces that differ by at most one sample."""
    sizes = apportion(np.ones(parts), len(ids))
    return list(np.split(ids, np.cumsum(sizes)[:-1]))
