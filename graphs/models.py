"""Embeddings as models that an agent may have: what they look like, as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, model_validator

from ..tasks.choice import Choice, choice
from ..tasks.models import MODELS
from ..tasks.parameters import Parameters
from .dgl import lack_of_dgl
from .encoders import ENCODERS
from .scores import SCORES, Score

if TYPE_CHECKING:
    EncoderChoice = Choice
else:
    EncoderChoice = choice("StructureEncoder", ENCODERS, "What neighbourhoods in the graph make of an embedding.")


class EmbeddingModel(Parameters):
    """A row for each entity and each relation."""

    reads: ClassVar[str] = "triples"

    dimension: Annotated[int, Field(ge=1, le=65536)] = Field(
        128, description="numbers of an entity; complex numbers with rotate and complex"
    )
    margin: Annotated[float, Field(ge=0)] = Field(
        8.0, description="added to the score of distance models in the loss; sets the range of initial numbers"
    )
    encoder: EncoderChoice | None = Field(
        None, description="what stands between the rows and the score; it stays with the agent, and rows may travel"
    )

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> EmbeddingModel:
        heads = 1 if self.encoder is None else getattr(self.encoder.parameters, "heads", 1)
        if self.dimension % heads:
            raise ValueError(
                f"{heads} heads of attention cannot share a dimension of {self.dimension} evenly; "
                f"write `heads: {math.gcd(heads, self.dimension)}` or another dimension"
            )
        return self

    def lacking(self) -> str | None:
        """Return a sentence about a package that is needed and not installed, or None."""
        asked = self.encoder is not None and self.encoder.parameters.backend == "dgl"
        return lack_of_dgl() if asked else None


@dataclass(frozen=True)
class EmbeddingArchitecture:
    """An embedding of all names of a run; an agent has the rows of those that it holds.

    ``name`` tells the score, dimension and margin: rows may be exchanged if and only if they are equal. ``features``
    is the width of an entity's row. ``multiply_adds`` are those of one score, and parameters those of the tables: an
    ``encoder`` works once for all scores of a batch, and its weights do not travel.
    """

    name: str
    input_shape: tuple[int, ...]
    classes: int
    score: str
    dimension: int
    margin: float
    encoder: Choice | None = None

    @property
    def features(self) -> int:
        """The width of an entity's row."""
        return SCORES[self.score].entity_width(self.dimension)

    def width(self, table: str) -> int:
        """Return the width of a row of ``entities`` or ``relations``."""
        return self.features if table == "entities" else SCORES[self.score].relation_width(self.dimension)

    @property
    def parameter_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of both tables, with a row for each name of the run."""
        return (self.input_shape[0], self.features), (self.classes, self.width("relations"))

    @property
    def parameter_count(self) -> int:
        """The numbers in both tables."""
        return sum(map(math.prod, self.parameter_shapes))

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one score: each number of a candidate against the point that it is compared with."""
        return 2 * self.features


@dataclass(frozen=True)
class _Embedding:
    score: str
    said: EmbeddingModel

    def named(self, identity: str, input_shape: tuple[int, ...], classes: int) -> EmbeddingArchitecture:
        said = self.said
        return EmbeddingArchitecture(
            identity, input_shape, classes, self.score, said.dimension, said.margin, said.encoder
        )


def _enter(score: Score) -> None:
    def made(parameters: EmbeddingModel, shape: tuple[int, ...]) -> _Embedding:
        return _Embedding(score.name, parameters)

    made.__doc__ = (
        f"Embedding of a knowledge graph; a triple's score is {score.sentence[0].lower()}{score.sentence[1:]}"
    )
    MODELS.register(score.name, EmbeddingModel)(made)


for _score in SCORES.values():
    _enter(_score)
