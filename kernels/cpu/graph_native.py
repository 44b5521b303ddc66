"""``graph_distances.cpp``, called with torch's tensors: float32 queries [B, D] and a float32 table [E, D]."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import compiled
from .library import in_threads, library

PAYS_FROM = 2**20
"""Differences of two numbers in a call from which native code is worth its compilation, once a machine."""

SOURCE = Path(__file__).with_name("graph_distances.cpp")
KINDS = {"absolute": 0, "euclidean": 1, "modulus": 2, "product": 3}
ROWS, LANES = 64, 16
"""Rows, and numbers of a row as the source takes them, in which work is cut for threads, or multiples of them."""

_Pointer, _Integer = ctypes.c_void_p, ctypes.c_int64


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("query", "entities", "candidates")),
        *((name, _Integer) for name in ("count", "width")),
    )


class _Order(ctypes.Structure):
    _fields_ = (*((name, _Pointer) for name in ("starts", "places")), ("many", _Integer))


class _Slopes(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("by", "made", "by_query", "by_entities")),
        *((name, _Integer) for name in ("first", "last")),
    )


def why_not(query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor) -> str:
    """Return why these distances are not made natively, or "" if they can be."""
    if query.dtype != torch.float32 or entities.dtype != torch.float32:
        return f"entities are {entities.dtype}; native code is for float32"
    work = query.numel() * candidates.shape[-1]
    if not work or work < PAYS_FROM:
        return f"{work:,} differences, native from {PAYS_FROM:,}"
    return compiled.why_not() or _library()[1]


def distances(query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor, kind: str) -> torch.Tensor:
    """Do what :func:`codistill.kernels.reference.graph_scores.distances` does."""
    call, kept = _described(query, entities, candidates)
    made = query.new_empty(query.shape[0], candidates.shape[-1])
    functions, number, into = _library()[0], KINDS[kind], made.data_ptr()
    if candidates.dim() == 1:
        in_threads(lambda first, last: functions.shared_distances(call, number, first, last, into), len(query), ROWS)
    else:
        order = _ordered(kept, len(entities))
        in_threads(
            lambda first, last: functions.own_distances(call, number, order, first, last, into), len(entities), ROWS
        )
    del kept  # till here the native code has pointed to it
    return made


def distances_backward(
    by_distances: torch.Tensor,
    query: torch.Tensor,
    entities: torch.Tensor,
    candidates: torch.Tensor,
    made: torch.Tensor,
    kind: str,
    wanted: Sequence[bool],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.graph_scores.distances_backward` does.

    Every number of a gradient is summed by one thread in the same order, so that it does not depend on how many threads
    there are.
    """
    call, kept = _described(query, entities, candidates)
    kept += [by_distances := by_distances.contiguous(), made := made.contiguous()]
    by_query, by_entities = torch.zeros_like(kept[0]), torch.zeros_like(kept[1])
    pointers = [one.data_ptr() for one in (by_distances, made, by_query, by_entities)]
    own = candidates.dim() == 2
    function = _library()[0].own_slopes if own else _library()[0].shared_slopes
    given = (call, KINDS[kind], _ordered(kept, len(entities)) if own else len(query))
    pieces = math.ceil((query.shape[1] // 2 if kind == "modulus" else query.shape[1]) / LANES)
    in_threads(
        lambda first, last: function(*given, _Slopes(*pointers, first, last)),
        pieces,
        math.ceil(pieces / torch.get_num_threads()),
    )
    del kept
    return by_query if wanted[0] else by_query[:0], by_entities if wanted[1] else by_entities[:0]


def _ordered(kept: list[torch.Tensor], many: int) -> _Order:
    """Return where each of ``many`` entities is a candidate, and keep it with what is ``kept``."""
    candidates = kept[2]
    starts = torch.empty(many + 1, dtype=torch.int64)
    places = torch.empty(candidates.numel(), dtype=torch.int64)
    _library()[0].order(candidates.data_ptr(), candidates.numel(), many, starts.data_ptr(), places.data_ptr())
    kept += [starts, places]
    return _Order(starts.data_ptr(), places.data_ptr(), many)


def _described(
    query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor
) -> tuple[_Call, list[torch.Tensor]]:
    """Return what the native code is given, and the tensors that it points to."""
    lowest, highest = candidates.aminmax()
    if lowest < 0 or highest >= len(entities):
        raise IndexError(
            f"graph_scores: a candidate is {int(lowest)} or {int(highest)}, out of {len(entities)} entities"
        )
    kept = [query.contiguous(), entities.contiguous(), candidates.contiguous()]
    return _Call(*(one.data_ptr() for one in kept), candidates.shape[-1], query.shape[1]), kept


@functools.cache
def _library() -> tuple[Any, str]:
    """Return the native functions and "", or None and why there are none."""
    functions, missing = library(SOURCE)
    if functions is not None:
        given, order, slopes = (ctypes.POINTER(_Call), _Integer), ctypes.POINTER(_Order), ctypes.POINTER(_Slopes)
        functions.order.argtypes = (_Pointer, _Integer, _Integer, _Pointer, _Pointer)
        functions.own_distances.argtypes = (*given, order, _Integer, _Integer, _Pointer)
        functions.own_slopes.argtypes = (*given, order, slopes)
        functions.shared_distances.argtypes = (*given, _Integer, _Integer, _Pointer)
        functions.shared_slopes.argtypes = (*given, _Integer, slopes)
        for name in ("order", "own_distances", "own_slopes", "shared_distances", "shared_slopes"):
            getattr(functions, name).restype = None
    return functions, missing
