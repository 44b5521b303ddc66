"""``retrieve``: exact top-k retrieval from a memory bank, with masks, softmax and gradients."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from . import checks
from .ops.retrieve import retrieve_op
from .retrieve_settings import MOST_MEMORIES, SIMILARITIES, Bank, Queries, Settings

Similarity = Literal["dot", "cosine", "l2"]


class Retrieved(NamedTuple):
    """What was found for Q queries.

    ``values`` [Q, E] in the queries' dtype, or None where the bank has none; ``indices`` int64 [Q, k], best first, -1
    where there is no valid memory; ``weights`` [Q, k], ``scores`` [Q, k] (-inf where there is none) and ``log_sum_exp``
    [Q] (-inf where there is nothing at all) in float32, or in float64 for float64.
    """

    values: torch.Tensor | None
    indices: torch.Tensor
    weights: torch.Tensor
    scores: torch.Tensor
    log_sum_exp: torch.Tensor


def retrieve(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor | None = None,
    *,
    k: int,
    similarity: Similarity = "dot",
    scale: float = 1.0,
    temperature: float = 1.0,
    bias: torch.Tensor | None = None,
    key_scales: torch.Tensor | None = None,
    value_scales: torch.Tensor | None = None,
    query_owner: torch.Tensor | None = None,
    key_owner: torch.Tensor | None = None,
    query_class: torch.Tensor | None = None,
    key_class: torch.Tensor | None = None,
    key_age: torch.Tensor | None = None,
    max_age: float | None = None,
    backend: str | None = None,
) -> Retrieved:
    """Return the k memories with the highest scores for each query, and the mean of their values by softmax.

    With q = ``queries`` [Q, D] and the memories ``keys`` [M, D] and ``values`` [M, E], the score is
    s = ``scale`` * similarity(q, key) + ``bias``, where the similarity is the ``dot`` product, the ``cosine``, or minus
    the squared distance (``l2``). Over the k best, weights = softmax(s / ``temperature``), values = sum of weights *
    values, log_sum_exp = log(sum exp(s / ``temperature``)): with it the answers of several banks can be merged, as in
    attention over blocks (Dao et al. 2022, sec. 3.1). It is attention over the k nearest of a memory (Wu et al. 2022,
    Memorizing Transformers).

    Keys have the dtype of the queries, or are int8 with ``key_scales`` [M]: key = scale * int8. Values are of any float
    dtype, or int8 with ``value_scales`` [M]. ``bias`` is [M]; -inf masks a memory.

    Masks, each a pair that is given together; identifiers are integers:

    - ``query_owner`` [Q], ``key_owner`` [M]: not a memory of one's own
    - ``query_class`` [Q], ``key_class`` [M]: only memories of the same class
    - ``key_age`` [M], ``max_age``: only memories not older than that

    Equal scores go to the lower index. Where fewer than k memories are valid, the rest is index -1, weight 0, score
    -inf; where none is, values are zero and log_sum_exp is -inf. A query with a NaN makes its own row NaN with indices
    -1; a memory whose score is NaN is never retrieved.

    Gradients flow from values, weights, scores and log_sum_exp to queries, float keys, float values and bias. They are
    made from the saved indices and weights in O(Q k (D + E)); int8 keys and values get none, and nothing is
    differentiable twice. Which memories were chosen is a constant to them, as in every top-k.

    Raises ``ValueError`` where shapes, dtypes or settings do not fit.
    """
    settings = Settings(k=int(k), similarity=similarity, scale=float(scale), temperature=float(temperature))
    checks.one_of("retrieve", "similarity", similarity, SIMILARITIES)
    checks.above_zero("retrieve", "k", settings.k)
    checks.above_zero("retrieve", "temperature", settings.temperature)
    _check_queries_and_keys(queries, keys)
    rows, count = queries.shape[0], keys.shape[0]
    if values is not None:
        if values.dim() != 2 or values.shape[0] != count:
            raise ValueError(f"retrieve: values has shape {tuple(values.shape)}; expected [{count}, E], one row a key")
        if not values.is_floating_point() and values.dtype != torch.int8:
            raise ValueError(f"retrieve: values are {values.dtype}; expected floats, or int8 with value_scales")
        _same_device("values", values, queries)
    _check_scales("key", keys, key_scales)
    _check_scales("value", values, value_scales)
    _check_vector("key_scales", key_scales, count, "key", queries, floats=True)
    _check_vector("value_scales", value_scales, count, "value", queries, floats=True)
    _check_vector("bias", bias, count, "key", queries, floats=True)
    _check_pair("query_owner", query_owner, "key_owner", key_owner)
    _check_pair("query_class", query_class, "key_class", key_class)
    _check_pair("key_age", key_age, "max_age", max_age)
    for name, identifiers, length, one in (
        ("query_owner", query_owner, rows, "query"),
        ("key_owner", key_owner, count, "key"),
        ("query_class", query_class, rows, "query"),
        ("key_class", key_class, count, "key"),
    ):
        _check_vector(name, identifiers, length, one, queries, floats=False)
    _check_vector("key_age", key_age, count, "key", queries, floats=None)
    kept = None if key_age is None or max_age is None else key_age <= max_age
    found = retrieve_op(
        Queries(queries, query_owner, query_class),
        Bank(keys, values, bias, key_scales, value_scales, kept, key_owner, key_class),
        settings,
        backend or "",
    )
    return Retrieved(None if values is None else found[0], *found[1:])


def _check_queries_and_keys(queries: torch.Tensor, keys: torch.Tensor) -> None:
    if queries.dim() != 2 or queries.shape[1] < 1 or not queries.is_floating_point():
        raise ValueError(
            f"retrieve: queries has shape {tuple(queries.shape)} and dtype {queries.dtype}; expected floats [Q, D]"
        )
    if keys.dim() != 2 or keys.shape[1] != queries.shape[1]:
        raise ValueError(
            f"retrieve: keys has shape {tuple(keys.shape)}; expected [M, {queries.shape[1]}], as long as the queries"
        )
    if keys.dtype not in (queries.dtype, torch.int8):
        raise ValueError(f"retrieve: keys are {keys.dtype}; expected {queries.dtype} like the queries, or int8")
    if keys.shape[0] > MOST_MEMORIES:
        raise ValueError(f"retrieve: keys has {keys.shape[0]} rows; expected at most {MOST_MEMORIES}")
    _same_device("keys", keys, queries)


def _check_scales(which: str, rows: torch.Tensor | None, scales: torch.Tensor | None) -> None:
    quantised = rows is not None and rows.dtype == torch.int8
    if quantised and scales is None:
        raise ValueError(f"retrieve: {which}s are int8 and {which}_scales is None; give one scale a row")
    if scales is not None and not quantised:
        raise ValueError(f"retrieve: {which}_scales is given, but the {which}s are not int8; multiply them yourself")


def _check_pair(first: str, given: object, second: str, other: object) -> None:
    if (given is None) != (other is None):
        there, missing = (first, second) if other is None else (second, first)
        raise ValueError(f"retrieve: {there} is given without {missing}; a mask needs both")


def _check_vector(
    name: str, tensor: torch.Tensor | None, length: int, one: str, queries: torch.Tensor, floats: bool | None
) -> None:
    if tensor is None:
        return
    if tensor.shape != (length,):
        raise ValueError(f"retrieve: {name} has shape {tuple(tensor.shape)}; expected [{length}], one a {one}")
    if floats is not None and (tensor.is_floating_point() != floats or tensor.dtype == torch.bool):
        raise ValueError(f"retrieve: {name} is {tensor.dtype}; expected {'floats' if floats else 'integers'}")
    _same_device(name, tensor, queries)


def _same_device(name: str, tensor: torch.Tensor, queries: torch.Tensor) -> None:
    if tensor.device != queries.device:
        raise ValueError(f"retrieve: {name} is on {tensor.device} and the queries on {queries.device}")
