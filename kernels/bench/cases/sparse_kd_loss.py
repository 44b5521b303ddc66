"""``sparse_kd_loss``, forward and backward: a teacher of k classes and a tail, as int8."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F

from ...pack import pack_knowledge
from ...sparse import sparse_kd_loss
from ..case import EAGER, OURS, Case, Outputs, Prepared, back_ends, drawn

TEMPERATURE = 2.0


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Yield a classifier and a language model."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    large = 8192 if device.type == "cuda" else 256
    for rows, classes, kept in [(4096, 1000, 16)] if quick else [(4096, 1000, 16), (large, 32000, 64)]:
        yield Case(
            "sparse_kd_loss",
            f"{rows}x{classes} k={kept}",
            dtype,
            2 * rows * classes * dtype.itemsize + rows * (8 + 5 * kept + 8),
            6e-3 if dtype == torch.bfloat16 else 1e-5,
            partial(prepare, device, dtype, rows, classes, kept),
        )


def prepare(device: torch.device, dtype: torch.dtype, rows: int, classes: int, kept: int) -> Prepared:
    """Draw logits and pack the teacher's."""
    student = drawn(device, dtype, rows, classes, spread=3).requires_grad_()
    packed = pack_knowledge(drawn(device, dtype, rows, classes, seed=1, spread=3), k=kept, temperature=TEMPERATURE)
    labels = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(0)).to(device)
    scales = packed.scales
    assert scales is not None

    def eager(z: torch.Tensor) -> torch.Tensor:
        z = z if z.dtype == torch.float64 else z.float()
        at = packed.indices.long()
        ratios = torch.exp((packed.values.to(z.dtype) - 127) * scales[:, None].to(z.dtype))
        tail = torch.sigmoid(packed.tails.to(z.dtype))
        p = ratios / ratios.sum(1, keepdim=True) * (1 - tail)[:, None]
        log_q = F.log_softmax(z / TEMPERATURE, 1)
        rest = torch.logsumexp(log_q.scatter(1, at, -torch.inf), 1)
        terms = torch.special.xlogy(p, p) - p * log_q.gather(1, at)
        divergence = terms.sum(1) + torch.special.xlogy(tail, tail) - tail * rest
        loss: torch.Tensor = F.cross_entropy(z, labels) + TEMPERATURE**2 * divergence.mean()
        return loss

    def ours(z: torch.Tensor, name: str) -> torch.Tensor:
        return sparse_kd_loss(z, packed, labels, backend=name)

    def both(loss: partial[torch.Tensor], z: torch.Tensor = student) -> Outputs:
        made = loss(z)
        return made, *torch.autograd.grad(made, z)

    providers = {f"{OURS}{name}": partial(both, partial(ours, name=name)) for name in back_ends(device)}
    providers |= {
        EAGER: partial(both, partial(eager)),
        "torch.compile": partial(both, partial(torch.compile(eager, dynamic=False))),
    }
    return Prepared(providers, lambda: both(partial(eager), student.detach().double().requires_grad_()))
