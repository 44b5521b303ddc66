"""Knowledge as it lies in an agent's hands: its forms, and the two shapes that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    )
}


@dataclass(frozen=True)
class Rows:
    """Knowledge keyed by sample or class.

    ``ids`` int64 [N] in rising order, ``values`` float32 [N, D], ``weights`` float64 [N]: how much stands behind
    each row (contributors or samples), so that means of means stay exact and a contribution can be taken out.
    ``samples``: training samples behind all of it.
    """

    form: str
    ids: torch.Tensor
    values: torch.Tensor
    weights: torch.Tensor
    samples: float = 1.0

    @property
    def items(self) -> int:
        """The number of rows."""
        return len(self.ids)

    @property
    def raw_bytes(self) -> int:
        """Bytes as plain float32 values and int64 ids."""
        return self.values.numel() * 4 + len(self.ids) * 8


@dataclass(frozen=True)
class Models:
    """Parameters, by architecture: ``tensors[architecture][name]``, ``samples[architecture]`` behind each."""

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    samples_by: Mapping[str, float]
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


Knowledge = Rows | Models


def aligned(rows: Rows, ids: torch.Tensor) -> torch.Tensor:
    """Return the position of each of ``ids`` [M] among ``rows.ids``, or -1 where it is not there. int64 [M]."""
    if not len(rows.ids):
        return torch.full_like(ids, -1)
    at = torch.searchsorted(rows.ids, ids).clamp(max=len(rows.ids) - 1)
    return torch.where(rows.ids[at] == ids, at, torch.full_like(at, -1))
