"""``pack_knowledge`` in readable torch, and the way back from a payload to probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .kd import accumulated

RANGE = 16.0
"""Nats below the largest class that int8 reaches; exp(-16) is float32's rounding of 1."""

STEPS = 254
"""Steps that int8 divides them into: 127 is the largest class, -127 the last step, -128 says zero."""

DTYPES = {"int8": torch.int8, "float16": torch.float16, "float8": torch.float8_e4m3fn}

LARGEST = {"float16": 2.0**15, "float8": 2.0**8}
"""What the largest class of a row becomes: high, since these formats lose their precision near zero."""


def pack(
    logits: torch.Tensor,
    seed: torch.Tensor | None,
    k: int,
    temperature: float,
    encoding: str,
    clip: float,
    noise: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return indices int32 [N, k], values [N, k], scales float32 [N] ([0] but for int8), tails float32 [N].

    ``logits`` are [N, V]; ``clip`` 0 is no clip; ``seed`` is int64 [], needed where there is noise.
    :class:`codistill.kernels.Packed` says what they mean.
    """
    z = perturbed(accumulated(logits), seed, clip, noise)
    kept, indices = torch.topk(z, k, dim=1)
    return described(z, kept, indices, temperature, encoding)


def described(
    z: torch.Tensor, kept: torch.Tensor, indices: torch.Tensor, temperature: float, encoding: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what :func:`pack` does of logits ``z`` [N, V] and what is kept of them, [N, k], the largest first."""
    others = z.scatter(1, indices, -torch.inf)
    values, scales, tails = encoded(kept / temperature, torch.logsumexp(others / temperature, 1), encoding)
    return indices.int(), values, scales, tails


def perturbed(z: torch.Tensor, seed: torch.Tensor | None, clip: float, noise: float) -> torch.Tensor:
    """Return rows of ``z`` made no longer than ``clip`` in L2 norm, with Gaussian noise of ``noise * clip`` added."""
    if not clip:
        return z
    norm = torch.linalg.vector_norm(z, dim=1, keepdim=True)
    z = z * (clip / norm.clamp(min=clip))
    if seed is None:
        return z
    generator = torch.Generator(z.device).manual_seed(int(seed))
    drawn = torch.randn(z.shape, dtype=z.dtype, device=z.device, generator=generator)
    return z + drawn * (noise * clip)


def encoded(
    kept: torch.Tensor, log_others: torch.Tensor, encoding: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return values, scales and tails of kept logits [N, k], the largest first, and of the others' log-sum-exp [N]."""
    below = kept[:, :1] - kept
    tails = (log_others - kept[:, 0] - torch.logsumexp(-below, 1)).float()
    if encoding != "int8":
        return (torch.exp(-below) * LARGEST[encoding]).to(DTYPES[encoding]), tails.new_empty(0), tails
    within = below <= RANGE
    width = torch.where(within, below, 0.0).amax(1, keepdim=True)
    steps = torch.where(width > 0, STEPS / width, 0.0)
    codes = torch.where(within, 127 - torch.floor(below * steps + 0.5), -128.0)
    return codes.to(torch.int8), (width.squeeze(1) / STEPS).float(), tails


def decoded(
    values: torch.Tensor, scales: torch.Tensor | None, tails: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities of the kept classes [N, k] and of all others together [N], in ``dtype``.

    They add up to one, however coarse the values are.
    """
    numbers, tails = values.to(dtype), tails.to(dtype)
    if scales is None or values.dtype != torch.int8:
        ratios = numbers.log()
    else:
        ratios = torch.where(values == -128, -torch.inf, (numbers - 127) * scales.to(dtype)[:, None])
    return torch.log_softmax(ratios, 1) + F.logsigmoid(-tails)[:, None], F.logsigmoid(tails)
