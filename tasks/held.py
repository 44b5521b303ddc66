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

    A class of -1 and a key of zeros are not told. Rows that a store with keys knows no key of are left out: nobody
    could find them.
    """
    keyed = store.declaration.keys != "none"
    if not keyed and (not len(store) or (rows.classes is not None and bool((rows.classes >= 0).all()))):
        return rows
    classes = torch.full_like(rows.ids, -1) if rows.classes is None else rows.classes.clone()
    keys = rows.keys.clone() if keyed and rows.keys is not None else None
    keyless = torch.ones_like(rows.ids, dtype=torch.bool) if keys is None else (keys == 0).all(1)
    wanting = (classes < 0) | (keyless & keyed)
    if rows.owners is None or not len(store):
        wanting = torch.zeros_like(wanting)
    for place, name in enumerate(rows.contributors):
        mine = ((rows.owners == place) & wanting).nonzero().flatten()
        held = store.get(rows.ids[mine].numpy(), name, missing="skip")
        there = mine[torch.isin(rows.ids[mine], torch.tensor(held.ids))]
        if not len(there):
            continue
        at = torch.tensor(np.searchsorted(held.ids, rows.ids[there].numpy(), side="right") - 1)
        classes[there] = torch.where(classes[there] < 0, torch.tensor(held.classes)[at], classes[there])
        if keyed and held.keys is not None:
            if keys is None:
                keys = torch.zeros(len(rows.ids), held.keys.shape[1])
            bare = keyless[there]
            keys[there[bare]] = torch.tensor(held.keys)[at[bare]]
            keyless[there] = (keys[there] == 0).all(1)
    told = rows.classes is not None or bool((classes >= 0).any())
    whole = replace(rows, classes=classes if told else None, keys=keys if keyed else rows.keys)
    return whole.part(~keyless) if keyed and bool(keyless.any()) else whole
