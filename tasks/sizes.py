"""What a packet will weigh, predicted without making it."""

from __future__ import annotations

import math

from .architecture import Architecture
from .choice import Choice

MESSAGE = 800
"""Bytes of a message with rows, besides the values; found, as all of these, by writing packets of every form."""
COLUMN = 180
"""Bytes of one more column of values, which int8 and top-k have."""
WEIGHTS = 105
"""Bytes of the column of weights, besides the weights."""
KEYS = 230
"""Bytes of the column of keys, besides the keys."""
LABELS = 105
"""Bytes of the column of labels, besides the labels."""
MODEL = 1360
"""Bytes of a message with a model, besides its tensors."""
TENSOR = 61
"""Bytes that describe one tensor, besides its architecture's name and its shape."""


def rows_bytes(encoding: Choice, rows: int, width: int, weighted: bool) -> int:
    """Return the bytes of a packet of ``rows`` rows of ``width`` values; ``weighted`` where rows carry weights."""
    message = MESSAGE + WEIGHTS * weighted
    match encoding.name:
        case "float32":
            values = rows * width * 4
        case "float16":
            values = rows * width * 2
        case "int8":
            values = rows * (width + 4) + COLUMN
        case "bits":
            values = rows * math.ceil(width * encoding.parameters.bits / 8)
        case "top-k":
            values = rows * min(encoding.parameters.k, width) * 6 + COLUMN
        case other:
            raise ValueError(f"rows are not sent as {other}")
    return message + values + rows * (4 + 8 * weighted)


def told_bytes(encoding: Choice, rows: int, labels: bool, key_width: int) -> int:
    """Return the bytes that labels, and keys of ``key_width`` numbers (0: none), add to a packet of ``rows`` rows."""
    size = (LABELS + rows * 4) * labels
    if not key_width:
        return size
    match encoding.name:
        case "float16":
            return size + KEYS + rows * key_width * 2
        case "int8":
            return size + KEYS + COLUMN + rows * (key_width + 4)
        case _:
            return size + KEYS + rows * key_width * 4


def model_bytes(encoding: Choice, architecture: Architecture) -> int:
    """Return the bytes of a packet with one model; for ``svd`` the most that it can take."""
    size = 2 if encoding.name == "float16" else 4
    described = sum(TENSOR + len(architecture.name) + 8 * len(shape) for shape in architecture.parameter_shapes)
    return MODEL + described + architecture.parameter_count * size


def exact(encoding: Choice) -> bool:
    """Whether the prediction does not depend on the values sent."""
    return encoding.name != "svd"
