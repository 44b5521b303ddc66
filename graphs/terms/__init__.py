"""What local training on triples may add to its loss. Each family of terms has a module of its own."""

from . import contrastive, mutual
from .registry import GRAPH_TERMS, GraphTerm

__all__ = ["GRAPH_TERMS", "GraphTerm", "contrastive", "mutual"]
