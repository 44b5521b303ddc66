"""An agent's memories: of six kinds, each a set of pieces of knowledge, and the stores that a recipe declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from .knowledge import Knowledge
from .late import late

if TYPE_CHECKING:
    from . import stores
    from .stores import Declaration, Store
else:
    stores = late("codistill.tasks.stores")

Kind = Literal["sensory", "working", "semantic", "episodic", "procedural", "emotional"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MEANINGS: dict[Kind, str] = {
    "sensory": "The raw data: an agent's own samples, which never leave it. No step puts in or takes out.",
    "working": "What is at hand in this round: what was made, received or called to mind. Emptied at its end.",
    "semantic": "Explicit facts: class prototypes, logits of classes.",
    "episodic": "Explicit events: logits of single samples, past models.",
    "procedural": "Implicit skill: the parameters of models and generators.",
    "emotional": "Implicit valence: how much each contributor counts.",
}
"""The kinds of memory, after Atkinson and Shiffrin, and what each holds."""

KEPT_AS: Mapping[str, Kind] = {
    "tensor": "procedural",
    "sample": "episodic",
    "class": "semantic",
    "agent": "emotional",
    "entity": "semantic",
    "relation": "semantic",
}
"""The kind of memory that a form of knowledge belongs to, by what the form is keyed by."""


@dataclass(frozen=True)
class Item:
    """One piece of knowledge, the round in which it was stored, and who contributed it; "" is the agent itself."""

    knowledge: Knowledge
    round: int
    contributor: str = ""


@dataclass(frozen=True)
class Event:
    """Something that happened to what came in or was held: ``count`` rows (or models) ``what`` at step ``place``.

    ``what``: filtered, refused, evicted, forgotten, kept (what could not be forgotten exactly), or unlearned (what a
    model was trained to give up, in this round again). ``about``: the filter, the store or the contributor.
    ``sentence``: what a reader of the report must know, or nothing.
    """

    place: str
    what: Literal["filtered", "refused", "evicted", "forgotten", "kept", "unlearned"]
    about: str
    count: int
    sentence: str = ""


class Memory:
    """What one agent remembers. Working memory is emptied at the end of a round; the rest stays until forgotten.

    ``declared``: the stores that the recipe declares, by name; one is made when something first goes into it.
    """

    def __init__(self, declared: Mapping[str, Declaration] | None = None) -> None:
        self._items: dict[Kind, dict[str, Item]] = {kind: {} for kind in KINDS}
        self.declared: Mapping[str, Declaration] = declared or {}
        self.stores: dict[str, Store] = {}
        self._events: list[Event] = []

    def hold(self, kind: Kind, key: str, knowledge: Knowledge, round: int, contributor: str = "") -> None:
        """Keep ``knowledge`` under ``key``, in place of what was there. Nothing said: the agent itself made it."""
        self._items[kind][key] = Item(knowledge, round, contributor)

    def recall(self, kind: Kind, key: str) -> Knowledge | None:
        """Return what is held under ``key``, or None."""
        item = self._items[kind].get(key)
        return None if item is None else item.knowledge

    def drop(self, kind: Kind, older_than: int | None = None) -> None:
        """Forget all of a kind, or what was stored before round ``older_than``."""
        kept = {} if older_than is None else {k: i for k, i in self._items[kind].items() if i.round >= older_than}
        self._items[kind] = kept

    def let_go(self, kind: Kind, key: str) -> None:
        """Forget the piece under ``key``; nothing where there is none."""
        self._items[kind].pop(key, None)

    def items(self, kind: Kind) -> dict[str, Item]:
        """Return the pieces that are held of a kind; what is in stores is not among them."""
        return dict(self._items[kind])

    def store(self, name: str) -> Store:
        """Return the declared store ``name``, empty where nothing went into it yet."""
        if name not in self.stores:
            self.stores[name] = stores.Store.create(self.declared[name], name)
        return self.stores[name]

    def count(self, kind: Kind) -> int:
        """Return how many rows or tensors of a kind are held as pieces."""
        return sum(item.knowledge.items for item in self._items[kind].values())

    def bytes(self, kind: Kind) -> int:
        """Return how many bytes the values of a kind take as pieces."""
        return sum(item.knowledge.raw_bytes for item in self._items[kind].values())

    def rest(self) -> None:
        """Empty working memory, at the end of a round: the pieces, and the stores that are declared of that kind."""
        self.drop("working")
        self.stores = {name: one for name, one in self.stores.items() if one.declaration.kind != "working"}

    def note(self, event: Event) -> None:
        """Write down what happened, for the run's tables. Nothing is written of no rows."""
        if event.count:
            self._events.append(event)

    def told(self) -> list[Event]:
        """Return what was noted since this was last asked."""
        told, self._events = self._events, []
        return told
