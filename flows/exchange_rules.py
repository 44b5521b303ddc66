"""What a plan says of an exchange, parsed once: the rule, how knowledge is made, and how packets are written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import TypeAdapter

from ..tasks.aggregate import Aggregate
from ..tasks.choice import Choice
from ..tasks.extract import Extract
from ..tasks.knowledge import Knowledge, Models, Rows
from ..tasks.share import EncodingChoice
from .plan import ExchangePlan

PLAIN = EncodingChoice.model_validate("float32")


class ExchangeRules:
    """An exchange's parameters, parsed once."""

    def __init__(self, exchange: ExchangePlan, central: bool) -> None:
        self.rule: Any = TypeAdapter(Aggregate).validate_python(exchange.rule)
        self.extract: Any = TypeAdapter(Extract).validate_python(exchange.extract)
        self.up: Choice = EncodingChoice.model_validate(exchange.up)
        self.down: Choice = EncodingChoice.model_validate(exchange.down)
        self.form = exchange.form
        self.differences = central and self.form == "parameters" and "svd" in (self.up.name, self.down.name)

    def encoding(self, direction: Literal["up", "down"], reference: Knowledge | None) -> Choice:
        """Return how a packet is written: as the spec says, but whole where a difference has nothing to refer to."""
        said = self.up if direction == "up" else self.down
        return PLAIN if self.differences and reference is None else said


def weighing(own: Knowledge, merged: Knowledge) -> Knowledge:
    """Return ``own`` with the weight of all the agents that stand behind ``merged``."""
    if isinstance(own, Models) and isinstance(merged, Models):
        return replace(own, samples_by=dict.fromkeys(own.tensors, merged.samples))
    assert isinstance(own, Rows) and isinstance(merged, Rows)
    behind = float(merged.weights.mean()) if merged.items else 1.0
    return replace(own, weights=torch.full_like(own.weights, behind), samples=merged.samples)
