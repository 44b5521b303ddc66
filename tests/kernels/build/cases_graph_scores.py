"""graph_scores as it is launched for tables of FB15k's size, with negatives of a row's own and shared ones."""

from collections.abc import Callable
from functools import partial

import torch
from codistill.kernels.triton.graph_scores import distances
from codistill.kernels.triton.graph_scores_backward import distances_backward

BATCH, NEGATIVES, ENTITIES = 64, 256, 1000


def launched(kind: str, width: int, shared: bool, backward: bool, dtype: torch.dtype) -> object:
    """Call a launcher with a float32 query and a table of ``dtype``, as the operator does."""
    query, table = torch.zeros(BATCH, width), torch.zeros(ENTITIES, width, dtype=dtype)
    candidates = torch.zeros((NEGATIVES,) if shared else (BATCH, NEGATIVES), dtype=torch.int64)
    if not backward:
        return distances(query, table, candidates, kind)
    made = torch.zeros(BATCH, NEGATIVES)
    return distances_backward(made, query, table, candidates, made, kind, [True, True])


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a call of a launcher on CPU tensors."""
    found: dict[str, Callable[[], object]] = {}
    for kind, width in (("absolute", 512), ("euclidean", 512), ("modulus", 1024), ("product", 512)):
        for shared in (False, True):
            for backward in (False, True):
                name = f"{kind} {'shared' if shared else 'own'} {'backward' if backward else 'forward'} bf16"
                found[name] = partial(launched, kind, width, shared, backward, torch.bfloat16)
    found["absolute own forward fp32"] = partial(launched, "absolute", 512, False, False, torch.float32)
    found["modulus own backward odd width"] = partial(launched, "modulus", 1002, False, True, torch.bfloat16)
    return found
