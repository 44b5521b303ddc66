"""What a loss is told besides tensors, in one frozen value that a back end can compile for."""

from __future__ import annotations

from dataclasses import dataclass

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

    def check(self, function: str = "kd_loss") -> None:
        """Raise ``ValueError``, which names ``function``, where a setting is out of its range."""
        checks.one_of(function, "mode", self.mode, ("forward", "reverse", "jsd", "decoupled"))
        checks.one_of(function, "average", self.average, ("probabilities", "logits"))
        checks.above_zero(function, "temperature", self.temperature)
        checks.above_zero(function, "entropy_temperature", self.entropy_temperature)
        if self.mode == "jsd" and not 0 < self.jsd_weight < 1:
            raise ValueError(f"{function}: jsd_weight is {self.jsd_weight}; expected more than 0 and less than 1")
        if not 0 <= self.label_smoothing <= 1:
            raise ValueError(f"{function}: label_smoothing is {self.label_smoothing}; expected 0 to 1")

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
