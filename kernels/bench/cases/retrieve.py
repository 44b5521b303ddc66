"""``retrieve``: the search alone, the search with masks, and with masks and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch

from ...retrieval import retrieve
from ..case import EAGER, OURS, Case, Outputs, Prepared, Provider, back_ends, drawn
from . import int8_bank

OWNERS, CLASSES, OLDEST = 20, 10, 0.9


@dataclass(frozen=True)
class Memory:
    """Queries [Q, D], keys and values [M, D], and who owns and knows what."""

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    masks: dict[str, Any]
    k: int
    temperature: float

    def valid(self) -> torch.Tensor | None:
        """Return [Q, M], or None where there are no masks."""
        said = self.masks
        if not said:
            return None
        own = said["query_owner"][:, None] == said["key_owner"]
        same = said["query_class"][:, None] == said["key_class"]
        valid: torch.Tensor = ~own & same & (said["key_age"] <= said["max_age"])
        return valid

    def eager(self, double: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return values [Q, D] and scores [Q, k] as one would write it."""
        queries, keys, values = (one.double() if double else one for one in (self.queries, self.keys, self.values))
        scores = queries @ keys.t()
        valid = self.valid()
        if valid is not None:
            scores = scores.masked_fill(~valid, -torch.inf)
        best, indices = scores.topk(self.k, 1)
        weights = torch.softmax(best / self.temperature, 1, dtype=torch.float64 if double else torch.float32)
        return (weights[..., None] * values[indices]).sum(1), best

    def ours(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same from codistill."""
        found = retrieve(
            self.queries, self.keys, self.values, k=self.k, temperature=self.temperature, backend=name, **self.masks
        )
        assert found.values is not None
        return found.values, found.scores

    def faiss(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same from a flat index that holds the keys."""
        best, indices = (torch.from_numpy(one) for one in index.search(self.queries.detach().numpy(), self.k))
        weights = torch.softmax(best / self.temperature, 1)
        return (weights[..., None] * self.values[indices]).sum(1), best


def cases(device: torch.device, quick: bool) -> Iterator[Case]:
    """Yield a thousand queries of a bank of 65,536 memories, and on a CPU of a mapped one of a million."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    count, many, width, k = (256, 16384, 128, 16) if quick else (1024, 65536, 128, 16)
    for kind in ("plain", "masked", "masked+backward"):
        size = (count + many) * width * dtype.itemsize + count * (k * width * dtype.itemsize + k * 12)
        size += count * width * dtype.itemsize
        if kind != "plain":
            size += many * 20
        if kind == "masked+backward":
            size += 2 * count * k * width * dtype.itemsize + 2 * count * width * dtype.itemsize
        yield Case(
            "retrieve",
            f"Q={count} M={many} D={width} k={k} {kind}",
            dtype,
            size,
            2e-2 if dtype == torch.bfloat16 else 1e-3,
            partial(prepare, device, dtype, count, many, width, k, kind),
            # A product that is rounded to bfloat16 swaps neighbours that are nearly equal; plain torch has no other.
            peer_tolerance=0.5 if dtype == torch.bfloat16 else None,
        )
    if device.type == "cpu":
        yield from int8_bank.cases(quick)


def prepare(device: torch.device, dtype: torch.dtype, count: int, many: int, width: int, k: int, kind: str) -> Prepared:
    """Draw a memory; its vectors have a length of about one."""
    queries, keys, values = (
        drawn(device, dtype, rows, width, seed=seed, spread=width**-0.5)
        for seed, rows in enumerate((count, many, many))
    )
    generator = torch.Generator().manual_seed(7)

    def integers(below: int, size: int) -> torch.Tensor:
        return torch.randint(below, (size,), generator=generator).to(device)

    masks: dict[str, Any] = {}
    if kind != "plain":
        masks = {
            "query_owner": integers(OWNERS, count),
            "key_owner": integers(OWNERS, many),
            "query_class": integers(CLASSES, count),
            "key_class": integers(CLASSES, many),
            "key_age": torch.rand(many, generator=generator).to(device),
            "max_age": OLDEST,
        }
    memory = Memory(queries, keys, values, masks, k, 0.1)
    if kind == "masked+backward":
        return with_gradients(memory, device)
    providers: dict[str, Provider] = {f"{OURS}{name}": partial(memory.ours, name) for name in back_ends(device)}
    providers |= {EAGER: memory.eager, "torch.compile": torch.compile(memory.eager, dynamic=False)}
    if kind == "plain" and device.type == "cpu" and find_spec("faiss"):
        import faiss

        index = faiss.IndexFlatIP(width)
        index.add(keys.numpy())
        providers["faiss"] = partial(memory.faiss, index)
    return Prepared(providers, lambda: memory.eager(double=True))


def with_gradients(memory: Memory, device: torch.device) -> Prepared:
    """Let queries and values learn."""
    leaves = [memory.queries.requires_grad_(), memory.values.requires_grad_()]

    def both(found: Any) -> Outputs:
        made, _ = found()
        return made, *torch.autograd.grad(made.square().sum(), leaves)

    providers = {f"{OURS}{name}": partial(both, partial(memory.ours, name)) for name in back_ends(device)}
    providers |= {
        EAGER: partial(both, memory.eager),
        "torch.compile": partial(both, torch.compile(memory.eager, dynamic=False)),
    }
    return Prepared(providers, lambda: both(partial(memory.eager, double=True)))
