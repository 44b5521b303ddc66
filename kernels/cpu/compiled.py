"""Compiling a function when that pays, and only then: a first call takes ten seconds or more."""

from __future__ import annotations

import functools
import logging
import os
import shutil
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


def compiled_when_it_pays(function: Callable[..., Any], work: int, key: Hashable) -> Callable[..., Any]:
    """Return ``function``, compiled if ``work`` elements are many and a compiler is there.

    Calls with another ``key`` (settings, the number of tensors) are compiled apart.
    """
    if work < PAYS_FROM:
        detail(f"plain: {work:,} elements, compiled from {PAYS_FROM:,}")
        return function
    missing = _why_not()
    if missing:
        detail(f"plain: {missing}")
        return function
    detail("one graph, compiled")
    return _compiled(function, key)


@functools.cache
def _why_not() -> str:
    if os.environ.get(VARIABLE) == "0":
        return f"{VARIABLE} is 0"
    compiler = os.environ.get("CXX") or "g++"
    return "" if shutil.which(compiler) else f"there is no C++ compiler ({compiler})"


@functools.lru_cache(maxsize=64)
def _compiled(function: Callable[..., Any], key: Hashable) -> Callable[..., Any]:
    # torch counts compilations by code object and gives up after eight: each key gets a copy of its own.
    assert isinstance(function, types.FunctionType)
    copy = types.FunctionType(
        function.__code__.replace(co_name=f"{function.__name__}_{abs(hash(key)) % 10**8}"),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    _LOG.info("compiling %s for the CPU, once a process; %s=0 avoids it", function.__name__, VARIABLE)
    made: Callable[..., Any] = torch.compile(copy)
    return made
