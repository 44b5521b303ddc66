"""``kd_loss`` as Triton kernels: in registers up to 8,192 classes, in several passes over a row above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton

from ..dispatch import detail
from ..settings import Kd
from .kd_columns import kd_columns
from .kd_row import kd_row

IN_REGISTERS = {"forward": 8192, "reverse": 8192, "jsd": 8192, "decoupled": 4096}
"""Classes up to which one program holds a row, by mode: those that do not spill registers."""

A_WARP = {"forward": 512, "reverse": 512, "jsd": 512, "decoupled": 256}
"""Classes that a warp holds, by mode. Fewer cost more steps in reductions, more cost registers."""

COLUMNS = 2048
"""Classes that a program handles at a time where it does not hold a row."""

REGISTERS = 128
"""For each thread at most, where much is kept. Left alone, ptxas spills a few there to get below a smaller number."""

REGISTERS_OF_COLUMNS = 168
"""The same where a program does not hold a row: three programs of 128 threads fit, and none spills."""

AHEAD = 32
"""32-bit registers a thread that reading all teachers ahead may take."""


def kd(
    student: torch.Tensor,
    teachers: Sequence[torch.Tensor],
    labels: torch.Tensor | None,
    teacher_weights: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    settings: Kd,
    scale: float,
    gradient: bool,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.kd.kd` does; sums are float32.

    A label that is neither ``ignore_index`` nor a class makes its row's loss NaN: a GPU cannot raise in time.
    """
    count, columns = student.shape
    rows = torch.empty(count, dtype=torch.float32, device=student.device)
    made = student.new_empty(count if gradient else 0, columns) if out is None else out
    if not count:
        return rows, made
    # The kernels read and write along rows.
    write = made if made.stride(1) == 1 else made.new_empty(made.shape)
    with torch.cuda.device_of(student):
        _launch(
            _by_row(student),
            [_by_row(teacher) for teacher in teachers],
            labels,
            teacher_weights,
            sample_weights,
            rows,
            write,
            settings,
            scale,
            gradient,
        )
    if write is not made:
        made.copy_(write)
    return rows, made


def _by_row(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.stride(1) == 1 else logits.contiguous()


def _small(weights: torch.Tensor | None) -> torch.Tensor | None:
    return None if weights is None else weights.float().contiguous()


def _launch(
    student: torch.Tensor,
    teachers: list[torch.Tensor],
    labels: torch.Tensor | None,
    teacher_weights: torch.Tensor | None,
    sample_weights: torch.Tensor | None,
    rows: torch.Tensor,
    out: torch.Tensor,
    settings: Kd,
    scale: float,
    gradient: bool,
) -> None:
    count, columns = student.shape
    teacher_weights, sample_weights = _small(teacher_weights), _small(sample_weights)
    several = len(teachers) > 1
    cross_entropy = labels is not None and settings.ce_weight != 0
    strides = tuple(teacher.stride(0) for teacher in teachers)
    # Only where every row starts at a multiple of some elements and has such a number can reads be wide.
    vector = math.gcd(8, columns, student.stride(0), out.stride(0), *strides)
    arguments = (
        student,
        tuple(teachers),
        None if labels is None else labels.contiguous(),
        teacher_weights,
        sample_weights,
        rows,
        out,
        columns,
        student.stride(0),
        strides,
        teacher_weights.stride(0) if teacher_weights is not None and teacher_weights.dim() == 2 else 0,
        out.stride(0),
        math.log2(math.e) / settings.temperature,
        1 / settings.entropy_temperature,
        settings.ce_weight,
        settings.kd_weight,
        settings.temperature,
        settings.jsd_weight,
        settings.target_weight,
        settings.other_weight,
        settings.label_smoothing,
        settings.ignore_index,
        scale,
    )
    constants: dict[str, Any] = {
        "K": len(teachers),
        "MODE": settings.mode,
        "AVERAGE": _average(settings) if several else "one teacher",
        "WEIGHTING": settings.weighting if several else "uniform",
        "LABELS": cross_entropy or settings.mode == "decoupled",
        "CE": cross_entropy,
        "SAMPLES": sample_weights is not None,
        "SMOOTH": settings.label_smoothing > 0,
        "GRADIENT": gradient,
        "VECTOR": vector,
    }
    if columns <= IN_REGISTERS[settings.mode]:
        block = triton.next_power_of_2(columns)
        warps = max(1, block // A_WARP[settings.mode])
        taken = sum(-(-block // (32 * warps)) * teacher.element_size() / 4 for teacher in teachers)
        detail("one pass, rows in registers")
        constants["AHEAD"] = taken <= AHEAD
        kernel = kd_row
    else:
        block, warps = COLUMNS, COLUMNS // 512
        detail(f"several passes over a row, {block:,} columns at a time")
        kernel = kd_columns
    much = settings.mode != "forward" or len(teachers) > (4 if kernel is kd_row else 1)
    most = REGISTERS if kernel is kd_row else REGISTERS_OF_COLUMNS
    kernel[(count,)](*arguments, **constants, BLOCK=block, num_warps=warps, maxnreg=most if much else None)


def _average(settings: Kd) -> str:
    """How the kernels average: in logarithms where log p is asked for and p may be too small for a float."""
    if settings.average == "probabilities" and settings.mode in ("reverse", "decoupled"):
        return "log probabilities"
    return settings.average
