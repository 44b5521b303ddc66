"""What entries go through on their way into a store, and who makes room for them."""

from __future__ import annotations

import numpy as np

from .columns import Block, Layout, Marks
from .declaration import Declaration
from .entries import Entries
from .errors import StoreError
from .eviction import DRAWING, EVICTIONS, Held
from .table import Table


def layout_for(given: Entries, declaration: Declaration, name: str, held: Layout | None) -> Layout:
    """Return the layout of a store, which its first entries decide; ``StoreError`` where ``given`` do not fit it."""
    keyed = declaration.keys != "none"
    if keyed and given.keys is None:
        raise StoreError(f"store {name!r}: entries have no keys, and its declaration says keys: {declaration.keys}")
    width, key_width = given.values.shape[1], given.keys.shape[1] if keyed and given.keys is not None else 0
    if held is not None:
        if (width, key_width) != (held.width, held.key_width):
            raise StoreError(
                f"store {name!r}: entries have {width} values and {key_width} numbers in their keys; it holds "
                f"{held.width} and {held.key_width}; keep entries of other widths in another store"
            )
        return held
    if not width or (keyed and not key_width):
        raise StoreError(f"store {name!r}: entries have rows of no numbers; expected at least one")
    layout, capacity = Layout(declaration, width, key_width), declaration.capacity
    if capacity is not None and not capacity.entries(layout.row_bytes):
        raise StoreError(
            f"store {name!r}: its capacity of {capacity.bytes} bytes holds no entry, which takes {layout.row_bytes}; "
            "give it more"
        )
    return layout


def encoded(given: Entries, layout: Layout) -> tuple[Block, np.ndarray]:
    """Return the entries that can be held, encoded, and their places among ``given``. Owners are still those given.

    What has a NaN or an infinity in values, keys, weight or confidence, before or after the encoding, is left out.
    """
    keys = given.keys if layout.key_width else None
    fine = _finite(given.values) & np.isfinite(given.weights) & np.isfinite(given.confidence)
    if keys is not None:
        fine &= _finite(keys)
    some = np.flatnonzero(fine)
    with np.errstate(over="ignore"):
        values, held = layout.encoded(given.values[some], None if keys is None else keys[some])
        fits = _finite(layout.values(values))
        again = layout.keys(held)
        if again is not None:
            fits &= _finite(again)
    owners, rounds = given.owners[some].astype(np.int32), given.rounds[some].astype(np.int32)
    block = Block(given.ids[some], given.classes[some], owners, rounds, given.weights[some], values, held)
    return (block, some) if fits.all() else (block.part(fits), some[fits])


def _finite(values: np.ndarray) -> np.ndarray:
    finite: np.ndarray = np.isfinite(values).all(axis=1)
    return finite


def places_of(contributors: tuple[str, ...], named: np.ndarray, table: Table) -> np.ndarray:
    """Return each contributor's place in the table, int32, entering those that are ``named`` and new; else -1."""
    places = np.full(len(contributors), -1, np.int32)
    for owner in np.unique(named):
        if table.place(contributors[owner]) < 0:
            table.contributors.append(contributors[owner])
        places[owner] = table.place(contributors[owner])
    return places


def last_of_each(block: Block) -> np.ndarray:
    """Return the places of the last entry of each id and contributor, rising."""
    order = np.lexsort((np.arange(len(block)), block.owners, block.ids))
    ids, owners = block.ids[order], block.owners[order]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (ids[1:] != ids[:-1]) | (owners[1:] != owners[:-1])
    return np.sort(order[last])


def draws(declaration: Declaration) -> bool:
    """Whether entries of the store draw a number when they come."""
    return declaration.eviction.name in DRAWING


def fresh(confidence: np.ndarray, round: int, first: int, drawn: np.ndarray | None) -> Marks:
    """Return the marks of new entries, the first of which has the place ``first`` among all that ever came."""
    many = len(confidence)
    return Marks(
        np.ones(many, np.bool_),
        np.full(many, round, np.int32),
        np.zeros(many, np.int32),
        confidence.astype(np.float32),
        np.ones(many, np.float32),
        np.arange(first, first + many),
        np.zeros(many) if drawn is None else drawn,
    )


def make_room(table: Table, layout: Layout) -> int:
    """Let as many entries leave as are beyond the capacity, by the rule of the declaration, and return how many."""
    capacity, eviction = layout.declaration.capacity, layout.declaration.eviction
    leaving = 0 if capacity is None else max(0, table.living - capacity.entries(layout.row_bytes))
    if leaving:
        rows = table.rows()

        def features(places: np.ndarray) -> np.ndarray:
            block = table.gather(rows[places])
            keys = layout.keys(block.keys)
            return layout.values(block.values) if keys is None else keys

        held = Held(
            table.column(lambda part: part.block.rounds),
            table.column(lambda part: part.marks.last_used),
            table.column(lambda part: part.marks.confidence),
            table.column(lambda part: part.marks.draws),
            table.column(lambda part: part.block.classes),
            features,
        )
        table.kill(rows[EVICTIONS[eviction.name].function(eviction.parameters, held, leaving)])
    return leaving
