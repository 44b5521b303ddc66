"""From the files of one graph to its triples, with notes on what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...tasks.data.dataset import DataError
from ...tasks.late import late
from ..triples import PIECES, Triples, first_of_each, triple_keys
from .files import File, Files, find_piece
from .lines import TRIPLE, find_row, read_rows
from .names import common_names, listed_names

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from torch import Tensor
else:
    torch = late("torch")

ENTITIES_AND_RELATIONS = (("entities", ("head", "tail")), ("relations", ("relation",)))


def _find(files: Files, where: str) -> dict[str, File]:
    found: dict[str, File] = {}
    for piece in PIECES:
        file = find_piece(files, piece)
        if file is None:
            rest = "" if piece == "train" else "; an empty one says that there is none"
            raise DataError(
                f"{where}: {piece}.txt or {piece}.tsv (or .gz, .xz) is missing, expected lines of "
                f"{' TAB '.join(TRIPLE)}{rest}"
            )
        found[piece] = file
    unlearn = find_piece(files, "unlearn")
    return found if unlearn is None else {**found, "unlearn": unlearn}


def _names_of(tables: Iterable[pa.Table], columns: tuple[str, ...]) -> list[str]:
    """Return the names in ``columns`` of all ``tables``, sorted by code point."""
    import pyarrow as pa
    from pyarrow import compute

    chunks = [chunk for table in tables for column in columns for chunk in table[column].chunks]
    return sorted(compute.unique(pa.chunked_array(chunks, pa.string())).to_pylist())


def _with_listed(
    used: list[str], what: str, columns: tuple[str, ...], files: Files, pieces: Mapping[str, File]
) -> list[str]:
    """Return the names of the client's list, if it has one, sorted; else those that its triples use."""
    file = files.get(f"{what}.dict")
    if file is None:
        return used
    listed = listed_names(file)
    strange = set(used).difference(listed)
    if strange:
        at = [TRIPLE.index(column) for column in columns]
        for piece in pieces.values():
            found = find_row(piece.read(), TRIPLE, piece.label, lambda row: any(row[one] in strange for one in at))
            if found is not None:
                name = next(found[1][one] for one in at if found[1][one] in strange)
                raise DataError(
                    f"{piece.label}, line {found[0]}: {name!r} is not in {file.label}, expected one of its "
                    f"{len(listed):,} {what}; add it there, or delete {what}.dict, which need not be"
                )
    return sorted(listed)


def _rows(table: pa.Table, entities: list[str], relations: list[str]) -> Tensor:
    """Return a table of names as int64 [N, 3] of positions in the sorted names."""
    import pyarrow as pa
    from pyarrow import compute

    known = {"head": pa.array(entities), "relation": pa.array(relations), "tail": pa.array(entities)}
    ids = [compute.index_in(table[column], known[column]).to_numpy().astype(np.int64) for column in TRIPLE]
    return torch.from_numpy(np.stack(ids, axis=1))


def _check_unlearn(unlearn: Tensor, strange: Tensor, own: Mapping[str, list[str]], pieces: Mapping[str, File]) -> None:
    """Raise ``DataError`` if one of the ``unlearn`` triples is ``strange``: bool [N], not in train."""
    if not strange.any():
        return
    head, relation, tail = unlearn[strange][0].tolist()
    first = own["entities"][head], own["relations"][relation], own["entities"][tail]
    file = pieces["unlearn"]
    found = find_row(file.read(), TRIPLE, file.label, lambda row: row == first)
    line = "" if found is None else f", line {found[0]}"
    raise DataError(
        f"{file.label}{line}: {' '.join(first)} is not in {pieces['train'].label}, expected a triple that is learned; "
        "add it there, or delete the line"
    )


def _few(number: int, one: str, more: str) -> str:
    return f"1 {one}" if number == 1 else f"{number:,} {more}"


def _notes(
    rows: Mapping[str, Tensor], keys: Mapping[str, Tensor], dropped: Mapping[str, int], entities: int
) -> list[str]:
    """Return a sentence for each thing about the triples that somebody might want to know."""
    notes = [
        f"{_few(number, 'duplicate triple', 'duplicate triples')} dropped from {piece}"
        for piece, number in dropped.items()
        if number
    ]
    every = torch.cat([rows[piece] for piece in PIECES])
    loops = int((every[:, 0] == every[:, 2]).sum())
    if loops:
        notes.append(f"{_few(loops, 'triple', 'triples')} from an entity to itself kept")
    seen = torch.unique(rows["train"][:, [0, 2]])
    tested = torch.unique(torch.cat([rows["valid"], rows["test"]])[:, [0, 2]])
    unseen = int((~torch.isin(tested, seen)).sum())
    if unseen:
        notes.append(
            f"{_few(unseen, 'entity is', 'entities are')} in valid or test but not in train, and ranked like the others"
        )
    idle = entities - len(torch.unique(every[:, [0, 2]]))
    if idle:
        notes.append(
            f"{_few(idle, 'listed entity is', 'listed entities are')} in no triple, and ranked like the others"
        )
    relations = int((~torch.isin(torch.unique(every[:, 1]), torch.unique(rows["train"][:, 1]))).sum())
    if relations:
        notes.append(f"{_few(relations, 'relation is', 'relations are')} in valid or test but not in train")
    for piece in ("valid", "test"):
        if len(rows[piece]) == 0:
            notes.append(f"{piece} is empty")
        known = int(torch.isin(keys[piece], keys["train"]).sum())
        if known:
            notes.append(f"{_few(known, 'triple', 'triples')} of {piece} also in train, so ranked too well")
    return notes


def read_triples(files: Files, where: str) -> tuple[Triples, tuple[str, ...]]:
    """Return the graph of the files train, valid and test, and notes on what was found in them.

    Beside them may lie unlearn (triples of train), entities.dict and relations.dict (all names: number TAB name) and
    entities.map and relations.map (own name TAB the name that clients are aligned by). A local id is the position
    among the sorted (aligned) names, so it depends on which names there are and not on the order of lines. Duplicates
    are dropped; triples from an entity to itself are kept. An entity that only valid or test have is kept, for it has
    to be ranked, and in a federation others may train it.

    Raises ``DataError`` with file and line for what does not fit; ``where`` stands for the files as a whole.
    """
    pieces = _find(files, where)
    tables = {piece: read_rows(file.read(), TRIPLE, file.label) for piece, file in pieces.items()}
    if tables["train"].num_rows == 0:
        raise DataError(f"{pieces['train'].label} has no triples, expected lines of {' TAB '.join(TRIPLE)}")
    notes: list[str] = []
    own: dict[str, list[str]] = {}
    common: dict[str, list[str]] = {}
    for what, columns in ENTITIES_AND_RELATIONS:
        own[what] = _with_listed(_names_of(tables.values(), columns), what, columns, files, pieces)
        common[what] = own[what]
        if f"{what}.map" in files:
            common[what], told = common_names(own[what], files[f"{what}.map"], what)
            notes.append(told)
    order = {what: sorted(range(len(names)), key=names.__getitem__) for what, names in common.items()}
    own = {what: [own[what][at] for at in order[what]] for what in own}
    sizes = len(own["entities"]), len(own["relations"])
    rows, keys, dropped = {}, {}, {}
    for piece, table in tables.items():
        every = _rows(table, own["entities"], own["relations"])
        kept = first_of_each(triple_keys(every, *sizes))
        rows[piece], dropped[piece] = every[kept], len(every) - len(kept)
        keys[piece] = triple_keys(rows[piece], *sizes)
    if "unlearn" in rows:
        _check_unlearn(rows["unlearn"], ~torch.isin(keys["unlearn"], keys["train"]), own, pieces)
    names = {what: tuple(common[what][at] for at in order[what]) for what in common}
    graph = Triples(names["entities"], names["relations"], **rows)
    return graph, (*notes, *_notes(rows, keys, dropped, sizes[0]))
