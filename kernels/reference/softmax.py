"""exp and log_softmax: torch's own, and for a compiled graph on a CPU what its compiler makes fast code of."""

from __future__ import annotations

import math

import torch

SERIES = (0.0013814539415761828, 0.00836874544620514, 0.04166838899254799, 0.1666652113199234, 0.4999999403953552)
r"""(exp(f) - 1 - f) / f^2 for \|f\| <= log(2) / 2, highest power first: exp(f) to 3e-9 (a minimax fit)."""


def exp(x: torch.Tensor) -> torch.Tensor:
    """Return exp(x) for x of at most 88. In a compiled graph float32 results below 1e-38 are zero.

    There it is inlined: a call of the vector library's exp for every sixteen numbers takes longer. The result is as
    right as x is, which float32 rounds to 6e-8 of itself.
    """
    if not (torch.compiler.is_compiling() and x.dtype == torch.float32):
        return x.exp()
    within = x.clamp_min(-88.0)
    n = torch.round(within * (1 / math.log(2)))
    f = within - n * math.log(2)
    series = SERIES[0] * f + SERIES[1]
    for coefficient in (*SERIES[2:], 1.0, 1.0):
        series = series * f + coefficient
    return series * ((n.to(torch.int32) + 127) << 23).view(torch.float32)  # 2^n, and zero for n = -127


def log_softmax(z: torch.Tensor, temperature: float, top: torch.Tensor | None = None) -> torch.Tensor:
    """Return log softmax(z / T) of rows [N, V]; ``top`` is :func:`highest` of z, where that is wanted once."""
    if not torch.compiler.is_compiling():
        return torch.log_softmax(z / temperature, 1)
    # Inductor makes twice the work of torch.log_softmax(z / T), stores an exp that is used twice, and fuses best what
    # reads few values a row. The price: logits of 10,000 are rounded to 1e-3 once more.
    top = z.amax(1, keepdim=True) if top is None else top
    total = exp((z - top) * (1 / temperature)).sum(1, keepdim=True)
    return (z - (top + temperature * total.log())) * (1 / temperature)


def highest(z: torch.Tensor) -> torch.Tensor | None:
    """Return the maximum of each row [N, 1] in a compiled graph; elsewhere nobody asks for it."""
    return z.amax(1, keepdim=True) if torch.compiler.is_compiling() else None
