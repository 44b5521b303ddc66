"""The kernels of ``aggregate_logits``: each rule in registers up to V = 8192 and block by block above."""

from collections.abc import Callable

import torch
from codistill.kernels.aggregate_settings import Aggregation
from codistill.kernels.triton.aggregate import aggregate_step

ROWS = 4


def _call(
    columns: int,
    count: int,
    by: str = "mean",
    space: str = "probabilities",
    dtype: torch.dtype = torch.bfloat16,
    first: bool = False,
    by_row: bool = False,
) -> Callable[[], object]:
    def call() -> object:
        return aggregate_step(
            torch.zeros(ROWS, columns),
            torch.zeros(ROWS),
            [torch.zeros(ROWS, columns, dtype=dtype) for _ in range(count)],
            torch.ones(ROWS, count) if by_row else torch.ones(count),
            Aggregation(by, space, 2.0, 1.0),
            first,
        )

    return call


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a call of the launcher."""
    return {
        "V10 K1": _call(10, 1),
        "V1000 K1": _call(1000, 1),
        "V1000 K1 first": _call(1000, 1, first=True),
        "V1000 K4 first": _call(1000, 4, first=True),
        "V1000 K4 float32, by row": _call(1000, 4, dtype=torch.float32, by_row=True),
        "V1000 K4 entropy": _call(1000, 4, "entropy"),
        "V1000 K4 confidence logits": _call(1000, 4, "confidence", "logits"),
        "V1000 K4 votes": _call(1000, 4, "votes"),
        "V1000 K4 logits": _call(1000, 4, space="logits"),
        "V1003 K4": _call(1003, 4),
        "V8192 K4 entropy": _call(8192, 4, "entropy"),
        "V32000 K1": _call(32000, 1),
        "V32000 K4 first": _call(32000, 4, first=True),
        "V32000 K4 entropy": _call(32000, 4, "entropy"),
        "V32000 K4 confidence logits": _call(32000, 4, "confidence", "logits"),
        "V32000 K4 votes": _call(32000, 4, "votes"),
        "V32000 K4 logits": _call(32000, 4, space="logits"),
    }
