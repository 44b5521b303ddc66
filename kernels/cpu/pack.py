"""``pack_knowledge`` on a CPU: torch's top-k, and the rest as one graph."""

from __future__ import annotations

import torch

from ..reference.kd import accumulated
from ..reference.pack import described, perturbed
from .compiled import compiled_when_it_pays, of_any_length


def one_graph(
    z: torch.Tensor, kept: torch.Tensor, indices: torch.Tensor, temperature: float, encoding: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Do what the reference does once the top-k is known; ``temperature`` may be a tensor []."""
    return described(z, kept, indices, temperature, encoding)


def pack(
    logits: torch.Tensor,
    seed: torch.Tensor | None,
    k: int,
    temperature: float,
    encoding: str,
    clip: float,
    noise: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.pack.pack` does."""
    z = perturbed(accumulated(logits), seed, clip, noise)
    kept, indices = torch.topk(z, k, dim=1)
    do = compiled_when_it_pays(one_graph, z.numel(), (k, z.shape[1], encoding))
    made: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    with torch.no_grad():
        if do is one_graph:
            made = do(z, kept, indices, temperature, encoding)
        else:
            given = [of_any_length(one) for one in (z, kept, indices)]
            made = do(*given, torch.tensor(temperature), encoding)
    return made
