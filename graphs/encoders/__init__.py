"""Structure encoders: what an entity's neighbourhood in its client's graph makes of its embedding.

``ENCODERS["rgcn"].function(parameters, sizes, generator)`` makes one. It is called with a ``Propagation`` (see
:mod:`codistill.graphs.encoders.propagation`) of the client's message graph, by the back end ``torch`` or ``dgl``, and
with the embedding's rows. Importing this package imports neither torch nor DGL.
"""

from .builders import RGCN, Attention, CompGCN, StructureEncoder
from .registry import ENCODERS, Sizes, Widths

__all__ = ["ENCODERS", "Attention", "CompGCN", "RGCN", "Sizes", "StructureEncoder", "Widths"]
