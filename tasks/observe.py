"""Class means, gathered from batches as they pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .knowledge import Rows
from .late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

BY_CLASS = ("class_logits", "prototypes")


class Observer:
    """Sums features or logits by class. The sums are float32, as a training loop would keep them."""

    def __init__(self, form: str, classes: int) -> None:
        self.form = form
        self._classes = classes
        self._sums: torch.Tensor | None = None
        self._counts = torch.zeros(classes, dtype=torch.int64)

    def see(self, y: torch.Tensor, features: torch.Tensor, logits: torch.Tensor) -> None:
        """Add a batch: labels [B], features [B, F], logits [B, C]."""
        values = (logits if self.form == "class_logits" else features).detach()
        if self._sums is None:
            self._sums = torch.zeros(self._classes, values.shape[1])
        self._sums.index_add_(0, y, values)
        self._counts += torch.bincount(y, minlength=self._classes)

    def result(self) -> Rows:
        """Return the mean of each class that was seen, weighted by its number of samples."""
        ids = self._counts.nonzero().flatten()
        counts = self._counts[ids].double()
        sums = self._sums if self._sums is not None else torch.zeros(self._classes, 1)
        values = (sums[ids].double() / counts[:, None]).float()
        return Rows(self.form, ids, values, counts, float(counts.sum()))


def observers(forms: frozenset[str], classes: int) -> list[Observer]:
    """Return an observer for each of ``forms``, in a fixed order."""
    return [Observer(form, classes) for form in BY_CLASS if form in forms]
