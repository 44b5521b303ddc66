"""Secure aggregation: rows as whole numbers under masks that cancel in pairs; only their sum can be read.

After Bonawitz et al. (2017): every pair of agents shares a secret; of each row that both hold one adds numbers drawn
from it and the other takes them away. Numbers are whole, modulo 2^24, which float32 holds exactly, so that masks
cancel to the bit and a masked row is spread evenly over all numbers. Where one of a pair does not come, the masks that
it would have taken away are made again from the secret, as the others would tell it. Here secrets come from the run's
seed: right for an experiment, wrong for a release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..tasks.agent import Context
from ..tasks.late import late
from ..tasks.streams import torch_stream

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

MODULUS = 2**24

LIMIT = 8.0
"""The largest number, either way, that can be told."""


def resolution(agents: int) -> float:
    """Return the step between two numbers that can be told apart where each of ``agents`` tells up to the limit."""
    return 2 * LIMIT * agents / (MODULUS - 2 * agents)


def whole(values: torch.Tensor, agents: int) -> torch.Tensor:
    """Return ``values`` [N, D] in steps of the resolution, int64; what is beyond the limit becomes it."""
    return (values.double().clamp(-LIMIT, LIMIT) / resolution(agents)).round().long()


def read(total: torch.Tensor, agents: int) -> torch.Tensor:
    """Return the sum, float64 [N, D], that a sum of whole numbers modulo 2^24 stands for."""
    residue = total % MODULUS
    signed = torch.where(residue >= MODULUS // 2, residue - MODULUS, residue)
    return signed.double() * resolution(agents)


def mask(one: str, other: str, names: int, width: int, context: Context, form: str) -> torch.Tensor:
    """Return what agent ``one`` adds for its pair with ``other`` to each row of a form, int64 [``names``, ``width``].

    Minus what ``other`` adds for its pair with ``one``; another each round.
    """
    first, second = sorted((one, other))
    stream = torch_stream(context.seed, "pair", first, second, form, context.round)
    drawn = torch.randint(MODULUS, (names, width), generator=stream)
    return drawn if one == first else -drawn
