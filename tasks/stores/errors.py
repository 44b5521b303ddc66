"""What goes wrong with a store, each in one sentence that says where and what to do."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 5
"""Missing ids that a message lists."""


class StoreError(ValueError):
    """A store cannot be made, read or written as it was asked."""


class MissingError(StoreError):
    """Entries that were asked for are not there; ``ids`` are all of them."""

    def __init__(self, store: str, ids: Sequence[int], contributor: str | None) -> None:
        self.ids = tuple(ids)
        some = ", ".join(map(str, self.ids[:SHOWN])) + (", ..." if len(self.ids) > SHOWN else "")
        whose = "" if contributor is None else f" of {contributor!r}"
        super().__init__(
            f"store {store!r} holds no entry{whose} for {len(self.ids)} of the ids asked for ({some}); "
            'store them first, or pass missing="skip"'
        )
