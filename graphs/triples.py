"""A knowledge graph as named entities, named relations and triples of local ids."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ..tasks.late import late

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = late("torch")

PIECES = ("train", "valid", "test")
LARGEST_KEY = 2**63 - 1


def no_triples() -> Tensor:
    """Return int64 [0, 3]."""
    return torch.empty((0, 3), dtype=torch.int64)


def triple_keys(triples: Tensor, entities: int, relations: int) -> Tensor:
    """Return one number for each of ``triples`` int64 [N, 3], int64 [N]; two are equal where the triples are.

    They sort as the triples do: by head, then relation, then tail.
    """
    return (triples[:, 0] * relations + triples[:, 1]) * entities + triples[:, 2]


def first_of_each(keys: Tensor) -> Tensor:
    """Return the positions in ``keys`` [N], ascending, at which a key stands for the first time."""
    return torch.from_numpy(np.sort(np.unique(keys.numpy(), return_index=True)[1]).astype(np.int64))


@dataclass(frozen=True, eq=False)
class Triples:
    """The knowledge graph of one client, or the whole one.

    A local id is a position in ``entities`` or ``relations``, which are names and are what graphs of different
    clients are aligned by. ``train``, ``valid`` and ``test`` are int64 [N, 3] with head, relation and tail;
    ``unlearn`` holds triples of ``train`` that the client is asked to forget. An entity need not be in a triple.

    Raises ``ValueError`` for names that are empty or stand twice, a wrong dtype or shape, an id without a name, or a
    triple to unlearn that is not in ``train``.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    train: Tensor
    valid: Tensor
    test: Tensor
    unlearn: Tensor = field(default_factory=no_triples)

    def __post_init__(self) -> None:
        self._check_names("entities", self.entities)
        self._check_names("relations", self.relations)
        if len(self.entities) ** 2 * len(self.relations) > LARGEST_KEY:
            raise ValueError(
                f"{len(self.entities):,} entities and {len(self.relations):,} relations make more triples than "
                "63 bits can tell apart; cut the graph into clients before it is read"
            )
        for part in (*PIECES, "unlearn"):
            self._check_triples(part, getattr(self, part))
        strange = ~torch.isin(self.keys("unlearn"), self.keys("train"))
        if strange.any():
            raise ValueError(
                f"the triple {self.named(self.unlearn[strange][0])} is to be unlearned, but is not in train; "
                "only what was learned can be forgotten"
            )

    def _check_names(self, what: str, names: tuple[str, ...]) -> None:
        if len(set(names)) != len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise ValueError(f"the name {twice!r} stands twice among the {what}; a name is what clients are aligned by")
        if not names or "" in names:
            raise ValueError(f"{what}: at least one is needed, and none may have an empty name")

    def _check_triples(self, part: str, triples: Tensor) -> None:
        if triples.dtype != torch.int64 or triples.dim() != 2 or triples.shape[1] != 3:
            raise ValueError(f"{part} is {triples.dtype} {list(triples.shape)}; torch.int64 [N, 3] is needed")
        if len(triples) == 0:
            return
        lowest, highest = triples.amin(0).tolist(), triples.amax(0).tolist()
        for column, what in enumerate(("entities", "relations", "entities")):
            names = len(getattr(self, what))
            if lowest[column] < 0 or highest[column] >= names:
                raise ValueError(
                    f"{part} holds ids {lowest[column]} to {highest[column]} in column {column}, "
                    f"but there are {names} {what}"
                )

    def keys(self, part: str) -> Tensor:
        """Return one number for each triple of ``part``, int64 [N], comparable between the parts of this graph."""
        return triple_keys(getattr(self, part), len(self.entities), len(self.relations))

    def named(self, triple: Tensor) -> tuple[str, str, str]:
        """Return head, relation and tail of ``triple`` int64 [3] by name."""
        head, relation, tail = triple.tolist()
        return self.entities[head], self.relations[relation], self.entities[tail]

    def counts(self) -> dict[str, int]:
        """Return how many entities, relations and triples of each part there are."""
        return {what: len(getattr(self, what)) for what in ("entities", "relations", *PIECES, "unlearn")}

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for names in (self.entities, self.relations):
            encoded = [name.encode() for name in names]
            digest.update(np.array([len(encoded), *map(len, encoded)], dtype="<i8").tobytes())
            digest.update(b"".join(encoded))
        for part in (*PIECES, "unlearn"):
            rows = getattr(self, part).cpu().numpy()
            digest.update(np.array([len(rows)], dtype="<i8").tobytes())
            digest.update(np.ascontiguousarray(rows, dtype="<i8").tobytes())
        return digest.hexdigest()

    def digest(self) -> str:
        """Return the SHA-256 (hex) of names and triples in their order, the same on every machine; computed once."""
        return self._digest


def _held_by_two(names: Iterable[Sequence[str]]) -> tuple[str, ...]:
    holders = Counter(chain.from_iterable(names))
    return tuple(sorted(name for name, count in holders.items() if count > 1))


def shared_entities(clients: Iterable[Triples]) -> tuple[str, ...]:
    """Return the names, sorted, of the entities that two or more clients have."""
    return _held_by_two(client.entities for client in clients)


def shared_relations(clients: Iterable[Triples]) -> tuple[str, ...]:
    """Return the names, sorted, of the relations that two or more clients have."""
    return _held_by_two(client.relations for client in clients)


def stable_ids(names: Sequence[str]) -> Tensor:
    """Return an id for each name, int64 [N] >= 0, that depends on nothing else: 63 bits of the SHA-256 of its UTF-8.

    What travels between clients is addressed by them, so that no client need know another's numbering. Raises
    ``ValueError`` if two names have one id (by chance once in 10^8 graphs of 400,000 names).
    """
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    ids = (np.frombuffer(digests, dtype=">u8") >> np.uint64(1)).astype(np.int64)
    if len(np.unique(ids)) != len(set(names)):
        raise ValueError("two names have the same 63 bits of SHA-256; rename one of them in the triple files")
    return torch.from_numpy(ids)
