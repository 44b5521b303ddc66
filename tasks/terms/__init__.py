"""What local training may add to cross entropy. Each family of terms has a module of its own."""

from . import anchored, by_class, by_sample, generated, less_forgetting, mutual
from .registry import TERMS, Batch, Pair, Term, Weight

__all__ = [
    "TERMS",
    "Batch",
    "Pair",
    "Term",
    "Weight",
    "anchored",
    "by_class",
    "by_sample",
    "generated",
    "less_forgetting",
    "mutual",
]
