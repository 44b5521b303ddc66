"""Packages that come with an extra of ours and may not be there."""

from __future__ import annotations

from importlib.util import find_spec


def missing(module: str, extra: str) -> str | None:
    """Return what to say where a module is not installed, and None where it is."""
    if find_spec(module) is not None:
        return None
    return f"{extra} needs the package {module}; pip install 'codistill[{extra}]'"
