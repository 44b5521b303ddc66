"""``pack_knowledge`` in Triton: torch's top-k, then one program a row for the tail, the scale and the codes.

The top-k stays torch's, whose radix selection is at memory speed: ``tl.topk`` gives values without indices, so that it
would have to sort 64-bit keys, and it compiles for tens of seconds at the sizes that matter here.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from ..reference.pack import DTYPES, LARGEST, RANGE, STEPS
from .kd_parts import multiple

BLOCK = 4096
"""Classes that are read at a time."""

MOST_KEPT = 8192
"""Kept classes that a program can hold."""

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _gaussian(seed, place):
    """Return standard normal numbers, one for each 64-bit place, by Philox and Box and Muller; at most 5.9.

    ``tl.randn`` does so too, by a cosine for arguments of any size, which takes local memory and float64. Here it is a
    sine of at most a quarter turn: cos(2 pi v) = -sin(pi / 2 s), s = 1 - 4 |v - 1/2|, as a Taylor series.
    """
    first, second, _, _ = tl.randint4x(seed, place)
    u = ((first.to(tl.uint32, bitcast=True) >> 8).to(tl.float32) + 0.5) * 5.9604644775390625e-08
    v = (second.to(tl.uint32, bitcast=True) >> 8).to(tl.float32) * 5.9604644775390625e-08
    s = 1.0 - 4.0 * tl.abs(v - 0.5)
    t = s * s
    sine = 0.00016044118 + t * -3.598843e-06
    sine = 1.5707963 + t * (-0.64596410 + t * (0.079692626 + t * (-0.0046817541 + t * sine)))
    return -s * sine * tl.sqrt(-2.0 * tl.log(u))


@triton.jit
def _perturb(logits, seeds, out, row_stride, classes, clip, deviation, BLOCK: tl.constexpr, VECTOR: tl.constexpr):
    """Write a row that is no longer than ``clip``, with noise drawn by Philox from the seed and the element's place."""
    classes = multiple(classes, VECTOR)
    row_stride = multiple(row_stride, VECTOR)
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    squares = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, classes, BLOCK):
        o = first + lane
        z = tl.load(logits + row * row_stride + o, o < classes, 0.0).to(tl.float32)
        squares += z * z
    norm = tl.sqrt(tl.sum(squares, 0))
    factor = tl.where(norm <= clip, 1.0, clip / norm)  # NaN for a norm of NaN
    seed = 0
    if seeds is not None:
        seed = tl.load(seeds)
    for first in range(0, classes, BLOCK):
        o = first + lane
        z = tl.load(logits + row * row_stride + o, o < classes, 0.0).to(tl.float32) * factor
        if seeds is not None:
            z += deviation * _gaussian(seed, row * classes + o)
        tl.store(out + row * classes + o, z, o < classes)


@triton.jit
def _float8_code(value):
    """Return the bits of the float8 (e4m3) next to a value of 0 to 448: not every GPU has the format, all have bits."""
    bits = value.to(tl.int32, bitcast=True)
    normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
    subnormal = tl.floor(value * 512.0 + 0.5).to(tl.int32)
    return tl.where(value < 0.015625, subnormal, normal).to(tl.uint8)


@triton.jit
def _describe(
    logits,
    kept_logits,
    kept_indices,
    indices,
    values,
    scales,
    tails,
    row_stride,
    classes,
    k,
    inverse_temperature,
    BLOCK: tl.constexpr,
    KEPT: tl.constexpr,
    VECTOR: tl.constexpr,
    ENCODING: tl.constexpr,
    LARGEST: tl.constexpr,
    RANGE: tl.constexpr,
    STEPS: tl.constexpr,
):
    classes = multiple(classes, VECTOR)
    row_stride = multiple(row_stride, VECTOR)
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, KEPT)
    real = lane < k
    kept = tl.load(kept_logits + row * k + lane, real, -INFINITY).to(tl.float32)
    top = tl.sum(tl.where(lane == 0, kept, 0.0), 0)  # of sorted values; unlike a maximum it keeps NaN
    low = tl.sum(tl.where(lane == k - 1, kept, 0.0), 0)
    ratio = tl.where(real, (kept - top) * inverse_temperature, -INFINITY)

    # What was not kept is below the lowest that was, or as high as it: of those, all but the kept ones.
    column = tl.arange(0, BLOCK)
    sums = tl.zeros((BLOCK,), tl.float32)
    ties = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, classes, BLOCK):
        o = first + column
        z = tl.load(logits + row * row_stride + o, o < classes, -INFINITY).to(tl.float32)
        sums += tl.where(z < low, tl.exp((z - low) * inverse_temperature), 0.0)
        ties += ((z == low) & (o < classes)).to(tl.int32)
    tied = tl.sum(ties, 0) - tl.sum(((kept == low) & real).to(tl.int32), 0)
    others = tl.sum(sums, 0) + tied.to(tl.float32)
    others = tl.where(low == -INFINITY, 0.0, others)
    tail = tl.log(others) + (low - top) * inverse_temperature - tl.log(tl.sum(tl.exp(ratio), 0))
    tl.store(tails + row, tl.where(others == 0.0, -INFINITY + 0.0 * (top - top), tail))

    index = tl.load(kept_indices + row * k + lane, real, 0)
    tl.store(indices + row * k + lane, index.to(tl.int32), real)
    if ENCODING == "int8":
        within = -ratio <= RANGE
        width = tl.max(tl.where(within, -ratio, 0.0), 0)
        steps = tl.where(width > 0.0, STEPS / width, 0.0)
        code = tl.where(within, 127.0 - tl.floor(tl.where(within, -ratio, 0.0) * steps + 0.5), -128.0)
        tl.store(values + row * k + lane, code.to(tl.int8), real)
        tl.store(scales + row, width / STEPS)
    elif ENCODING == "float8":
        tl.store(values + row * k + lane, _float8_code(tl.exp(ratio) * LARGEST), real)
    else:
        tl.store(values + row * k + lane, (tl.exp(ratio) * LARGEST).to(tl.float16), real)


def pack(
    logits: torch.Tensor,
    seed: torch.Tensor | None,
    k: int,
    temperature: float,
    encoding: str,
    clip: float,
    noise: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Do what :func:`codistill.kernels.reference.pack.pack` does, with noise of its own.

    Raises ``ValueError`` for more than ``MOST_KEPT`` kept classes.
    """
    if k > MOST_KEPT:
        raise ValueError(f"pack_knowledge: k is {k}; the triton back end keeps at most {MOST_KEPT} classes a row")
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    with torch.cuda.device_of(logits):
        z = _perturbed(logits, seed, clip, noise) if clip else logits
        kept, indices = torch.topk(z, k, dim=1)
        return _described(z, kept, indices, temperature, encoding)


def _shape(classes: int) -> tuple[int, int]:
    """Return the classes that are read at a time, and the warps that do it."""
    block = min(BLOCK, triton.next_power_of_2(classes))
    return block, max(1, block // 512)


def _perturbed(logits: torch.Tensor, seed: torch.Tensor | None, clip: float, noise: float) -> torch.Tensor:
    count, classes = logits.shape
    made = torch.empty(count, classes, dtype=torch.float32, device=logits.device)
    block, warps = _shape(classes)
    if count:
        _perturb[(count,)](
            logits,
            seed if seed is None else seed.to(logits.device),
            made,
            logits.stride(0),
            classes,
            clip,
            noise * clip,
            BLOCK=block,
            VECTOR=math.gcd(8, classes, logits.stride(0)),
            num_warps=warps,
        )
    return made


def _described(
    z: torch.Tensor, kept: torch.Tensor, kept_indices: torch.Tensor, temperature: float, encoding: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    (count, classes), k, device = z.shape, kept.shape[1], z.device
    indices = torch.empty(count, k, dtype=torch.int32, device=device)
    bits = torch.uint8 if encoding == "float8" else DTYPES[encoding]
    values = torch.empty(count, k, dtype=bits, device=device)
    tails = torch.empty(count, dtype=torch.float32, device=device)
    scales = torch.empty(count if encoding == "int8" else 0, dtype=torch.float32, device=device)
    block, warps = _shape(classes)
    if count:
        _describe[(count,)](
            z,
            kept,
            kept_indices,
            indices,
            values,
            scales,
            tails,
            z.stride(0),
            classes,
            k,
            1 / temperature,
            BLOCK=block,
            KEPT=max(2, triton.next_power_of_2(k)),
            VECTOR=math.gcd(8, classes, z.stride(0)),
            ENCODING=encoding,
            LARGEST=LARGEST.get(encoding, 0.0),
            RANGE=RANGE,
            STEPS=STEPS,
            num_warps=warps,
        )
    return indices, values.view(DTYPES[encoding]), scales, tails
