"""``linear_kd_loss``, forward and backward: the loss from hidden states and heads."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F

from ...linear import linear_kd_loss
from ..case import EAGER, OURS, Case, Outputs, Prepared, Provider, back_ends, drawn, has_liger

BLOCK = 1024
"""Rows of which the float64 logits are held at once."""


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Yield one head, for the divergence from the teacher and for Jensen and Shannon's, which Liger has."""
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    rows, width, classes = (8192, 4096, 128256) if cuda and not quick else (1024, 256, 8192)
    for mode in ("forward", "jsd"):
        # Hidden states, heads and the gradients of the student's; the products cost more than the bytes.
        size = (3 * rows * width + 3 * classes * width) * dtype.itemsize + rows * 8
        yield Case(
            "linear_kd_loss",
            f"{rows}x{width}->{classes} {mode}",
            dtype,
            size,
            2e-2 if dtype == torch.bfloat16 else 1e-4,
            partial(prepare, device, dtype, rows, width, classes, mode),
        )


def prepare(device: torch.device, dtype: torch.dtype, rows: int, width: int, classes: int, mode: str) -> Prepared:
    """Draw hidden states and heads so that logits spread by three."""
    hidden, teacher = (drawn(device, dtype, rows, width, seed=seed) for seed in (0, 1))
    head, teacher_head = (drawn(device, dtype, classes, width, seed=seed, spread=3 * width**-0.5) for seed in (2, 3))
    leaves = [hidden.requires_grad_(), head.requires_grad_()]
    labels = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(0)).to(device)

    def eager(
        states: torch.Tensor, weights: torch.Tensor, others: torch.Tensor, theirs: torch.Tensor, said: torch.Tensor
    ) -> torch.Tensor:
        z, t = states @ weights.t(), others @ theirs.t()
        z, t = (one if one.dtype == torch.float64 else one.float() for one in (z, t))
        log_q, log_p = F.log_softmax(z, 1), F.log_softmax(t, 1)
        if mode == "forward":
            return F.cross_entropy(z, said) + F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
        log_m = torch.logaddexp(log_p, log_q) - 0.6931471805599453
        parts = (F.kl_div(log_m, one, reduction="batchmean", log_target=True) for one in (log_p, log_q))
        return sum(parts, z.new_zeros(())) / 2

    def ours(name: str) -> Outputs:
        weight = 1.0 if mode == "forward" else 0.0
        loss = linear_kd_loss(
            hidden,
            head,
            teacher,
            teacher_head,
            labels,
            mode="forward" if mode == "forward" else "jsd",
            ce_weight=weight,
            backend=name,
        )
        return loss, *torch.autograd.grad(loss, leaves)

    def plain(loss: partial[torch.Tensor]) -> Outputs:
        made = loss(hidden, head, teacher, teacher_head, labels)
        return made, *torch.autograd.grad(made, leaves)

    def exact() -> Outputs:
        # By blocks of rows: the float64 logits of all of them are larger than a GPU's memory.
        doubled = [one.detach().double().requires_grad_() for one in leaves]
        theirs, total = teacher_head.double(), torch.zeros((), dtype=torch.float64, device=device)
        for at in range(0, rows, BLOCK):
            block = slice(at, at + BLOCK)
            made = eager(doubled[0][block], doubled[1], teacher[block].double(), theirs, labels[block])
            made = made * (len(labels[block]) / rows)
            made.backward()
            total += made.detach()
        return total, *(one.grad for one in doubled if one.grad is not None)

    def liger() -> Outputs:
        functional = importlib.import_module("liger_kernel.transformers.functional")
        made = functional.liger_fused_linear_jsd(hidden, head, teacher, teacher_head)
        return made, *torch.autograd.grad(made, leaves)

    providers: dict[str, Provider] = {f"{OURS}{name}": partial(ours, name) for name in back_ends(device)}
    providers |= {
        EAGER: partial(plain, partial(eager)),
        "torch.compile": partial(plain, partial(torch.compile(eager, dynamic=False))),
    }
    if mode == "jsd" and has_liger(device):
        providers["liger-kernel"] = liger
    return Prepared(providers, exact)
