"""``pack_knowledge``: the k largest classes of a teacher's answers, quantised, as they are sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from . import checks
from .ops.pack import pack_knowledge as pack_knowledge_op
from .reference.pack import DTYPES, decoded

Encoding = Literal["int8", "float16", "float8"]


@dataclass(frozen=True, eq=False)
class Packed:
    """A teacher's answers to rows [...]: its k largest classes, and what the other classes weigh together.

    With p = softmax(logits / T), a row holds

    - ``indices`` int32 [..., k]: the k largest classes, the largest first
    - ``values`` [..., k]: p_j / p_max, coded. int8 is a code of even steps, so it holds the logarithm,
      log(p_j / p_max) = ``scales`` * (value - 127) with value -128 for zero; float16 and float8 (e4m3) are logarithmic
      codes themselves, so they hold p_j / p_max times a constant
    - ``scales`` float32 [...]: the step of int8 in nats, at most 16 / 254; None for the other encodings
    - ``tails`` float32 [...]: log((1 - P) / P), P the sum of p over the kept classes; -inf where nothing is left over

    Why so: p itself on 255 even steps loses all classes below p_max / 510, which are what distillation is about, and
    1 - P made of rounded numbers is noise for a teacher that is sure of itself. Here every kept class has the same
    relative error, P is exact whatever the encoding, and all adds up to one. Relative error of p_j: at most half a
    step for int8 (2 % at a spread of 10 nats), 1/2048 for float16 (to p_max / 5e8), 1/16 for float8 (to p_max / 1e4).
    """

    indices: torch.Tensor
    values: torch.Tensor
    scales: torch.Tensor | None
    tails: torch.Tensor
    classes: int
    temperature: float
    encoding: Encoding

    @property
    def bytes(self) -> int:
        """What the tensors weigh."""
        tensors = (self.indices, self.values, self.scales, self.tails)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def __getitem__(self, rows: Any) -> Packed:
        """Return some of the rows; ``rows`` is what indexes the tensors' leading dimension."""
        return self._each(lambda tensor: _some(tensor, rows))

    def to(self, device: torch.device | str) -> Packed:
        """Return the same on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, do: Any) -> Packed:
        scales = None if self.scales is None else do(self.scales)
        return replace(self, indices=do(self.indices), values=do(self.values), scales=scales, tails=do(self.tails))

    def probabilities(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return p of the kept classes [..., k] and of all others together [...], float32."""
        scales = None if self.scales is None else self.scales.reshape(-1)
        kept, tail = decoded(
            self.values.reshape(-1, self.values.shape[-1]), scales, self.tails.reshape(-1), torch.float32
        )
        return kept.exp().view(self.values.shape), tail.exp().view(self.tails.shape)

    def dense(self) -> torch.Tensor:
        """Return probabilities [..., V], float32; classes that were not kept share the rest equally."""
        kept, tail = self.probabilities()
        left = max(self.classes - self.indices.shape[-1], 1)
        spread = (tail / left)[..., None].expand(*tail.shape, self.classes)
        return spread.scatter(-1, self.indices.long(), kept)


def _some(tensor: torch.Tensor, rows: Any) -> torch.Tensor:
    if tensor.dtype == torch.float8_e4m3fn:  # torch cannot index it on every device
        return tensor.view(torch.uint8)[rows].view(tensor.dtype)
    return tensor[rows]


def pack_knowledge(
    logits: torch.Tensor,
    *,
    k: int,
    temperature: float = 1.0,
    encoding: Encoding = "int8",
    clip: float | None = None,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
    backend: str | None = None,
) -> Packed:
    """Return what a teacher sends instead of its ``logits`` [..., V], any float dtype; :class:`Packed` explains it.

    ``k`` is how many classes are kept, 1 to V; ``temperature`` that of the softmax. A row weighs 8 + 5 k bytes as
    int8, 4 + 6 k as float16 and 4 + 5 k as float8.

    ``clip`` makes the L2 norm of a row at most that much, and ``noise`` then adds Gaussian noise of standard deviation
    ``noise * clip`` to every logit (the Gaussian mechanism, Dwork and Roth 2014, appendix A; adding or removing a row
    changes what is released by at most ``clip``). The noise comes from a seed drawn from ``generator`` (default:
    torch's own on the CPU); the same seed gives other noise on another back end. It is ordinary floating-point noise,
    not hardened against attacks on the lowest bits.

    A row that holds NaN or +inf, or -inf only (or any -inf where it is clipped), becomes NaN: its ``tails`` are.
    There is no gradient. ``backend``: see :mod:`codistill.kernels`.

    Raises ``ValueError`` where an argument is out of its range.
    """
    checks.logits("pack_knowledge", "logits", logits)
    checks.above_zero("pack_knowledge", "temperature", temperature)
    checks.one_of("pack_knowledge", "encoding", encoding, tuple(DTYPES))
    classes = logits.shape[-1]
    if not 1 <= k <= classes:
        raise ValueError(f"pack_knowledge: k is {k} and the logits have {classes} classes; expected 1 to {classes}")
    if clip is not None:
        checks.above_zero("pack_knowledge", "clip", clip)
    if not noise >= 0:
        raise ValueError(f"pack_knowledge: noise is {noise}; expected 0 or more")
    if noise and clip is None:
        raise ValueError("pack_knowledge: noise is in units of clip, which is None; give the norm that rows are cut to")
    seed = None
    if noise:
        where = "cpu" if generator is None else generator.device
        seed = torch.randint(2**63 - 1, (), generator=generator, device=where)
    lead = logits.shape[:-1]
    indices, values, scales, tails = pack_knowledge_op(
        logits.detach().reshape(-1, classes), seed, k, float(temperature), encoding, clip or 0.0, noise, backend or ""
    )
    return Packed(
        indices=indices.view(*lead, k),
        values=values.view(*lead, k),
        scales=scales.view(lead) if encoding == "int8" else None,
        tails=tails.view(lead),
        classes=classes,
        temperature=float(temperature),
        encoding=encoding,
    )
