"""The kernel of ``sparse_kd_loss``: a row in registers up to V = 8192, read twice above, and each encoding."""

from collections.abc import Callable

import torch
from codistill.kernels.reference.pack import DTYPES
from codistill.kernels.sparse_settings import SparseKd
from codistill.kernels.triton.sparse import sparse_kd

ROWS = 4


def _call(
    columns: int,
    k: int,
    encoding: str = "int8",
    dtype: torch.dtype = torch.bfloat16,
    labels: bool = True,
    samples: bool = False,
    gradient: bool = True,
) -> Callable[[], object]:
    def call() -> object:
        return sparse_kd(
            torch.zeros(ROWS, columns, dtype=dtype),
            torch.zeros(ROWS, k, dtype=torch.int32),
            torch.zeros(ROWS, k, dtype=DTYPES[encoding]),
            torch.zeros(ROWS) if encoding == "int8" else None,
            torch.zeros(ROWS),
            torch.zeros(ROWS, dtype=torch.int64) if labels else None,
            torch.ones(ROWS) if samples else None,
            SparseKd(2.0, 0.5, 0.5, -100),
            1 / ROWS,
            gradient,
        )

    return call


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a call of the launcher."""
    return {
        "V10 k4": _call(10, 4),
        "V257 k16": _call(257, 16),
        "V1000 k16": _call(1000, 16),
        "V1000 k16 no labels": _call(1000, 16, labels=False),
        "V1000 k16 no gradient": _call(1000, 16, gradient=False),
        "V1000 k16 float32 samples": _call(1000, 16, dtype=torch.float32, samples=True),
        "V1000 k16 float16": _call(1000, 16, "float16"),
        "V1000 k16 float8": _call(1000, 16, "float8"),
        "V1000 k1000": _call(1000, 1000),
        "V1003 k16": _call(1003, 16),
        "V8192 k64": _call(8192, 64),
        "V32000 k64": _call(32000, 64),
        "V32000 k1": _call(32000, 1),
        "V32000 k2048 float16": _call(32000, 2048, "float16"),
    }
