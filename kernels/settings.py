"""What a loss is told besides tensors, in one frozen value that a back end can compile for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from . import checks


@dataclass(frozen=True)
class Kd:
    """The settings of :func:`codistill.kernels.kd_loss`, which explains them."""

    mode: str
    average: str
    weighting: str
    """"uniform", "given" or "entropy"."""
    temperature: float
    ce_weight: float
    kd_weight: float
    entropy_temperature: float
    jsd_weight: float
    target_weight: float
    other_weight: float
    label_smoothing: float
    ignore_index: int

    @classmethod
    def said(
        cls,
        function: str,
        teacher_weights: torch.Tensor | str | None,
        labels: torch.Tensor | None,
        *,
        mode: str,
        average: str,
        temperature: float,
        ce_weight: float,
        kd_weight: float,
        entropy_temperature: float,
        jsd_weight: float,
        target_weight: float,
        other_weight: float,
        label_smoothing: float,
        ignore_index: int,
    ) -> Kd:
        """Return what a caller of ``function`` said; raise ``ValueError`` where it is out of its range."""
        temperature, entropy_temperature, jsd_weight, label_smoothing = map(
            float, (temperature, entropy_temperature, jsd_weight, label_smoothing)
        )
        checks.one_of(function, "mode", mode, ("forward", "reverse", "jsd", "decoupled"))
        checks.one_of(function, "average", average, ("probabilities", "logits"))
        checks.above_zero(function, "temperature", temperature)
        checks.above_zero(function, "entropy_temperature", entropy_temperature)
        if mode == "jsd" and not 0 < jsd_weight < 1:
            raise ValueError(f"{function}: jsd_weight is {jsd_weight}; expected more than 0 and less than 1")
        if mode == "decoupled" and labels is None:
            raise ValueError(f"{function}: mode 'decoupled' tells the label's class from the others; give labels")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"{function}: label_smoothing is {label_smoothing}; expected 0 to 1")
        return cls(
            mode=mode,
            average=average,
            weighting="uniform"
            if teacher_weights is None
            else "entropy"
            if isinstance(teacher_weights, str)
            else "given",
            temperature=temperature,
            ce_weight=float(ce_weight),
            kd_weight=float(kd_weight),
            entropy_temperature=entropy_temperature,
            jsd_weight=jsd_weight,
            target_weight=float(target_weight),
            other_weight=float(other_weight),
            label_smoothing=label_smoothing,
            ignore_index=int(ignore_index),
        )

    def numbers(self) -> list[float]:
        """Return what an operator of torch takes as one list of floats; :meth:`of` is the way back."""
        return [
            self.temperature,
            self.ce_weight,
            self.kd_weight,
            self.entropy_temperature,
            self.jsd_weight,
            self.target_weight,
            self.other_weight,
            self.label_smoothing,
        ]

    @classmethod
    def of(cls, words: str, numbers: list[float], ignore_index: int) -> Kd:
        """Make settings of ``mode average weighting`` and of what :meth:`numbers` gave."""
        mode, average, weighting = words.split()
        temperature, ce, kd, entropy, jsd, target, other, smoothing = numbers
        return cls(mode, average, weighting, temperature, ce, kd, entropy, jsd, target, other, smoothing, ignore_index)

    @property
    def words(self) -> str:
        """The three names with blanks between."""
        return f"{self.mode} {self.average} {self.weighting}"
