"""Filters at the door: which rows of knowledge an agent lets in, and how many it turned away.

Importing this package registers every filter (``FILTERS``).
"""

from . import agreement, certainty, density, soundness
from .apply import FilterChoice, Filtered, apply_filters
from .registry import FILTERS

__all__ = [
    "FILTERS",
    "FilterChoice",
    "Filtered",
    "agreement",
    "apply_filters",
    "certainty",
    "density",
    "soundness",
]
