"""Which back end does a call: what the argument says, else the environment variable, else the device."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

VARIABLE = "CODISTILL_KERNELS"
BACKENDS = ("reference", "cpu", "triton")


@dataclass
class Ran:
    """What did a call: ``operation``, ``backend``, the ``reason`` for it, and how it went about it (``detail``)."""

    operation: str
    backend: str
    reason: str
    detail: str = ""


_WATCHING: ContextVar[list[Ran] | None] = ContextVar("watching", default=None)


@contextmanager
def watch() -> Iterator[list[Ran]]:
    """Collect what runs inside the ``with`` block: ``with watch() as ran: kd_loss(...)``; then read ``ran``."""
    ran: list[Ran] = []
    token = _WATCHING.set(ran)
    try:
        yield ran
    finally:
        _WATCHING.reset(token)


def detail(text: str) -> None:
    """Let a back end say how it does the call that is under way."""
    ran = _WATCHING.get()
    if ran:
        ran[-1].detail = text


@functools.cache
def installed(name: str) -> bool:
    """Whether a module can be imported; looked up once, for looking costs more than a small kernel."""
    return find_spec(name) is not None


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


class Operation:
    """The implementations of one operation by back end, as ``package.module:function``, imported when first used."""

    def __init__(self, name: str, **implementations: str) -> None:
        self.name = name
        self._where = implementations
        self._found: dict[str, Callable[..., Any]] = {}

    def __call__(self, backend: str, subject: torch.Tensor, *arguments: Any) -> Any:
        """Call the back end for tensors like ``subject``; ``backend`` is a name, or "" where nobody asked.

        Raises ``ValueError`` where the back end that was asked for cannot do it.
        """
        name, reason = self.choose(backend, subject)
        ran = _WATCHING.get()
        if ran is not None:
            ran.append(Ran(self.name, name, reason))
        if name not in self._found:
            module, _, function = self._where[name].partition(":")
            self._found[name] = getattr(importlib.import_module(module, __package__), function)
        return self._found[name](*arguments)

    def choose(self, backend: str, subject: torch.Tensor) -> tuple[str, str]:
        """Return the back end for tensors like ``subject`` and why."""
        asked, by = backend, "the argument `backend` says so"
        if not asked:
            asked, by = os.environ.get(VARIABLE, ""), f"the environment variable {VARIABLE} says so"
        if asked:
            if asked not in BACKENDS:
                raise ValueError(f"{self.name}: there is no back end {asked!r}; expected one of {', '.join(BACKENDS)}")
            why_not = self._why_not(asked, subject)
            if why_not:
                raise ValueError(f"{self.name}: the back end {asked!r} was asked for ({by}), but {why_not}")
            return asked, by
        natural = "triton" if subject.is_cuda else "cpu" if subject.device.type == "cpu" else "reference"
        why_not = self._why_not(natural, subject)
        if why_not:
            return "reference", why_not
        return natural, f"the tensors are on {subject.device.type}"

    def _why_not(self, backend: str, subject: torch.Tensor) -> str:
        if backend not in self._where:
            return f"{self.name} has no {backend} implementation"
        if backend == "triton":
            if not installed("triton"):
                return "Triton is not installed; `pip install codistill[triton]` brings it"
            if subject.dtype == torch.float64:
                return "float64 is for the reference alone"
            if not subject.is_cuda and not interpreted():
                return f"the tensors are on {subject.device.type}, and Triton needs a GPU"
        if backend == "cpu":
            if subject.device.type != "cpu":
                return f"the tensors are on {subject.device.type}"
            if subject.dtype == torch.float64:
                return "float64 is for the reference alone"
        return ""
