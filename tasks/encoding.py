"""How knowledge is made smaller before it leaves an agent. Each encoding is a pair: to columns, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from .late import late
from .parameters import Parameters
from .registry import Registry

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

Columns = dict[str, np.ndarray]  # each [N, width], equal N
Encode = Callable[[Any, np.ndarray], Columns]

ENCODINGS: Registry[Encode] = Registry("encodings")


class Plain(Parameters):
    """Nothing to choose."""


class Bits(Parameters):
    """Quantised probabilities."""

    bits: Annotated[int, Field(ge=1, le=8)] = Field(1, description="bits for each class; 1 keeps the largest alone")


class TopK(Parameters):
    """The largest scores alone."""

    k: Annotated[int, Field(ge=1)] = Field(description="scores kept for each row")


class SingularValues(Parameters):
    """A truncated singular value decomposition of every matrix (Wu et al. 2022, eq. 9)."""

    energy_start: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="share of energy kept in round 1")
    energy_end: Annotated[float, Field(gt=0, le=1)] = Field(0.98, description="share of energy kept in the last round")


@ENCODINGS.register("float32", Plain)
def float32(parameters: Plain, values: np.ndarray) -> Columns:
    """Values as they are."""
    return {"values": values.astype(np.float32, copy=False)}


@ENCODINGS.register("float16", Plain)
def float16(parameters: Plain, values: np.ndarray) -> Columns:
    """Half precision."""
    return {"values": values.astype(np.float16)}


@ENCODINGS.register("int8", Plain)
def int8(parameters: Plain, values: np.ndarray) -> Columns:
    """Eight bits a value, with one scale for each row."""
    scale = np.abs(values).max(axis=1, keepdims=True) / 127
    scale = np.where(scale >= np.finfo(np.float32).tiny, scale, 1).astype(np.float32)
    return {"codes": np.rint(values / scale).astype(np.int8), "scale": scale}


@ENCODINGS.register("bits", Bits)
def bits(parameters: Bits, values: np.ndarray) -> Columns:
    """Probabilities on a grid of 2^bits levels, packed; one bit keeps the largest class alone (Sattler et al. 2021)."""
    if parameters.bits == 1:
        levels = (np.arange(values.shape[1]) == values.argmax(axis=1)[:, None]).astype(np.uint8)
    else:
        levels = np.rint(np.clip(values, 0, 1) * (2**parameters.bits - 1)).astype(np.uint8)
    unpacked = (levels[..., None] >> np.arange(parameters.bits, dtype=np.uint8)) & 1
    return {"packed": np.packbits(unpacked.reshape(len(values), values.shape[1] * parameters.bits), axis=1)}


@ENCODINGS.register("top-k", TopK)
def top_k(parameters: TopK, values: np.ndarray) -> Columns:
    """The k largest scores of each row in half precision; the others come back as the row's smallest kept."""
    k = min(parameters.k, values.shape[1])
    chosen = np.argsort(-values, axis=1, kind="stable")[:, :k]
    return {"chosen": chosen.astype(np.int32), "values": np.take_along_axis(values, chosen, 1).astype(np.float16)}


@ENCODINGS.register("svd", SingularValues)
def svd(parameters: SingularValues, values: np.ndarray) -> Columns:
    """Each matrix of a model as two thin factors that keep a share of its energy; for parameters alone."""
    raise TypeError("svd encodes whole models; rows take float32, float16, int8, bits or top-k")


def restore(name: str, parameters: Parameters, columns: Columns, width: int) -> np.ndarray:
    """Return float32 [N, width] from the columns that encoding ``name`` made under ``parameters``."""
    if name == "int8":
        scaled: np.ndarray = columns["codes"].astype(np.float32) * columns["scale"]
        return scaled
    if isinstance(parameters, Bits):
        packed, depth = columns["packed"], parameters.bits
        flat = np.unpackbits(packed, axis=1)[:, : width * depth].reshape(len(packed), width, depth)
        levels = (flat.astype(np.int32) << np.arange(depth)).sum(axis=2)
        shares: np.ndarray = levels / (2**depth - 1)
        return shares.astype(np.float32)
    if name == "top-k":
        kept = columns["values"].astype(np.float32)
        full = np.repeat(kept.min(axis=1, keepdims=True), width, axis=1)
        np.put_along_axis(full, columns["chosen"].astype(np.int64), kept, 1)
        return full
    return columns["values"].astype(np.float32, copy=False)


def energy(parameters: SingularValues, progress: float) -> float:
    """Return the share of energy to keep at ``progress`` in [0, 1] through the run (Wu et al. 2022, eq. 10)."""
    return parameters.energy_start + (parameters.energy_end - parameters.energy_start) * progress


def factors(matrix: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return (U S [m, k], V^T [k, n]) that keep ``share`` of the squared energy of ``matrix`` [m, n], or None.

    None where the factors would weigh no less than the matrix. The decomposition goes through the smaller Gram
    matrix in float64: a few times cheaper than a full SVD, and exact enough for the leading directions.
    """
    tall = matrix.shape[0] >= matrix.shape[1]
    a = (matrix if tall else matrix.T).double()
    squared, right = torch.linalg.eigh(a.T @ a)
    squared, right = squared.flip(0).clamp(min=0), right.flip(1)
    total = squared.sum()
    if total == 0:
        return None
    rank = int((squared.cumsum(0) < share * total).sum()) + 1
    if rank * sum(matrix.shape) >= matrix.numel():
        return None
    right = right[:, :rank]
    left = (a @ right).to(matrix.dtype)
    right = right.T.to(matrix.dtype)
    return (left.contiguous(), right.contiguous()) if tall else (right.T.contiguous(), left.T.contiguous())
