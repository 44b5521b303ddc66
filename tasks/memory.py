"""An agent's memories: six kinds, each a set of named pieces of knowledge with the round they are from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .knowledge import Knowledge

Kind = Literal["sensory", "working", "semantic", "episodic", "procedural", "emotional"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Item:
    """One piece of knowledge and the round in which it was stored."""

    knowledge: Knowledge
    round: int


class Memory:
    """What one agent remembers. Working memory is emptied at the end of a round; the rest stays until forgotten."""

    def __init__(self) -> None:
        self._items: dict[Kind, dict[str, Item]] = {kind: {} for kind in KINDS}

    def hold(self, kind: Kind, key: str, knowledge: Knowledge, round: int) -> None:
        """Keep ``knowledge`` under ``key``, in place of what was there."""
        self._items[kind][key] = Item(knowledge, round)

    def recall(self, kind: Kind, key: str) -> Knowledge | None:
        """Return what is held under ``key``, or None."""
        item = self._items[kind].get(key)
        return None if item is None else item.knowledge

    def drop(self, kind: Kind, older_than: int | None = None) -> None:
        """Forget all of a kind, or what was stored before round ``older_than``."""
        kept = {} if older_than is None else {k: i for k, i in self._items[kind].items() if i.round >= older_than}
        self._items[kind] = kept

    def items(self, kind: Kind) -> dict[str, Item]:
        """Return what is held of a kind."""
        return dict(self._items[kind])

    def count(self, kind: Kind) -> int:
        """Return how many rows or tensors of a kind are held."""
        return sum(item.knowledge.items for item in self._items[kind].values())

    def bytes(self, kind: Kind) -> int:
        """Return how many bytes the values of a kind take."""
        return sum(item.knowledge.raw_bytes for item in self._items[kind].values())
