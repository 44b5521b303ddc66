"""``retrieve`` on a GPU: maxima of groups of scores, the best groups, and the exact k best of their members.

Peak memory is Q M / g numbers for groups of g = 4 to 16 memories, where a plain product needs Q M. The first step
rounds otherwise than the last, and its ties are in no order: the last step proves for each query that neither matters,
or looks through all groups that might matter.
"""

from __future__ import annotations

import torch
import triton

from ..dispatch import detail
from ..reference.retrieve import retrieve as plainly
from ..retrieve_settings import SMALLEST_NORM, Bank, Found, Queries, Settings
from .retrieve_bank import prepare_bank
from .retrieve_finish import finish
from .retrieve_groups import group_maxima
from .retrieve_shapes import MOST, PROGRAMS, block, dense, group_size, power_of_two, tiles, vector

SPARE = 4
"""Groups taken beyond k: the last of them bounds what was not taken, mostly well below the k-th best."""


def retrieve(asked: Queries, bank: Bank, settings: Settings) -> Found:
    """Do what :func:`codistill.kernels.reference.retrieve.retrieve` does, in float32; k is at most ``MOST``."""
    rows, count, k = asked.rows.shape[0], bank.keys.shape[0], settings.k
    if not rows or not count or k > MOST:
        detail(f"reference: nothing to do, or more than {MOST} neighbours")
        return plainly(asked, bank, settings)
    asked, bank = asked.dense(), bank.dense()
    queries, keys = dense(asked.rows), dense(bank.keys)
    dim, device = keys.shape[1], queries.device
    cosine, l2 = settings.similarity == "cosine", settings.similarity == "l2"
    kept = None if bank.kept is None else bank.kept.view(torch.uint8)
    has_offset = bank.bias is not None or kept is not None or l2
    vec = vector(dim, queries.stride(0), keys.stride(0))

    def floats(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=device, dtype=torch.float32)

    factor = floats(count) if cosine else bank.key_scales
    offset = floats(count) if has_offset else None
    largest = torch.zeros(2, device=device, dtype=torch.float32)
    wide = block(dim, 64)
    prepare_bank[(triton.cdiv(count, 64),)](
        keys,
        bank.key_scales,
        bank.bias,
        kept,
        factor,
        offset,
        largest,
        count,
        dim,
        keys.stride(0),
        settings.scale,
        SMALLEST_NORM,
        QUANTISED=bank.key_scales is not None,
        HAS_BIAS=bank.bias is not None,
        HAS_KEPT=kept is not None,
        HAS_OFFSET=has_offset,
        COSINE=cosine,
        L2=l2,
        BLOCK_M=64,
        BLOCK_D=wide,
        VEC=vec,
        num_warps=4,
    )

    tile = tiles(queries, count, bank.owner is not None or bank.class_ is not None)
    group = group_size(count, k, dim * keys.element_size())
    tile_count, query_blocks = triton.cdiv(count, tile.memories), triton.cdiv(rows, tile.queries)
    groups = tile_count * (tile.memories // group)
    each = max(1, tile_count * query_blocks // PROGRAMS)
    maxima = floats(rows, groups)
    group_maxima[(query_blocks, triton.cdiv(tile_count, each))](
        queries,
        keys,
        factor,
        offset,
        asked.owner,
        bank.owner,
        asked.class_,
        bank.class_,
        maxima,
        rows,
        count,
        dim,
        queries.stride(0),
        keys.stride(0),
        groups,
        tile_count,
        settings.scale * 2 if l2 else settings.scale,
        SMALLEST_NORM,
        TILES=each,
        BLOCK_Q=tile.queries,
        BLOCK_M=tile.memories,
        BLOCK_D=tile.dim,
        WHOLE=tile.dim >= dim,
        GROUP=group,
        HAS_FACTOR=factor is not None,
        HAS_OFFSET=has_offset,
        HAS_OWNER=bank.owner is not None,
        HAS_CLASS=bank.class_ is not None,
        COSINE=cosine,
        PRECISION="tf32x3" if queries.dtype == torch.float32 else "ieee",
        VEC=vec,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    chosen_count = min(k + SPARE, groups)
    highest, chosen = maxima.topk(chosen_count, 1)

    values = None if bank.values is None or not bank.values.shape[1] else dense(bank.values)
    width = 0 if values is None else values.shape[1]
    K = power_of_two(k)  # noqa: N806
    step = max(power_of_two(K // group, 1), min(power_of_two(chosen_count, 1), 64 // group))
    # Few warps leave room for many programs, which hide each other's waits; more neighbours take more to sort.
    warps = 8 if K > 64 else 2
    found_values = queries.new_empty(rows, width)
    indices = torch.empty(rows, k, device=device, dtype=torch.int64)
    weights, scores, sums = floats(rows, k), floats(rows, k), floats(rows)
    finish[(rows,)](
        queries,
        keys,
        queries if values is None else values,
        factor,
        bank.key_scales,
        bank.value_scales,
        bank.bias,
        kept,
        asked.owner,
        bank.owner,
        asked.class_,
        bank.class_,
        maxima,
        highest,
        chosen,
        largest,
        found_values,
        indices,
        weights,
        scores,
        sums,
        count,
        dim,
        width,
        queries.stride(0),
        keys.stride(0),
        0 if values is None else values.stride(0),
        groups,
        chosen_count,
        k,
        settings.scale,
        settings.temperature,
        # Of both steps together. A tensor core cuts what it adds; tf32 in three parts is right to 2^-20.
        2.0**-22 * (dim + 16),
        SMALLEST_NORM,
        K=K,
        STEP=step,
        GROUP=group,
        WIDE=tile.memories // group,
        BLOCK_D=block(dim, step * group, 2048),
        BLOCK_E=block(width, K, 2048),
        ALL_CHOSEN=chosen_count == groups,
        QUANTISED=bank.key_scales is not None,
        VALUES_QUANTISED=bank.value_scales is not None and values is not None,
        HAS_FACTOR=factor is not None and not l2,
        HAS_BIAS=bank.bias is not None,
        HAS_KEPT=kept is not None,
        HAS_OWNER=bank.owner is not None,
        HAS_CLASS=bank.class_ is not None,
        COSINE=cosine,
        L2=l2,
        VEC=vec,
        VALUE_VEC=vector(width, 0 if values is None else values.stride(0)),
        num_warps=warps,
        # Said, because the compiler otherwise stops at some lower number and spills a handful.
        maxnreg=128,
    )
    return found_values, indices, weights, scores, sums
