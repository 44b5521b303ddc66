"""What every row of a remembered piece says of itself: who contributed it, in which round, its form and encoding.

Which sample, class or tensor a row is of stands in the row as it is. Packets that travel have this on their label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from .knowledge import FORMS, Knowledge, Rows

COLUMNS = ("contributor", "round", "form", "encoding")
"""``contributor``, ``form`` and ``encoding`` are words (dictionaries of strings), ``round`` is int32."""


def contributors_of(knowledge: Knowledge, maker: str) -> tuple[Sequence[str], np.ndarray | None]:
    """Return who contributed the rows of ``knowledge``: names, and each row's place among them, int64 [N].

    Places are None where all rows are ``maker``'s: models, rows that say of none whose they are, rows that are
    addressed, whose owners are those whom they are for, and valence, whose owners are those whom it is about.
    """
    if isinstance(knowledge, Rows) and knowledge.owners is not None and not (knowledge.addressed or _about(knowledge)):
        return knowledge.contributors, knowledge.owners.numpy()
    return (maker,), None


def with_provenance(
    batch: pa.RecordBatch,
    contributors: tuple[Sequence[str], np.ndarray | None],
    round: int,
    form: str,
    encoding: str,
) -> pa.RecordBatch:
    """Return ``batch`` with the :data:`COLUMNS` after its own; ``contributors`` as :func:`contributors_of` gives."""
    names, places = contributors
    said = [
        _words(names, np.zeros(len(batch)) if places is None else places),
        pa.array(np.full(len(batch), round, np.int32)),
        _words([form], np.zeros(len(batch))),
        _words([encoding], np.zeros(len(batch))),
    ]
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    return pa.RecordBatch.from_pydict(columns | dict(zip(COLUMNS, said, strict=True)))


def _about(rows: Rows) -> bool:
    """Whether rows are about agents, whoever made them."""
    return rows.form in FORMS and FORMS[rows.form].keyed_by == "agent"


def _words(words: Sequence[str], places: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(places.astype(np.int32), pa.array(words, pa.string()))
