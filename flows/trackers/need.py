"""Packages that a tracker needs and that may not be there."""

from ...tasks.trackers import TrackerError
from ..extras import missing


def need(module: str, extra: str) -> None:
    """Raise ``TrackerError`` where a module is not installed."""
    sentence = missing(module, extra)
    if sentence is not None:
        raise TrackerError(f"track: {sentence}")
