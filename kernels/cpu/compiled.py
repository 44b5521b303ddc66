"""Compiling a function when that pays, and only then: a first call takes ten seconds or more."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import shutil
import sys
import types
from collections.abc import Callable, Hashable
from typing import Any

import torch

from ..dispatch import detail

PAYS_FROM = 1_000_000
"""Elements that a call reads, from which compiled code is worth its compilation (docs/kernels.md)."""

VARIABLE = "CODISTILL_COMPILE"
"""Set to 0 to never compile."""

_LOG = logging.getLogger(__name__)
_NUMBERS = itertools.count(1)
_failures: list[str] = []


def compiled_when_it_pays(function: Callable[..., Any], work: int, key: Hashable) -> Callable[..., Any]:
    """Return ``function``, compiled if ``work`` elements are many and a compiler is there.

    Calls with another ``key`` are compiled apart: whatever the graph depends on belongs in there.
    """
    if work < PAYS_FROM:
        detail(f"plain: {work:,} elements, compiled from {PAYS_FROM:,}")
        return function
    missing = why_not()
    if missing:
        detail(f"plain: {missing}")
        return function
    detail("one graph, compiled")
    return _compiled(function, key)


def why_not() -> str:
    """Return why nothing is compiled here, or "" where it can be."""
    if os.environ.get(VARIABLE) == "0":
        return f"{VARIABLE} is 0"
    if _failures:
        return _failures[0]
    there = _is_there(compiler().split()[0], os.environ.get("PATH"))
    return "" if there else f"there is no C++ compiler ({compiler()})"


@functools.lru_cache(maxsize=16)
def _is_there(command: str, path: str | None) -> bool:
    # Looking takes longer than a small kernel.
    return shutil.which(command, path=path) is not None


def compiler() -> str:
    """Return the command of the C++ compiler."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def of_any_length(tensor: torch.Tensor) -> torch.Tensor:
    """Return an alias of ``tensor`` whose first dimension a graph is compiled for whatever its length is."""
    from torch._dynamo import maybe_mark_dynamic

    alias = tensor.detach()
    maybe_mark_dynamic(alias, 0)
    return alias


@functools.lru_cache(maxsize=64)
def _compiled(function: Callable[..., Any], key: Hashable) -> Callable[..., Any]:
    # torch counts compilations by code object and gives up after eight: each key gets a copy of its own.
    assert isinstance(function, types.FunctionType)
    copy = types.FunctionType(
        function.__code__.replace(co_name=f"{function.__name__}_{next(_NUMBERS)}"),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    _LOG.info("compiling %s for the CPU, once a process; %s=0 avoids it", function.__name__, VARIABLE)
    fast = torch.compile(copy, fullgraph=True)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        if _failures:
            return function(*arguments)
        try:
            return fast(*arguments)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            _failures.append(f"compiling failed ({type(error.__cause__ or error).__name__})")
            _LOG.warning("codistill.kernels: torch.compile failed, and nothing is compiled from here on: %s", error)
            detail(f"plain: {_failures[0]}")
            return function(*arguments)

    return call
