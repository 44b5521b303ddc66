"""The relational losses as they are launched for batches of embeddings."""

from collections.abc import Callable
from functools import partial

import torch
from codistill.kernels.triton.angle import angle
from codistill.kernels.triton.relations import distance


def launched(launcher: Callable[..., object], rows: int, gradient: bool) -> object:
    """Call a launcher; it centres rows in float32, so the embeddings' dtype reaches no kernel."""
    student, teacher = torch.zeros(rows, 512, dtype=torch.bfloat16), torch.zeros(rows, 768, dtype=torch.bfloat16)
    return launcher(student, teacher, 1.0, gradient)


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a call of a launcher on CPU tensors."""
    return {
        "forward": partial(launched, distance, 256, False),
        "forward and gradient": partial(launched, distance, 256, True),
        "odd number of rows": partial(launched, distance, 251, True),
        "angle forward": partial(launched, angle, 256, False),
        "angle forward and gradient": partial(launched, angle, 256, True),
        "angle, odd number of rows": partial(launched, angle, 251, True),
    }
