"""What a spec says of a store: its kind, what it holds, how much, who leaves, and how values and keys are held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from ..choice import Choice, choice
from ..encoding import Encode, Plain, TopK, float16, float32, int8, top_k
from ..parameters import Name, Parameters
from ..registry import Registry
from .eviction import EVICTIONS

HELD: Registry[Encode] = Registry("held encodings")
"""The encodings of ``tasks/encoding.py`` under which entries are held."""

HELD.register("float32", Plain)(float32)
HELD.register("float16", Plain)(float16)
HELD.register("int8", Plain)(int8)
HELD.register("top-k", TopK)(top_k)

if TYPE_CHECKING:
    EvictionChoice = Choice
    HeldEncoding = Choice
else:
    EvictionChoice = choice("Eviction", EVICTIONS, "Who leaves a full store.")
    HeldEncoding = choice("HeldEncoding", HELD, "How values are made smaller to be held.")

Kind = Literal["sensory", "working", "semantic", "episodic", "procedural", "emotional"]

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

Size = (
    Annotated[int, Field(ge=1, description="bytes")]
    | Annotated[str, Field(pattern=r"^[1-9][0-9]* ?(B|KiB|MiB|GiB)$", description='a size such as "64MiB"')]
)


class Capacity(Parameters):
    """How much a store holds: entries, or bytes of entries as they are encoded."""

    items: Annotated[int, Field(ge=1)] | None = Field(None, description="entries")
    bytes: Size | None = Field(None, description="bytes of entries as encoded, with their provenance")

    @model_validator(mode="after")
    def _one(self) -> Capacity:
        if (self.items is None) == (self.bytes is None):
            raise PydanticCustomError("one_key", "expected exactly one of {expected}", {"expected": "items, bytes"})
        return self

    def entries(self, row_bytes: int) -> int:
        """Return how many entries of ``row_bytes`` fit."""
        if self.items is not None:
            return self.items
        return size_in_bytes(self.bytes or 0) // row_bytes


def size_in_bytes(size: int | str) -> int:
    """Return the bytes of a size such as 4096 or "64MiB"."""
    if isinstance(size, int):
        return size
    unit = next(unit for unit in ("KiB", "MiB", "GiB", "B") if size.endswith(unit))
    return int(size.removesuffix(unit)) * UNITS[unit]


class Declaration(Parameters):
    """A store as a spec declares it."""

    kind: Kind = Field(description="the kind of memory")
    holds: Name = Field(description="the form of knowledge that its entries are")
    capacity: Capacity | None = Field(None, description="nothing said: no bound")
    eviction: EvictionChoice = Field(
        default_factory=lambda: EvictionChoice.model_validate("fifo"), description="who leaves a full store"
    )
    encoding: HeldEncoding = Field(
        default_factory=lambda: HeldEncoding.model_validate("float32"), description="how values are held"
    )
    keys: Literal["none", "float32", "int8"] = Field(
        "none", description="whether entries have keys that they are found by, and how those are held"
    )
    replace: bool = Field(
        True, description="a newer entry of the same id and contributor takes the older's place; false keeps a log"
    )
    keep: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="share of the ids that come in, drawn once for each agent and id; what is kept at 0.25 is kept at "
        "0.5 too, and 0 empties the memory (an ablation)",
    )
