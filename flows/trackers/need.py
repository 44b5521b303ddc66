"""Packages that a tracker needs and that may not be there."""

from importlib.util import find_spec

from ...tasks.trackers import TrackerError


def need(module: str, extra: str) -> None:
    """Raise ``TrackerError`` where a module is not installed."""
    if find_spec(module) is None:
        raise TrackerError(f"track: {extra} needs the package {module}; pip install 'codistill[{extra}]'")
