"""Distances to candidate entities: each program gathers the entities it needs, so that no [B, n, D] is ever stored."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

KINDS = {"absolute": 0, "euclidean": 1, "modulus": 2, "product": 3}


@triton.jit
def _distances(
    query,
    entities,
    candidates,
    made,
    query_stride,
    entity_stride,
    candidate_stride,
    entity_count,
    count,
    width,
    KIND: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    VEC: tl.constexpr,
):
    """One program: one row and BLOCK_N candidates. ``width`` is D, or D / 2 for complex numbers."""
    # Multiples of VEC, as the launcher found: said here, so that the compiler loads 16 bytes at a time.
    width = (width // VEC) * VEC
    query_stride = (query_stride // VEC) * VEC
    entity_stride = (entity_stride // VEC) * VEC
    blocks = tl.cdiv(count, BLOCK_N)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    column = (tl.program_id(0) % blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = column < count
    entity = tl.load(candidates + row * candidate_stride + column, live, 0)
    there = live & (entity >= 0) & (entity < entity_count)
    sums = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside = d < width
        mask = there[:, None] & inside[None, :]
        at = entities + entity[:, None] * entity_stride + d[None, :]
        own = tl.load(query + row * query_stride + d, inside, 0.0).to(tl.float32)
        theirs = tl.load(at, mask, 0.0).to(tl.float32)
        apart = tl.where(mask, own[None, :] - theirs, 0.0)
        if KIND == 0:
            sums += tl.abs(apart)
        elif KIND == 1:
            sums += apart * apart
        elif KIND == 3:
            sums -= own[None, :] * theirs
        else:
            own = tl.load(query + row * query_stride + width + d, inside, 0.0).to(tl.float32)
            other = tl.where(mask, own[None, :] - tl.load(at + width, mask, 0.0).to(tl.float32), 0.0)
            sums += tl.sqrt(apart * apart + other * other)
    length = tl.sum(sums, 1)
    if KIND == 1:
        length = tl.sqrt(length)
    tl.store(made + row * count + column, tl.where(there, length, float("nan")), live)


def prepared(
    query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor, kind: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]:
    """Return tensors whose rows lie together, the width that kernels loop over, and what divides widths and strides."""
    query, candidates = query.contiguous(), candidates.contiguous()
    entities = entities if entities.stride(1) == 1 else entities.contiguous()
    width = query.shape[1] // 2 if kind == "modulus" else query.shape[1]
    sizes = (width, query.stride(0), entities.stride(0))
    return query, entities, candidates, width, next(v for v in (8, 4, 2, 1) if all(size % v == 0 for size in sizes))


def config(width: int, count: int, kind: str) -> dict[str, int]:
    """Return block sizes: 2,048 real or imaginary numbers a program, fewer candidates where there are few."""
    across = min(128, max(16, triton.next_power_of_2(width)))
    down = min((1024 if kind == "modulus" else 2048) // across, max(4, triton.next_power_of_2(count)))
    return {"BLOCK_N": down, "BLOCK_D": across, "num_warps": 4}


def distances(query: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor, kind: str) -> torch.Tensor:
    """Do what :func:`codistill.kernels.reference.graph_scores.distances` does; outside of the table it is NaN."""
    query, entities, candidates, width, vec = prepared(query, entities, candidates, kind)
    batch, count = query.shape[0], candidates.shape[-1]
    made = query.new_empty(batch, count)
    sizes = config(width, count, kind)
    if made.numel():
        _distances[(batch * triton.cdiv(count, sizes["BLOCK_N"]),)](
            query,
            entities,
            candidates,
            made,
            query.stride(0),
            entities.stride(0),
            count if candidates.dim() == 2 else 0,
            entities.shape[0],
            count,
            width,
            KIND=KINDS[kind],
            VEC=vec,
            **sizes,
        )
    return made
