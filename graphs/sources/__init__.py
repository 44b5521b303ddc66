"""Where knowledge graphs come from. Importing this package registers every source (``GRAPHS``)."""

from . import folders, published
from .read import read_triples
from .registry import GRAPHS, Graphs, GraphSource

__all__ = ["GRAPHS", "GraphSource", "Graphs", "folders", "published", "read_triples"]
