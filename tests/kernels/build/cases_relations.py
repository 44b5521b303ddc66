"""The relational distance loss as it is launched for batches of 1,024 embeddings."""

from collections.abc import Callable
from functools import partial

import torch
from codistill.kernels.triton.relations import distance


def launched(rows: int, gradient: bool) -> object:
    """Call the launcher; it centres rows in float32, so the embeddings' dtype reaches no kernel."""
    student, teacher = torch.zeros(rows, 512, dtype=torch.bfloat16), torch.zeros(rows, 768, dtype=torch.bfloat16)
    return distance(student, teacher, 1.0, gradient)


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a call of the launcher on CPU tensors."""
    return {
        "forward": partial(launched, 1024, False),
        "forward and gradient": partial(launched, 1024, True),
        "odd number of rows": partial(launched, 1003, True),
    }
