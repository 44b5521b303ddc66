"""Between rows of knowledge, as they lie in an agent's hands, and the entries of its stores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .knowledge import Rows
from .late import late

if TYPE_CHECKING:
    import torch

    from . import stores
else:
    torch = late("torch")
    stores = late("codistill.tasks.stores")

SCORES = ("logits", "class_logits")
"""Forms whose softmax says how sure their maker was."""


def entries_of(rows: Rows, contributor: str, round: int) -> stores.Entries:
    """Return ``rows`` as entries made in ``round``; those that say of none whose they are become ``contributor``'s.

    An entry's confidence is its largest probability where its form has scores, else 1; of values that are not finite it
    is 0, and a store refuses these.
    """
    confidence = None
    if rows.form in SCORES:
        confidence = torch.softmax(rows.values, dim=1).amax(dim=1).nan_to_num(0.0).numpy()
    names: tuple[str, ...] = rows.contributors if rows.owners is not None else (contributor,)
    return stores.entries(
        rows.ids.numpy(),
        rows.values.numpy(),
        names,
        round,
        owners=None if rows.owners is None else rows.owners.numpy(),
        classes=None if rows.classes is None else rows.classes.numpy(),
        weights=rows.weights.numpy(),
        confidence=confidence,
        keys=None if rows.keys is None else rows.keys.numpy(),
    )


def rows_of(held: stores.Entries, form: str) -> Rows:
    """Return entries as rows, ids rising and within an id owners, each marked with who contributed it.

    Of several entries of one id and contributor, which a log keeps, the last is taken.
    """
    order = np.lexsort((np.arange(len(held)), held.owners, held.ids))
    last = np.ones(len(order), dtype=bool)
    ids, owners = held.ids[order], held.owners[order]
    last[:-1] = (ids[1:] != ids[:-1]) | (owners[1:] != owners[:-1])
    order = order[last]
    return Rows(
        form,
        torch.tensor(held.ids[order]),
        torch.tensor(held.values[order]),
        torch.tensor(held.weights[order]),
        float(held.weights[order].sum()),
        torch.tensor(held.classes[order]),
        held.contributors,
        torch.tensor(held.owners[order]),
        None if held.keys is None else torch.tensor(held.keys[order]),
    )


def completed(rows: Rows, store: stores.Store) -> Rows:
    """Return ``rows`` with the classes and keys that they do not tell taken from the store's entries of the same owner.

    Rows that a store with keys knows no key of are left out: nobody could find them.
    """
    needed = store.declaration.keys != "none" and rows.keys is None
    if rows.owners is None or not (needed or rows.classes is None) or not len(store):
        return rows.part(torch.zeros_like(rows.ids, dtype=torch.bool)) if needed else rows
    classes = torch.full_like(rows.ids, -1) if rows.classes is None else rows.classes.clone()
    keys: torch.Tensor | None = rows.keys
    known = torch.zeros_like(rows.ids, dtype=torch.bool)
    for place, name in enumerate(rows.contributors):
        mine = (rows.owners == place).nonzero().flatten()
        held = store.get(rows.ids[mine].numpy(), name, missing="skip")
        there = mine[torch.isin(rows.ids[mine], torch.tensor(held.ids))]
        if not len(there):
            continue
        at = torch.tensor(np.searchsorted(held.ids, rows.ids[there].numpy(), side="right") - 1)
        if rows.classes is None:
            classes[there] = torch.tensor(held.classes)[at]
        if needed and held.keys is not None:
            if keys is None:
                keys = torch.zeros(len(rows.ids), held.keys.shape[1])
            keys[there] = torch.tensor(held.keys)[at]
        known[there] = True
    whole = replace(rows, classes=classes, keys=keys)
    return whole.part(known) if needed else whole
