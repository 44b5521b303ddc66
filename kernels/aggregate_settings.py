"""How :func:`codistill.kernels.aggregate_logits` weighs and averages, in one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from . import checks

RULES = ("mean", "sharpened", "entropy", "confidence", "votes")


@dataclass(frozen=True)
class Aggregation:
    """The settings of :func:`codistill.kernels.aggregate_logits`, which explains them."""

    by: str
    space: str
    temperature: float
    entropy_temperature: float

    def check(self) -> None:
        """Raise ``ValueError`` where a setting is out of its range."""
        checks.one_of("aggregate_logits", "by", self.by, RULES)
        checks.one_of("aggregate_logits", "space", self.space, ("probabilities", "logits"))
        checks.above_zero("aggregate_logits", "temperature", self.temperature)
        checks.above_zero("aggregate_logits", "entropy_temperature", self.entropy_temperature)
        if self.space == "logits" and self.by in ("sharpened", "votes"):
            raise ValueError(f"aggregate_logits: by {self.by!r} averages probabilities; space is 'logits'")
