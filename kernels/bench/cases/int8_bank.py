"""``retrieve`` from a memory-mapped int8 bank; faiss has the same bank in memory, in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from ...retrieval import retrieve
from ..case import EAGER, OURS, Case, Prepared, Provider, drawn

OWNERS, CLASSES, K = 20, 10, 16


@dataclass(frozen=True)
class Int8Bank:
    """Queries [Q, D], codes int8 [M, D] with scales [M], and who owns and knows what."""

    queries: torch.Tensor
    codes: torch.Tensor
    scales: torch.Tensor
    masks: dict[str, Any]

    def eager(self, dtype: torch.dtype, rows: int = 64) -> tuple[torch.Tensor]:
        """Return scores [Q, k] as one would write it, some ``rows`` at a time: all would be gigabytes."""
        keys = self.codes.to(dtype) * self.scales.to(dtype)[:, None]
        found = []
        for first in range(0, len(self.queries), rows):
            some = slice(first, first + rows)
            scores = self.queries[some].to(dtype) @ keys.t()
            if self.masks:
                said = self.masks
                scores = scores.masked_fill(said["query_owner"][some, None] == said["key_owner"], -torch.inf)
                scores = scores.masked_fill(said["query_class"][some, None] != said["key_class"], -torch.inf)
            found.append(scores.topk(K, 1)[0])
        return (torch.cat(found),)

    def ours(self) -> tuple[torch.Tensor]:
        """Return the same from codistill."""
        return (retrieve(self.queries, self.codes, k=K, key_scales=self.scales, backend="cpu", **self.masks).scores,)

    def faiss(self, index: Any) -> tuple[torch.Tensor]:
        """Return the same from a flat index that holds the keys."""
        return (torch.from_numpy(index.search(self.queries.numpy(), K)[0]),)


def cases(quick: bool) -> Iterator[Case]:
    """Yield a thousand queries of a million memories, without masks and with owners and classes."""
    count, many, width = (256, 65536, 128) if quick else (1024, 1_000_000, 128)
    for kind in ("int8", "int8 masked"):
        size = many * (width + 4) + count * width * 4 + (many * 16 if kind != "int8" else 0)
        shape = f"Q={count} M={many} D={width} k={K} {kind}"
        yield Case("retrieve", shape, torch.int8, size, 1e-3, partial(prepare, count, many, width, kind != "int8"))


def prepare(count: int, many: int, width: int, masked: bool) -> Prepared:
    """Draw a bank and map it; its vectors have a length of about one."""
    cpu = torch.device("cpu")
    queries, keys = (
        drawn(cpu, torch.float32, rows, width, seed=seed, spread=width**-0.5) for seed, rows in ((0, count), (1, many))
    )
    scales = keys.abs().amax(1) / 127
    with tempfile.NamedTemporaryFile() as file:  # the mapping outlives its name
        codes = torch.from_file(file.name, shared=True, size=many * width, dtype=torch.int8).view(many, width)
    codes.copy_((keys / scales[:, None]).round_())
    generator = torch.Generator().manual_seed(7)

    def integers(below: int, size: int) -> torch.Tensor:
        return torch.randint(below, (size,), generator=generator)

    masks: dict[str, Any] = {}
    if masked:
        masks = {
            "query_owner": integers(OWNERS, count),
            "key_owner": integers(OWNERS, many),
            "query_class": integers(CLASSES, count),
            "key_class": integers(CLASSES, many),
        }
    bank = Int8Bank(queries, codes, scales, masks)
    providers: dict[str, Provider] = {f"{OURS}cpu": bank.ours, EAGER: partial(bank.eager, torch.float32)}
    if not masked and find_spec("faiss"):
        import faiss

        index = faiss.IndexFlatIP(width)
        index.add((codes * scales[:, None]).numpy())
        providers["faiss"] = partial(bank.faiss, index)
    return Prepared(providers, partial(bank.eager, torch.float64))
