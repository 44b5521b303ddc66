"""What a packet will weigh, predicted without making it."""

from __future__ import annotations

import math

from .architecture import Architecture
from .choice import Choice

MESSAGE = 620
"""Bytes of an Arrow message with its schema, besides the values; found by writing packets of every form."""
TENSOR = 120
"""Bytes of the columns that describe one tensor of a model."""


def rows_bytes(encoding: Choice, rows: int, width: int, weighted: bool) -> int:
    """Return the bytes of a packet of ``rows`` rows of ``width`` values; ``weighted`` where rows carry weights."""
    match encoding.name:
        case "float32":
            values = rows * width * 4
        case "float16":
            values = rows * width * 2
        case "int8":
            values = rows * (width + 4)
        case "bits":
            values = rows * math.ceil(width * encoding.parameters.bits / 8)
        case "top-k":
            values = rows * min(encoding.parameters.k, width) * 6
        case other:
            raise ValueError(f"rows are not sent as {other}")
    return MESSAGE + values + rows * (4 + 8 * weighted)


def model_bytes(encoding: Choice, architecture: Architecture) -> int:
    """Return the bytes of a packet with one model; for ``svd`` the most that it can take."""
    size = 2 if encoding.name == "float16" else 4
    tensors = len(architecture.parameter_shapes)
    return MESSAGE + 400 + TENSOR * tensors + architecture.parameter_count * size


def exact(encoding: Choice) -> bool:
    """Whether the prediction does not depend on the values sent."""
    return encoding.name != "svd"
