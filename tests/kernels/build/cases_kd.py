"""The kernels of ``kd_loss``: each mode in registers and in several passes, both averages, all weightings."""

from collections.abc import Callable

import torch
from codistill.kernels.settings import Kd
from codistill.kernels.triton.kd import kd

ROWS = 4


def _call(
    columns: int,
    count: int,
    mode: str = "forward",
    average: str = "probabilities",
    weighting: str = "uniform",
    dtype: torch.dtype = torch.bfloat16,
    labels: bool = True,
    smoothing: float = 0.0,
    samples: bool = False,
    gradient: bool = True,
    inplace: bool = False,
) -> Callable[[], object]:
    settings = Kd(mode, average, weighting, 2.0, 0.5, 0.5, 1.0, 0.5, 1.0, 1.0, smoothing, -100)

    def call() -> object:
        student = torch.zeros(ROWS, columns, dtype=dtype)
        return kd(
            student,
            [torch.zeros(ROWS, columns, dtype=dtype) for _ in range(count)],
            torch.zeros(ROWS, dtype=torch.int64) if labels else None,
            torch.ones(ROWS, count) if weighting == "given" else None,
            torch.ones(ROWS) if samples else None,
            settings,
            1 / ROWS,
            gradient,
            student if inplace else None,
        )

    return call


def cases() -> dict[str, Callable[[], object]]:
    """Name -> a call of the launcher: rows in registers up to V = 8192, several passes above."""
    return {
        "V10 K1": _call(10, 1),
        "V257 K3": _call(257, 3),
        "V1000 K1": _call(1000, 1),
        "V1000 K1 no gradient": _call(1000, 1, gradient=False),
        "V1000 K1 float32": _call(1000, 1, dtype=torch.float32),
        "V1000 K4": _call(1000, 4),
        "V1000 K4 entropy": _call(1000, 4, weighting="entropy"),
        "V1000 K4 given, smoothing, samples, in place": _call(
            1000, 4, weighting="given", smoothing=0.1, samples=True, inplace=True
        ),
        "V1000 K4 logits": _call(1000, 4, average="logits"),
        "V1000 K4 logits entropy": _call(1000, 4, average="logits", weighting="entropy"),
        "V1000 K4 no labels": _call(1000, 4, labels=False),
        "V1003 K1": _call(1003, 1),
        "V1000 K1 reverse": _call(1000, 1, "reverse"),
        "V1000 K4 reverse": _call(1000, 4, "reverse"),
        "V1000 K4 jsd": _call(1000, 4, "jsd"),
        "V1000 K4 decoupled": _call(1000, 4, "decoupled"),
        "V8192 K4": _call(8192, 4),
        "V8192 K4 decoupled entropy": _call(8192, 4, "decoupled", weighting="entropy"),
        "V32000 K1": _call(32000, 1),
        "V32000 K4": _call(32000, 4),
        "V32000 K4 entropy": _call(32000, 4, weighting="entropy"),
        "V32000 K4 logits entropy": _call(32000, 4, average="logits", weighting="entropy"),
        "V32000 K4 reverse": _call(32000, 4, "reverse"),
        "V32000 K1 jsd": _call(32000, 1, "jsd"),
        "V32000 K4 jsd": _call(32000, 4, "jsd"),
        "V32000 K4 decoupled given, smoothing, samples, in place": _call(
            32000, 4, "decoupled", weighting="given", smoothing=0.1, samples=True, inplace=True
        ),
    }
