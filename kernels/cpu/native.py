"""``group_maxima.cpp``, called with torch's tensors."""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..retrieve_settings import SMALLEST_NORM, Bank, Queries, Settings
from . import compiled
from .library import in_threads, library

MEMORIES = 16
"""Memories that the source multiplies at a time."""

PAYS_FROM = 2**24
"""Scores of a call from which it is compiled; with fewer it is used if it is there already."""

FEWEST = 16
"""Queries below which packing the memories costs more than it saves."""

SOURCE = Path(__file__).with_name("group_maxima.cpp")
_Pointer, _Integer = ctypes.c_void_p, ctypes.c_int64


class _Bank(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("single", "codes", "scales", "bias", "kept", "owner", "class_", "members")),
        *((name, _Integer) for name in ("depth", "unit")),
        *((name, ctypes.c_float) for name in ("squares", "smallest")),
    )


class _Queries(ctypes.Structure):
    _fields_ = (*((name, _Pointer) for name in ("rows", "owner", "class_")), ("count", _Integer))


def why_not(rows: int, count: int) -> str:
    """Return why the scores of so many queries and memories are not made natively, or "" if they can be."""
    if rows < FEWEST:
        return f"{rows} queries, native from {FEWEST}"
    if rows * count < PAYS_FROM and not _library.cache_info().currsize:
        return f"{rows * count:,} scores, native from {PAYS_FROM:,}"
    return compiled.why_not() or _library()[1]


@dataclass(frozen=True)
class Packed:
    """Queries as the native code wants them: ``rows`` [tiles, D, together]; ``owner`` and ``class_`` int64 [``count``].

    How many are together is the native code's choice: what fills the registers of the processor.
    """

    rows: torch.Tensor
    owner: torch.Tensor | None
    class_: torch.Tensor | None
    count: int


def pack(queries: torch.Tensor, asked: Queries) -> Packed:
    """Pack prepared float32 ``queries`` [Q, D] and whose they are."""
    (rows, depth), together = queries.shape, _library()[0].queries_together()
    tiles = math.ceil(rows / together)
    padded = torch.nn.functional.pad(queries, (0, 0, 0, tiles * together - rows))
    return Packed(
        padded.view(tiles, together, depth).transpose(1, 2).contiguous(),
        _identifiers(asked.owner),
        _identifiers(asked.class_),
        rows,
    )


def group_maxima(
    packed: Packed, bank: Bank, members: torch.Tensor | None, settings: Settings, group: int, out: torch.Tensor
) -> float:
    """Write maxima of groups of ``group`` memories to ``out`` [Q, >= groups] and return the length of the longest key.

    The memories are the ``members`` int64 of the bank, or all; neighbours are a group. There are 16 groups for every
    16 * ``group`` memories or fewer; what is beyond the last memory is -inf.
    """
    described, asked, kept = _described(packed, bank, members, settings)
    count, block = len(bank.keys) if members is None else len(members), MEMORIES * group
    function = _library()[0].group_maxima

    def some(first: int, last: int) -> float:
        longest: float = function(described, asked, first, last, group, out.data_ptr(), out.stride(0))
        return longest

    longest = max(in_threads(some, count, block))
    del kept  # till here the native code has pointed to it
    return longest


def member_scores(
    packed: Packed, queries: torch.Tensor, at: torch.Tensor, bank: Bank, settings: Settings
) -> torch.Tensor:
    """Return the scores [Q, n] of the memories ``at`` int64 [Q, n], -inf where that is -1, of prepared ``queries``.

    What is no number is infinite. ``packed`` are the same queries; the bank is float32 or int8.
    """
    described, asked, kept = _described(packed, bank, None, settings)
    kept += [queries := queries.contiguous(), at := at.contiguous()]
    scores = torch.empty(at.shape)
    function = _library()[0].member_scores

    def some(first: int, last: int) -> None:
        pointers = at.data_ptr(), at.shape[1], scores.data_ptr()
        function(described, asked, queries.data_ptr(), first, last, *pointers)

    in_threads(some, len(at), 1)
    del kept
    return scores


def _described(
    packed: Packed, bank: Bank, members: torch.Tensor | None, settings: Settings
) -> tuple[_Bank, _Queries, list[torch.Tensor | None]]:
    """Return what the native code is given, and the tensors that it points to."""
    keys, int8 = bank.keys, bank.key_scales is not None
    given = [
        None if int8 else keys.float().contiguous(),
        keys.contiguous() if int8 else None,
        None if bank.key_scales is None else bank.key_scales.float().contiguous(),
        None if bank.bias is None else bank.bias.float().contiguous(),
        None if bank.kept is None else bank.kept.contiguous(),
        None if packed.owner is None else _identifiers(bank.owner),
        None if packed.class_ is None else _identifiers(bank.class_),
        None if members is None else members.contiguous(),
    ]
    squares = -settings.scale if settings.similarity == "l2" else 0.0
    described = _Bank(*map(_address, given), keys.shape[1], settings.similarity == "cosine", squares, SMALLEST_NORM)
    asked = _Queries(*map(_address, (packed.rows, packed.owner, packed.class_)), packed.count)
    return described, asked, given


def _identifiers(given: torch.Tensor | None) -> torch.Tensor | None:
    return None if given is None else given.long().contiguous()


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


@functools.cache
def _library() -> tuple[Any, str]:
    """Return the native functions and "", or None and why there are none."""
    functions, missing = library(SOURCE)
    if functions is not None:
        both = (ctypes.POINTER(_Bank), ctypes.POINTER(_Queries))
        functions.queries_together.argtypes, functions.queries_together.restype = (), _Integer
        functions.group_maxima.argtypes = (*both, _Integer, _Integer, _Integer, _Pointer, _Integer)
        functions.group_maxima.restype = ctypes.c_float
        functions.member_scores.argtypes = (*both, _Pointer, _Integer, _Integer, _Pointer, _Integer, _Pointer)
        functions.member_scores.restype = None
    return functions, missing
