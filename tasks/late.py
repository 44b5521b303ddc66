"""Modules that are imported when first used, so that reading a spec never waits for torch."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any


class _Late(ModuleType):
    """Stands for a module and imports it at the first attribute that is asked for."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), name)
        self.__dict__[name] = value
        return value


def late(name: str) -> Any:
    """Return a stand-in for module ``name``; an attribute is looked up once and then kept."""
    return _Late(name)
