"""``kd_loss``, forward and backward: cross entropy and T^2 KL to the mean probabilities of K teachers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from ...kd import kd_loss
from ..case import EAGER, OURS, Case, Outputs, Prepared, back_ends, drawn, has_liger

TEMPERATURE, CE_WEIGHT, KD_WEIGHT = 4.0, 0.5, 0.5

Loss = Callable[[torch.Tensor, list[torch.Tensor], torch.Tensor], torch.Tensor]


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Yield rows of many images and rows of a language model."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    large = 8192 if device.type == "cuda" else 256
    for rows, classes in [(4096, 1000)] if quick else [(4096, 1000), (large, 32000)]:
        for count in (1, 4):
            yield Case(
                "kd_loss",
                f"{rows}x{classes} K={count}",
                dtype,
                (count + 2) * rows * classes * dtype.itemsize + rows * 8,
                6e-3 if dtype == torch.bfloat16 else 1e-5,
                partial(prepare, device, dtype, rows, classes, count),
            )


def prepare(device: torch.device, dtype: torch.dtype, rows: int, classes: int, count: int) -> Prepared:
    """Draw logits and labels."""
    student, *teachers = (drawn(device, dtype, rows, classes, seed=seed, spread=3) for seed in range(count + 1))
    student.requires_grad_()
    labels = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(0)).to(device)
    settings: dict[str, Any] = {"temperature": TEMPERATURE, "ce_weight": CE_WEIGHT, "kd_weight": KD_WEIGHT}

    def both(loss: Loss, z: torch.Tensor = student, given: list[torch.Tensor] = teachers) -> Outputs:
        made = loss(z, given, labels)
        return made, *torch.autograd.grad(made, z)

    def exact() -> Outputs:
        return both(eager, student.detach().double().requires_grad_(), [one.double() for one in teachers])

    providers = {
        f"{OURS}{name}": partial(both, partial(kd_loss, backend=name, **settings)) for name in back_ends(device)
    }
    providers |= {EAGER: partial(both, eager), "torch.compile": partial(both, torch.compile(eager, dynamic=False))}
    if count == 1 and has_liger(device):
        providers["liger-kernel"] = partial(both, liger)
    return Prepared(providers, exact)


def eager(student: torch.Tensor, teachers: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the loss as one would write it; half precision is made float32 first, as torch's own losses do."""
    z = student if student.dtype == torch.float64 else student.float()
    parts = [F.softmax(one.to(z.dtype) / TEMPERATURE, -1) for one in teachers]
    p = sum(parts[1:], parts[0]) / len(parts)
    divergence = F.kl_div(F.log_softmax(z / TEMPERATURE, -1), p, reduction="batchmean")
    return CE_WEIGHT * F.cross_entropy(z, labels) + KD_WEIGHT * TEMPERATURE**2 * divergence


def liger(student: torch.Tensor, teachers: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of Liger's two kernels; its cross entropy overwrites what it is given, so it gets a copy."""
    functional = importlib.import_module("liger_kernel.transformers.functional")
    log_q = F.log_softmax(student.float() / TEMPERATURE, -1)
    p = F.softmax(teachers[0].float() / TEMPERATURE, -1)
    divergence = functional.liger_kl_div(log_q, p, reduction="batchmean")
    loss: torch.Tensor = CE_WEIGHT * functional.liger_cross_entropy(student.clone(), labels)
    loss += KD_WEIGHT * TEMPERATURE**2 * divergence
    return loss
