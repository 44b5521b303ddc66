"""The operation ``share``: how knowledge is written down to travel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from . import packet
from .choice import Choice, choice
from .encoding import ENCODINGS
from .knowledge import Knowledge
from .parameters import Parameters

if TYPE_CHECKING:
    import pyarrow as pa

if TYPE_CHECKING:
    EncodingChoice = Choice
else:
    EncodingChoice = choice("Encoding", ENCODINGS, "How values are made smaller to travel.")


def _plain() -> Choice:
    return EncodingChoice.model_validate("float32")


class Share(Parameters):
    """How knowledge travels."""

    up: EncodingChoice = Field(default_factory=_plain, description="from an agent to its aggregator, or between peers")
    down: EncodingChoice = Field(default_factory=_plain, description="from an aggregator to those below it")


def share(knowledge: Knowledge, encoding: Choice, label: packet.Label, reference: Knowledge | None = None) -> pa.Buffer:
    """Knowledge becomes one Arrow message, encoded as the step says, and goes along the pattern's links."""
    return packet.encode(knowledge, encoding.name, encoding.parameters, label, reference)
