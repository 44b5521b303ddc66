"""Knowledge as it lies in an agent's hands: its forms, and the two shapes that they take."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


@dataclass(frozen=True)
class Form:
    """One form of knowledge: what its rows are keyed by, and whether it can be parted from its medium."""

    name: str
    keyed_by: str
    separable: bool
    sentence: str


FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form("parameters", "tensor", False, "the weights of a model; both sides need the same architecture"),
        Form("logits", "sample", True, "a row of class scores per public sample"),
        Form("class_logits", "class", True, "the mean logits of each class"),
        Form("prototypes", "class", True, "the mean features of each class; both sides need the same width"),
        Form(
            "embeddings", "entity", True, "a row per shared entity of a knowledge graph; both sides need the same width"
        ),
        Form(
            "relation_embeddings",
            "relation",
            True,
            "a row per shared relation of a knowledge graph, as wide on both sides",
        ),
        Form("valence", "agent", True, "how much an agent makes of what each other agent says"),
    )
}


@dataclass(frozen=True)
class Rows:
    """Knowledge keyed by sample or class.

    ``ids`` int64 [N] in rising order, ``values`` float32 [N, D], ``weights`` float64 [N]: how much stands behind
    each row (contributors or samples), so that means of means stay exact and a contribution can be taken out.
    ``samples``: training samples behind all of it.

    Where several agents' rows lie side by side, ``owners`` int64 [N] says whose each row is, as a place in
    ``contributors``; an id may then stand once for each owner, owners rising within it. ``addressed`` turns that round:
    each row is *for* its owner, and an aggregator passes to those below it what is for them alone.

    ``classes`` int64 [N]: each row's label, -1 where it has none. ``keys`` float32 [N, K]: what rows are found by
    (a hash, features at a cut). ``attached``: models that travel with the rows.
    """

    form: str
    ids: torch.Tensor
    values: torch.Tensor
    weights: torch.Tensor
    samples: float = 1.0
    classes: torch.Tensor | None = None
    contributors: tuple[str, ...] = ()
    owners: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    addressed: bool = False
    attached: Models | None = None

    @property
    def items(self) -> int:
        """The number of rows."""
        return len(self.ids)

    @property
    def raw_bytes(self) -> int:
        """Bytes as plain float32 values and keys and int64 ids."""
        numbers = self.values.numel() + (0 if self.keys is None else self.keys.numel())
        attached = 0 if self.attached is None else self.attached.raw_bytes
        return numbers * 4 + len(self.ids) * 8 + attached

    def part(self, some: torch.Tensor) -> Rows:
        """Return the rows at ``some``: a mask, bool [N], or places in rising order, int64 [M]."""
        return replace(
            self,
            ids=self.ids[some],
            values=self.values[some],
            weights=self.weights[some],
            classes=None if self.classes is None else self.classes[some],
            owners=None if self.owners is None else self.owners[some],
            keys=None if self.keys is None else self.keys[some],
        )

    def of(self, contributor: str) -> Rows:
        """Return the rows of one contributor, no longer marked as anybody's; none where it is not there."""
        if self.owners is None:
            raise ValueError(f"rows of {self.form} say of none whose they are")
        place = self.contributors.index(contributor) if contributor in self.contributors else -1
        return replace(self.part(self.owners == place), contributors=(), owners=None, addressed=False)


@dataclass(frozen=True)
class Models:
    """Parameters, by architecture: ``tensors[architecture][name]``, ``samples_by[architecture]`` behind each.

    ``labels[architecture]`` float64 [C]: training samples of each class behind it, where that is told.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    samples_by: Mapping[str, float]
    labels: Mapping[str, torch.Tensor] = field(default_factory=dict)
    form: str = field(default="parameters", init=False)

    @property
    def samples(self) -> float:
        """Training samples behind all of it."""
        return sum(self.samples_by.values())

    @property
    def items(self) -> int:
        """The number of tensors."""
        return sum(len(group) for group in self.tensors.values())

    @property
    def raw_bytes(self) -> int:
        """Bytes as plain float32."""
        return sum(t.numel() * 4 for group in self.tensors.values() for t in group.values())


GENERATOR = "generator"
"""The name, in place of an architecture's, under which :class:`Models` carry a generator's tensors."""

Knowledge = Rows | Models


def aligned(rows: Rows, ids: torch.Tensor) -> torch.Tensor:
    """Return the position of each of ``ids`` [M] among ``rows.ids``, or -1 where it is not there. int64 [M]."""
    if not len(rows.ids):
        return torch.full_like(ids, -1)
    at = torch.searchsorted(rows.ids, ids).clamp(max=len(rows.ids) - 1)
    return torch.where(rows.ids[at] == ids, at, torch.full_like(at, -1))


def models_of(models: Models, names: Sequence[str]) -> Models:
    """Return the models of some architectures alone."""
    return Models(
        {name: models.tensors[name] for name in names},
        {name: models.samples_by[name] for name in names},
        {name: models.labels[name] for name in names if name in models.labels},
    )


def marked(knowledge: Knowledge, contributor: str) -> Knowledge:
    """Return rows marked as ``contributor``'s where they do not say whose they are, and anything else as it is."""
    if not isinstance(knowledge, Rows) or knowledge.owners is not None:
        return knowledge
    return replace(knowledge, contributors=(contributor,), owners=torch.zeros_like(knowledge.ids))


def addressed_to(knowledge: Knowledge, name: str, below: Collection[str] = ()) -> Knowledge | None:
    """Return what is for the agent called ``name``, or, still addressed, for the agents ``below`` it.

    Knowledge that is for everybody is returned as it is. None where there is nothing.
    """
    if not isinstance(knowledge, Rows) or not knowledge.addressed or knowledge.owners is None:
        return knowledge
    if not below:
        mine = knowledge.of(name)
        return mine if mine.items or mine.attached is not None else None
    wanted = torch.tensor([one in below for one in knowledge.contributors], dtype=torch.bool)
    part = knowledge.part(wanted[knowledge.owners])
    return part if part.items or part.attached is not None else None


def together(packets: Sequence[Rows]) -> Rows:
    """Return the rows of several contributors side by side, ids rising, and within an id contributors in order.

    Every packet must say whose its rows are. A row that two packets hold of one contributor comes from the later, but
    for a class or a key that only the earlier told. Where some packets tell classes or keys and others do not, rows of
    the others have class -1 and a key of zeros, which stand for not told. What is attached to packets is not kept.
    """
    names = list(dict.fromkeys(name for packet in packets for name in packet.contributors))
    places = {name: place for place, name in enumerate(names)}
    owners = []
    for packet in packets:
        if packet.owners is None:
            raise ValueError(f"rows of {packet.form} say of none whose they are")
        owners.append(torch.tensor([places[name] for name in packet.contributors], dtype=torch.int64)[packet.owners])
    ids, owner = torch.cat([packet.ids for packet in packets]), torch.cat(owners)
    order = torch.argsort(ids * max(len(names), 1) + owner, stable=True)
    address = (ids * max(len(names), 1) + owner)[order]
    last = torch.ones(len(order), dtype=torch.bool)
    last[:-1] = address[1:] != address[:-1]
    every, order = order, order[last]

    def joined(parts: list[torch.Tensor | None], missing: int) -> torch.Tensor | None:
        known = next((part for part in parts if part is not None), None)
        if known is None:
            return None
        whole = [
            known.new_full((packet.items, *known.shape[1:]), missing) if part is None else part
            for part, packet in zip(parts, packets, strict=True)
        ]
        rows, places = torch.cat(whole)[every], torch.arange(len(every))
        told = (rows != missing).flatten(1).any(1) if rows.dim() > 1 else rows != missing
        latest = torch.where(told, places, -1).cummax(0).values if len(places) else places
        same = address[latest.clamp(min=0)] == address
        return rows[torch.where((latest >= 0) & same, latest, places)][last]

    return Rows(
        packets[0].form,
        ids[order],
        torch.cat([packet.values for packet in packets])[order],
        torch.cat([packet.weights for packet in packets])[order],
        sum(packet.samples for packet in packets),
        joined([packet.classes for packet in packets], -1),
        tuple(names),
        owner[order],
        joined([packet.keys for packet in packets], 0),
        packets[0].addressed,
    )
