"""Scores of triples of a knowledge graph, and the losses that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

from . import checks
from .kd import kd_loss
from .ops.graph_scores import graph_distances_op

NAME = "graph_scores"

Side = Literal["tail", "head"]
Model = Literal["transe", "rotate", "distmult", "complex"]


def graph_scores(
    known: torch.Tensor,
    relations: torch.Tensor,
    entities: torch.Tensor,
    candidates: torch.Tensor,
    *,
    model: Model = "transe",
    norm: Literal[1, 2] = 1,
    gamma: float = 0.0,
    side: Side = "tail",
    backend: str | None = None,
) -> torch.Tensor:
    """Return the scores [B, n] of triples made of a known entity, a relation and each of n candidate entities.

    ``known`` [B, D] are embeddings of the heads, and the candidates are tails; with ``side="head"`` they are those of
    the tails, and the candidates are heads. ``entities`` [E, D] is the table of embeddings that ``candidates`` points
    into: int64 [B, n], or [n] where all rows have the same. The score is ``gamma`` minus a distance, or plus a product:

    - ``transe``: minus \\|h + r - t\\| in the 1- or 2-norm (``norm``; Bordes et al. 2013); ``relations`` is [B, D]
    - ``rotate``: minus the sum over D / 2 complex numbers of \\|h o r - t\\| (Sun et al. 2019, eq. 2); ``relations``
      [B, D / 2] are phases in radians, r = exp(i phase). With ``norm`` 2 it is the 2-norm of the D / 2 numbers, as
      PyKEEN has it
    - ``distmult``: the sum of h r t (Yang et al. 2015); ``relations`` is [B, D]
    - ``complex``: the real part of the sum over D / 2 complex numbers of h r conj(t) (Trouillon et al. 2016);
      ``relations`` is [B, D]

    Of the D numbers of a complex row the first half are real parts and the second imaginary. ``norm`` says nothing of a
    product and must be 1.

    Any float dtypes; scores and sums are float32, or float64 where an input is. Nothing of size [B, n, D] is made for
    the whole batch. Gradients go to ``known``, ``relations`` and ``entities``; that of the table is dense, [E, D],
    summed in float32. On a GPU candidates of a row's own ([B, n]) are added to it by atomic additions, whose order
    changes from run to run, and with it the last bits; shared candidates ([n]) without repetition are free of that.

    A candidate outside of the table raises ``IndexError`` on a CPU; on a GPU, where looking would mean to wait, its
    score is NaN. Raises ``ValueError`` where shapes, dtypes or settings do not fit, ``NotImplementedError`` under
    ``torch.func`` transforms.
    """
    checks.one_of(NAME, "model", model, tuple(_POINTS))
    checks.one_of(NAME, "side", side, ("tail", "head"))
    if (model, norm) not in _KINDS:
        norms = [str(one) for name, one in _KINDS if name == model]
        raise ValueError(f"{NAME}: norm is {norm} for {model}; expected {' or '.join(norms)}")
    _fits(known, relations, entities, candidates, model)
    wide = torch.promote_types(torch.promote_types(known.dtype, relations.dtype), entities.dtype)
    wide = torch.promote_types(wide, torch.float32)
    query = _POINTS[model](known.to(wide), relations.to(wide), side)
    return gamma - graph_distances_op(query, entities, candidates, _KINDS[model, norm], backend or "")


def negative_sampling_loss(
    positive: torch.Tensor,
    negative: torch.Tensor,
    *,
    adversarial_temperature: float = 1.0,
    sample_weights: torch.Tensor | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> torch.Tensor:
    """Return the loss of true triples against negative ones that weigh as much as the model believes them.

    -log sigmoid(s) - sum_i p_i log sigmoid(-s_i), p = softmax(``adversarial_temperature`` * s_i) held constant (Sun et
    al. 2019, eq. 5 and 6). ``positive`` [B] are the scores s of true triples, ``negative`` [B, n] those s_i of
    corrupted ones, gamma included in both. Temperature 0 weighs all negatives the same. ``sample_weights`` [B] multiply
    a row; "mean" divides by B (not by their sum), "none" returns [B]; no rows make zero.

    The paper's code halves the sum of the two terms; the paper and this do not. It is plain torch: a few operations on
    [B, n] numbers. Raises ``ValueError`` where shapes or settings do not fit.
    """
    name = "negative_sampling_loss"
    checks.one_of(name, "reduction", reduction, ("mean", "sum", "none"))
    if not adversarial_temperature >= 0:
        raise ValueError(f"{name}: adversarial_temperature is {adversarial_temperature}; expected 0 or more")
    if negative.dim() != 2 or positive.shape != negative.shape[:1] or negative.shape[1] < 1:
        raise ValueError(
            f"{name}: positive has shape {tuple(positive.shape)} and negative {tuple(negative.shape)}; "
            "expected [B] and [B, n] with n of at least 1"
        )
    checks.rows(name, "sample_weights", sample_weights, negative)
    shares = torch.softmax(negative.detach() * adversarial_temperature, 1)
    rows = -F.logsigmoid(positive) - (shares * F.logsigmoid(-negative)).sum(1)
    if sample_weights is not None:
        rows = rows * sample_weights
    if reduction == "none":
        return rows
    return rows.sum() / max(len(rows), 1) if reduction == "mean" else rows.sum()


def score_kd_loss(
    student_scores: torch.Tensor,
    teacher_scores: torch.Tensor,
    temperature: float = 1.0,
    *,
    sample_weights: torch.Tensor | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
) -> torch.Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)) over the candidates of each row, reduced over rows.

    Scores are [B, n] for the same candidates; adding a number to all of a row's, such as gamma, changes nothing. This
    is :func:`codistill.kernels.kd_loss` without labels: gradients, reductions, back ends and errors are its own.
    """
    return kd_loss(
        student_scores,
        teacher_scores,
        temperature=temperature,
        sample_weights=sample_weights,
        reduction=reduction,
        backend=backend,
    )


def _translated(known: torch.Tensor, relations: torch.Tensor, side: Side) -> torch.Tensor:
    """Return where a candidate would have to be: t = h + r, or h = t - r."""
    return known + relations if side == "tail" else known - relations


def _rotated(known: torch.Tensor, phases: torch.Tensor, side: Side) -> torch.Tensor:
    """Return where a candidate would have to be: t = h o r, or h = t o conj(r), since \\|r\\| is 1."""
    return _complex_product(known, torch.cat([phases.cos(), phases.sin()], 1), side)


def _scaled(known: torch.Tensor, relations: torch.Tensor, side: Side) -> torch.Tensor:
    """Return what a candidate is multiplied with: h r, or r t."""
    return known * relations


def _complex_product(known: torch.Tensor, relations: torch.Tensor, side: Side) -> torch.Tensor:
    """Return what a candidate is multiplied with, part by part: h r, or t conj(r)."""
    real, imaginary = known.chunk(2, 1)
    cosine, sine = relations.chunk(2, 1)
    if side == "head":
        sine = -sine
    return torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], 1)


_POINTS: dict[str, Callable[[torch.Tensor, torch.Tensor, Side], torch.Tensor]] = {
    "transe": _translated,
    "rotate": _rotated,
    "distmult": _scaled,
    "complex": _complex_product,
}
"""What candidates are compared with, by model."""

_KINDS = {
    ("transe", 1): "absolute",
    ("transe", 2): "euclidean",
    ("rotate", 1): "modulus",
    ("rotate", 2): "euclidean",
    ("distmult", 1): "product",
    ("complex", 1): "product",
}
"""How they are compared, by model and norm."""


def _fits(
    known: torch.Tensor, relations: torch.Tensor, entities: torch.Tensor, candidates: torch.Tensor, model: str
) -> None:
    for name, tensor in (("known", known), ("relations", relations), ("entities", entities)):
        if not tensor.is_floating_point() or tensor.dim() != 2:
            raise ValueError(
                f"{NAME}: {name} has shape {tuple(tensor.shape)} and dtype {tensor.dtype}; expected two dimensions "
                "of floats"
            )
    batch, width = known.shape
    if entities.shape[1] != width:
        raise ValueError(f"{NAME}: entities are {entities.shape[1]} wide and known {width}; expected the same")
    if model in ("rotate", "complex") and width % 2:
        raise ValueError(f"{NAME}: known is {width} wide; {model} needs an even width, real parts and imaginary parts")
    expected = (batch, width // 2 if model == "rotate" else width)
    if relations.shape != expected:
        raise ValueError(f"{NAME}: relations has shape {tuple(relations.shape)}; expected {expected} for {model}")
    if candidates.dtype != torch.int64 or candidates.dim() not in (1, 2):
        raise ValueError(
            f"{NAME}: candidates has shape {tuple(candidates.shape)} and dtype {candidates.dtype}; "
            "expected int64 [B, n] or [n]"
        )
    if candidates.dim() == 2 and candidates.shape[0] != batch:
        raise ValueError(f"{NAME}: candidates has {candidates.shape[0]} rows and known {batch}; expected the same")
    for name, tensor in (("relations", relations), ("entities", entities), ("candidates", candidates)):
        if tensor.device != known.device:
            raise ValueError(f"{NAME}: {name} is on {tensor.device} and known on {known.device}")
