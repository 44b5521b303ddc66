"""A knowledge graph as a data set: triples of global ids, by parts, with the names of entities and relations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..tasks.data.dataset import Columns, DataError, Ids, content_digest

Triples = npt.NDArray[np.int64]

PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """Triples int64 [N, 3] (head, relation, tail) to train on, to validate and to test with; every array is read-only.

    Ids are places in ``entities`` and in ``labels``, the names of relations, both sorted: so they are the same in every
    run over the same data. A triple's label is its relation, by which triples are dealt out and counted. The columns
    hold one value per triple, for instance the client that it came from. Within a part no triple stands twice in one
    client.

    Raises ``DataError`` for a wrong dtype or shape, ids without a name, or no triples to train on.
    """

    name: str
    entities: tuple[str, ...]
    labels: tuple[str, ...]
    x_train: Triples
    x_valid: Triples
    x_test: Triples
    columns_train: Columns = field(default_factory=dict)
    columns_valid: Columns = field(default_factory=dict)
    columns_test: Columns = field(default_factory=dict)

    kind: ClassVar[str] = "triples"

    def __post_init__(self) -> None:
        for part in PARTS:
            triples, columns = getattr(self, f"x_{part}"), getattr(self, f"columns_{part}")
            self._check(part, triples)
            for column, values in columns.items():
                if values.dtype.hasobject or values.shape != triples.shape[:1]:
                    raise DataError(
                        f"{self.name}: column {column!r} of the {part} part is {values.dtype} {values.shape}"
                    )
        if not len(self.x_train):
            raise DataError(f"{self.name}: there are no triples to train on")

    def _check(self, part: str, triples: Triples) -> None:
        if triples.dtype != np.int64 or triples.ndim != 2 or triples.shape[1] != 3:
            raise DataError(f"{self.name}: the {part} part is {triples.dtype} {triples.shape}; int64 [N, 3] is needed")
        for column, names, what in (
            (0, self.entities, "entities"),
            (1, self.labels, "relations"),
            (2, self.entities, "entities"),
        ):
            ids = triples[:, column]
            if len(ids) and (ids.min() < 0 or ids.max() >= len(names)):
                message = (
                    f"{self.name}: the {part} part holds {what} {ids.min()} to {ids.max()}, and {len(names)} have names"
                )
                raise DataError(message)

    @property
    def classes(self) -> int:
        """The number of relations."""
        return len(self.labels)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The number of entities: with the number of relations, what the shape of an embedding follows from."""
        return (len(self.entities),)

    @property
    def y_train(self) -> Ids:
        """The relation of each triple to train on, int64 [N]."""
        return self.x_train[:, 1]

    @property
    def y_valid(self) -> Ids:
        """The relation of each triple to validate with, int64 [N]."""
        return self.x_valid[:, 1]

    @property
    def y_test(self) -> Ids:
        """The relation of each triple to test with, int64 [N]."""
        return self.x_test[:, 1]

    def part(self, train: Ids | None, test: Ids | None) -> KnowledgeGraph:
        """Return the graph with the triples at some positions of the train and of the test part; None takes all."""
        made: KnowledgeGraph = self
        for name, ids in (("train", train), ("test", test)):
            if ids is not None:
                columns = {key: column[ids] for key, column in getattr(self, f"columns_{name}").items()}
                made = replace(made, **{f"x_{name}": getattr(self, f"x_{name}")[ids], f"columns_{name}": columns})
        return made

    def arrays(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """Yield every array with its name, in a fixed order; a column is named ``columns_train.<name>``."""
        for part in PARTS:
            yield f"x_{part}", getattr(self, f"x_{part}")
        yield "entities", np.array(self.entities)
        for part in PARTS:
            columns: Columns = getattr(self, f"columns_{part}")
            for name in sorted(columns):
                yield f"columns_{part}.{name}", columns[name]

    @cached_property
    def _digest(self) -> str:
        return content_digest(self)

    def digest(self) -> str:
        """Return the SHA-256 (hex) of names and arrays; computed once."""
        return self._digest


def restored(description: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> KnowledgeGraph:
    """Return the graph that was prepared with this description and these arrays."""
    parts: Any = {f"x_{part}": arrays[f"x_{part}"] for part in PARTS}
    for part in PARTS:
        parts[f"columns_{part}"] = {name: arrays[f"columns_{part}.{name}"] for name in description["columns"]}
    entities = tuple(arrays["entities"].tolist())
    return KnowledgeGraph(description["name"], entities, tuple(description["labels"]), **parts)


def entities_of(graph: KnowledgeGraph, train: Ids, valid: Ids, test: Ids) -> Ids:
    """Return the entities of some triples of each part, rising, int64 [e]."""
    return np.unique(
        np.concatenate([_at(graph, part, ids)[:, [0, 2]].ravel() for part, ids in _parts(train, valid, test)])
    )


def relations_of(graph: KnowledgeGraph, train: Ids, valid: Ids, test: Ids) -> Ids:
    """Return the relations of some triples of each part, rising, int64 [r]."""
    return np.unique(np.concatenate([_at(graph, part, ids)[:, 1] for part, ids in _parts(train, valid, test)]))


def _parts(train: Ids, valid: Ids, test: Ids) -> tuple[tuple[str, Ids], ...]:
    return ("train", train), ("valid", valid), ("test", test)


def _at(graph: KnowledgeGraph, part: str, ids: Ids) -> Triples:
    triples: Triples = np.asarray(getattr(graph, f"x_{part}"))[ids]
    return triples
