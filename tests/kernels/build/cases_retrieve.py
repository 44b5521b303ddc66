"""The kernels of ``retrieve``: each similarity, float32, bfloat16 and int8 banks, with and without masks."""

from collections.abc import Callable

import torch
from codistill.kernels.retrieve_settings import Bank, Queries, Settings
from codistill.kernels.triton.retrieve import retrieve
from codistill.kernels.triton.retrieve_backward import retrieve_backward

COUNT = 4096


def _bank(dtype: torch.dtype, dim: int, masked: bool) -> Bank:
    scales = torch.ones(COUNT) if dtype == torch.int8 else None
    identifiers = torch.zeros(COUNT, dtype=torch.int64) if masked else None
    return Bank(
        keys=torch.zeros(COUNT, dim, dtype=dtype),
        values=torch.zeros(COUNT, dim, dtype=dtype),
        bias=torch.zeros(COUNT) if masked else None,
        key_scales=scales,
        value_scales=scales,
        kept=torch.ones(COUNT, dtype=torch.bool) if masked else None,
        owner=identifiers,
        class_=identifiers,
    )


def _forward(
    similarity: str = "dot",
    dtype: torch.dtype = torch.bfloat16,
    keys: torch.dtype | None = None,
    masked: bool = False,
    rows: int = 1024,
    dim: int = 128,
    k: int = 16,
) -> Callable[[], object]:
    def call() -> object:
        identifiers = torch.zeros(rows, dtype=torch.int64) if masked else None
        asked = Queries(torch.zeros(rows, dim, dtype=dtype), identifiers, identifiers)
        return retrieve(asked, _bank(keys or dtype, dim, masked), Settings(k, similarity, 0.1, 1.0))

    return call


def _backward(similarity: str, dtype: torch.dtype, keys: torch.dtype | None = None) -> Callable[[], object]:
    rows, dim, k = 1024, 128, 16

    def call() -> object:
        return retrieve_backward(
            torch.zeros(rows, dim, dtype=dtype),
            torch.zeros(rows, k),
            torch.zeros(rows, k),
            torch.zeros(rows, dim, dtype=dtype),
            _bank(keys or dtype, dim, False),
            torch.zeros(rows, k, dtype=torch.int64),
            torch.zeros(rows, k),
            Settings(k, similarity, 0.1, 1.0),
            (True, keys is None, keys is None, True),
        )

    return call


def cases() -> dict[str, Callable[[], object]]:
    """Return what :mod:`codistill.tests.kernels.build.dry` compiles."""
    return {
        "dot": _forward(),
        "dot, masks and bias": _forward(masked=True),
        "cosine": _forward("cosine"),
        "l2": _forward("l2"),
        "float32": _forward(dtype=torch.float32),
        "int8": _forward(keys=torch.int8),
        "few queries": _forward(rows=8),
        "64 queries": _forward(rows=64),
        "64 wide": _forward("cosine", dim=64),
        "64 wide, masks and bias": _forward("l2", masked=True, dim=64),
        "int8, masks and bias": _forward("cosine", keys=torch.int8, masked=True),
        "odd width": _forward(dim=100),
        "long vectors": _forward(dim=1024),
        "256 neighbours": _forward(k=256),
        "dot backward": _backward("dot", torch.bfloat16),
        "cosine backward": _backward("cosine", torch.bfloat16),
        "l2 backward, float32": _backward("l2", torch.float32),
        "int8 backward": _backward("dot", torch.bfloat16, torch.int8),
    }
