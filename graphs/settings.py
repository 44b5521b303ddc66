"""How local training goes, as a spec says it; kept apart from the training, which needs torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..tasks.parameters import Parameters


class Contrast(Parameters):
    """Corrupted triples, or all entities."""

    loss: Literal["self-adversarial", "one-vs-all"] = Field("self-adversarial", description="what is descended")
    negatives: Annotated[int, Field(ge=1)] = Field(256, description="corrupted triples for each true one")
    shared: bool = Field(False, description="one draw of negatives for all triples of a batch")
    filtered: bool = Field(True, description="never take a training triple for a negative")
    corrupt: Literal["both", "heads", "tails"] = Field("both", description="both: heads and tails in turn, by batch")
    temperature: Annotated[float, Field(ge=0)] = Field(1.0, description="how sharply negatives weigh by their scores")


class Fit(Contrast):
    """Local training with corrupted triples, or against all entities."""

    epochs: Annotated[int, Field(ge=0, le=100_000)] = Field(3, description="passes over the triples")
    batch: Annotated[int, Field(ge=1)] = Field(512, description="triples a step")
    frequency_weights: bool = Field(False, description="weigh triples less whose pairs are frequent")
    lr: Annotated[float, Field(gt=0, le=10)] = Field(0.001, description="learning rate of Adam")
    optimizer: Literal["adam", "lazy-adam"] = Field("adam", description="lazy: rows that a batch leaves out rest")
