"""The kernels of ``pack_knowledge``: each encoding, and clipping with and without noise."""

from collections.abc import Callable

import torch
from codistill.kernels.triton.pack import pack

ROWS = 4


def _call(
    columns: int,
    k: int,
    encoding: str = "int8",
    dtype: torch.dtype = torch.bfloat16,
    clip: float = 0.0,
    noise: float = 0.0,
) -> Callable[[], object]:
    def call() -> object:
        seed = torch.zeros((), dtype=torch.int64) if noise else None
        return pack(torch.zeros(ROWS, columns, dtype=dtype), seed, k, 2.0, encoding, clip, noise)

    return call


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a call of the launcher."""
    return {
        "V10 k4": _call(10, 4),
        "V1000 k16": _call(1000, 16),
        "V1000 k16 float32": _call(1000, 16, dtype=torch.float32),
        "V1000 k16 float16": _call(1000, 16, "float16"),
        "V1000 k16 float8": _call(1000, 16, "float8"),
        "V1000 k16 clip": _call(1000, 16, clip=1.0),
        "V1000 k16 noise": _call(1000, 16, clip=1.0, noise=0.5),
        "V1003 k16": _call(1003, 16),
        "V32000 k64": _call(32000, 64),
        "V32000 k64 noise": _call(32000, 64, clip=1.0, noise=0.5),
        "V32000 k8192": _call(32000, 8192),
    }
