"""Stores: bounded, typed tables of entries on disk, mapped into memory, with provenance in every row.

A library of its own inside ``tasks``: it knows nothing of agents, specs or runs.
"""

from .declaration import Capacity, Declaration
from .entries import Entries, Statistics, Stored, entries
from .errors import MissingError, StoreError
from .eviction import EVICTIONS
from .search import Found
from .store import Store
from .summary import ClassMeans, Sums, consolidated

__all__ = [
    "EVICTIONS",
    "Capacity",
    "ClassMeans",
    "Declaration",
    "Entries",
    "Found",
    "MissingError",
    "Statistics",
    "Store",
    "StoreError",
    "Stored",
    "Sums",
    "consolidated",
    "entries",
]
