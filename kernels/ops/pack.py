"""``codistill::pack_knowledge``: dense logits to the payload that a teacher sends."""

# Annotations are objects here, not strings: torch reads the operators' schemas from them.
from typing import Any

import torch
from torch import Tensor

from ..dispatch import Operation
from ..reference.pack import DTYPES
from .batching import one_batch

PACK = Operation("pack_knowledge", reference=".reference.pack:pack", cpu=".cpu.pack:pack", triton=".triton.pack:pack")


@torch.library.custom_op("codistill::pack_knowledge", mutates_args=())
def pack_knowledge(
    logits: Tensor,
    seed: Tensor | None,
    k: int,
    temperature: float,
    encoding: str,
    clip: float,
    noise: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return indices [N, k], values [N, k], scales [N] or [0], tails [N]; see :mod:`codistill.kernels.reference.pack`.

    It has no gradient: what is sent is sent.
    """
    made: tuple[Tensor, Tensor, Tensor, Tensor] = PACK(
        backend, logits, logits, seed, k, temperature, encoding, clip, noise
    )
    return made


@pack_knowledge.register_fake
def _pack_knowledge_fake(logits: Tensor, seed: Tensor | None, k: int, *said: Any) -> tuple[Tensor, ...]:
    encoding = said[1]
    rows = logits.shape[0]
    return (
        logits.new_empty(rows, k, dtype=torch.int32),
        logits.new_empty(rows, k, dtype=DTYPES[encoding]),
        logits.new_empty(rows if encoding == "int8" else 0, dtype=torch.float32),
        logits.new_empty(rows, dtype=torch.float32),
    )


@pack_knowledge.register_vmap
def _pack_knowledge_batched(info: Any, in_dims: Any, logits: Tensor, seed: Tensor | None, *said: Any) -> Any:
    if in_dims[1] is not None:
        raise NotImplementedError(
            "pack_knowledge: torch.func.vmap over rows that each have a seed of their own is not supported; "
            "pack them as one batch, whose rows get noise of their own"
        )
    size = info.batch_size
    logits = one_batch(logits, in_dims[0], size)
    made = pack_knowledge(logits, seed, *said)
    return tuple(part.view(size, -1, *part.shape[1:]) if part.numel() else part for part in made), tuple(
        0 if part.numel() else None for part in made
    )
