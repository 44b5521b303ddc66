"""Partitions that the data or a file state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ..parameters import Parameters
from .dataset import Columns, Ids
from .partition import PARTITIONERS, Partition, check_enough, cut_test, split_evenly


class ColumnParameters(Parameters):
    """Which column says who holds a sample."""

    column: str = Field(description="A column that the data set keeps, such as a hospital.")


class GivenParameters(Parameters):
    """Which file says who holds a sample."""

    path: str = Field(
        description='.json {"train": [[ids of agent 0], ...], "test": [...]}, or .npz with train_idx, train_off, '
        "test_idx, test_off (agent i holds idx[off[i]:off[i+1]]); test may be left out."
    )


@PARTITIONERS.register("column", ColumnParameters)
def column(
    parameters: ColumnParameters,
    train_labels: Ids,
    test_labels: Ids,
    columns_train: Columns,
    columns_test: Columns,
    agents: int,
    generator: np.random.Generator,
) -> Partition:
    """One agent, or a group of agents, per value of a column; its test samples are those of the same value.

    Agents are in the order of the sorted values. With more agents than values, the larger values are divided at
    random among several agents; with fewer, values are put together, the largest first, each to the agent with
    least. Test samples of a value without train samples are left out (``Partition.left_out`` tells them).
    Raises ``ValueError`` if the column is not there or there are fewer train samples than agents.
    """
    if parameters.column not in columns_train or parameters.column not in columns_test:
        there = ", ".join(map(repr, columns_train)) or "none"
        raise ValueError(f"column: the data set keeps no column {parameters.column!r}; it keeps {there}")
    check_enough("column", agents, len(train_labels))
    values, of_train, counts = np.unique(columns_train[parameters.column], return_inverse=True, return_counts=True)
    matches = columns_test[parameters.column][:, None] == values[None, :]
    of_test = np.where(matches.any(axis=1), matches.argmax(axis=1), -1)
    train: list[Ids] = []
    test: list[Ids] = []
    for group, holders in _groups(counts, agents):
        ids = generator.permutation(np.flatnonzero(np.isin(of_train, group)).astype(np.int64))
        pieces = [np.sort(piece) for piece in split_evenly(ids, holders)]
        test_ids = np.flatnonzero(np.isin(of_test, group)).astype(np.int64)
        train += pieces
        test += cut_test(pieces, train_labels, test_labels, generator, test_ids)
    return Partition(tuple(train), tuple(test))


def _groups(counts: npt.NDArray[np.int64], agents: int) -> list[tuple[list[int], int]]:
    """Return groups of values with the number of agents that share each, ordered by their first value."""
    if agents >= len(counts):
        holders = np.ones(len(counts), dtype=np.int64)
        for _ in range(agents - len(counts)):
            free = np.where(holders < counts, counts / holders, -1.0)
            holders[int(np.argmax(free))] += 1
        return [([value], int(number)) for value, number in enumerate(holders)]
    groups: list[list[int]] = [[] for _ in range(agents)]
    loads = [0] * agents
    for value in np.argsort(-counts, kind="stable"):
        lightest = loads.index(min(loads))
        groups[lightest].append(int(value))
        loads[lightest] += int(counts[value])
    return sorted(((sorted(group), 1) for group in groups), key=lambda one: one[0])


@PARTITIONERS.register("given", GivenParameters)
def given(
    parameters: GivenParameters,
    train_labels: Ids,
    test_labels: Ids,
    columns_train: Columns,
    columns_test: Columns,
    agents: int,
    generator: np.random.Generator,
) -> Partition:
    """The samples that a file states for each agent; samples that it does not name are left out.

    ``Partition.left_out`` tells them. Without test ids the test samples follow the train proportions. Raises
    ``ValueError`` if the file cannot be read, has another number of agents, or names a sample twice or one that
    is not there.
    """
    path = Path(parameters.path).expanduser()
    parts = _load(path)
    if len(parts["train"]) != agents:
        raise ValueError(f"given: {path} states {len(parts['train'])} agents, the spec {agents}")
    for part, size in (("train", len(train_labels)), ("test", len(test_labels))):
        for agent, ids in enumerate(parts.get(part, [])):
            if len(ids) and not 0 <= ids.min() <= ids.max() < size:
                raise ValueError(
                    f"given: {path} gives agent {agent} the {part} samples {ids.min()} to {ids.max()}, and there are "
                    f"0 to {size - 1}"
                )
            if part == "train" and len(ids) == 0:
                raise ValueError(f"given: {path} gives agent {agent} no train samples")
    if "test" not in parts:
        everything = np.arange(len(test_labels), dtype=np.int64)
        parts["test"] = cut_test(parts["train"], train_labels, test_labels, generator, everything)
    try:
        return Partition(tuple(parts["train"]), tuple(parts["test"]))
    except ValueError as error:
        raise ValueError(f"given: {path}: {error}") from error


def _load(path: Path) -> dict[str, list[Ids]]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                parts = {
                    part: np.split(file[f"{part}_idx"], file[f"{part}_off"][1:-1])
                    for part in ("train", "test")
                    if part == "train" or f"{part}_idx" in file
                }
        else:
            stated = json.loads(path.read_text(encoding="utf-8"))
            parts = {part: stated[part] for part in ("train", "test") if part == "train" or part in stated}
        return {part: [_ids(one) for one in lists] for part, lists in parts.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"given: {path} cannot be read as a partition: {error}") from error


def _ids(stated: Any) -> Ids:
    ids = np.asarray(stated)
    if ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu"):
        raise ValueError(f"ids must be a list of whole numbers, not {ids.dtype} {list(ids.shape)}")
    return ids.astype(np.int64)
