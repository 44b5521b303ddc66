"""Structure encoders by name, and the sizes that all of them take. Importing this does not import torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from ...tasks.registry import Registry

if TYPE_CHECKING:
    from .encoder import Encoder


class Widths(NamedTuple):
    """How many numbers the rows of entities and of relations have."""

    entities: int
    relations: int


class Sizes(NamedTuple):
    """The R relations of a graph, the widths of the rows that an encoder is given, and of those that it returns."""

    relation_count: int
    inside: Widths
    outside: Widths


Build = Callable[..., "Encoder"]
"""(its parameters, :class:`Sizes`, a ``torch.Generator`` for its initial weights) -> the encoder."""

ENCODERS: Registry[Build] = Registry("encoders")
"""What makes an encoder, by name; its parameters are a ``StructureEncoder``'s and more."""
