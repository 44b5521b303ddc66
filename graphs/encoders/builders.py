"""The encoders that a spec may name, and their parameters. Importing this does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ...tasks.late import late
from ...tasks.parameters import Parameters
from .registry import ENCODERS, Sizes, Widths

if TYPE_CHECKING:
    import torch

    from . import attention as attention_layers
    from . import compgcn as compgcn_layers
    from . import compositions
    from . import encoder as parts
    from . import rgcn as rgcn_layers
else:
    torch, parts, compositions = late("torch"), late(f"{__package__}.encoder"), late(f"{__package__}.compositions")
    rgcn_layers, compgcn_layers = late(f"{__package__}.rgcn"), late(f"{__package__}.compgcn")
    attention_layers = late(f"{__package__}.attention")

Layers = Annotated[int, Field(ge=1, le=8)]


class StructureEncoder(Parameters):
    """What every encoder takes."""

    incidental: ClassVar[frozenset[str]] = frozenset({"backend"})

    layers: Layers = Field(1, description="how many steps a message goes")
    backend: Literal["torch", "dgl"] = Field(
        "torch", description="who passes the messages; both compute the same, and dgl needs the extra graphs"
    )


class RGCN(StructureEncoder):
    """Relational graph convolution."""

    bases: Annotated[int, Field(ge=1, le=512)] = Field(8, description="matrices that each relation's is mixed of")


class CompGCN(StructureEncoder):
    """Graph convolution over compositions."""

    composition: Literal["sub", "mul", "corr"] = Field(
        "sub", description="how a message is made of an entity and a relation: difference, product, correlation"
    )


class Attention(StructureEncoder):
    """Graph attention over relations."""

    heads: Annotated[int, Field(ge=1, le=64)] = Field(1, description="attentions side by side; they share the width")


def _widths(layers: int, sizes: Sizes) -> list[tuple[Widths, Widths]]:
    """Return what goes into and comes out of each layer: as wide as entities in the end, between layers."""
    between = Widths(sizes.outside.entities, sizes.outside.entities)
    steps = [sizes.inside, *[between] * (layers - 1), sizes.outside]
    return list(zip(steps[:-1], steps[1:], strict=True))


def _inverses(sizes: Sizes, generator: torch.Generator) -> torch.nn.Parameter:
    return parts.glorot(generator, sizes.relation_count, sizes.inside.relations)


@ENCODERS.register("rgcn", RGCN)
def rgcn(parameters: RGCN, sizes: Sizes, generator: torch.Generator) -> parts.Encoder:
    """R-GCN with basis decomposition (Schlichtkrull et al. 2018); rows of relations pass it unchanged."""
    if sizes.inside.relations != sizes.outside.relations:
        raise ValueError(
            f"rgcn does not change rows of relations: they are {sizes.inside.relations} wide and cannot become "
            f"{sizes.outside.relations}; give the embedding the decoder's width, or take compgcn"
        )
    between = sizes.outside.entities
    layers = []
    for number in range(parameters.layers):
        inside = between if number else sizes.inside.entities
        activation = torch.relu if number + 1 < parameters.layers else parts.unchanged
        layers.append(
            rgcn_layers.RGCNLayer(sizes.relation_count, inside, between, parameters.bases, activation, generator)
        )
    return parts.Encoder(sizes, layers, None)


@ENCODERS.register("compgcn", CompGCN)
def compgcn(parameters: CompGCN, sizes: Sizes, generator: torch.Generator) -> parts.Encoder:
    """CompGCN, which composes entities with relations and renews the rows of both (Vashishth et al. 2020)."""
    composition = compositions.COMPOSITIONS[parameters.composition]
    layers: list[parts.Layer] = []
    if sizes.inside.entities != sizes.inside.relations:
        layers.append(compgcn_layers.Projection(sizes.inside, generator))
    for number, (inside, outside) in enumerate(_widths(parameters.layers, sizes), 1):
        activation = torch.tanh if number < parameters.layers else parts.unchanged
        layers.append(compgcn_layers.CompGCNLayer(inside.entities, outside, composition, activation, generator))
    return parts.Encoder(sizes, layers, _inverses(sizes, generator))


@ENCODERS.register("attention", Attention)
def attention(parameters: Attention, sizes: Sizes, generator: torch.Generator) -> parts.Encoder:
    """Attention over an entity's edges, whose messages are an entity and a relation (after Nathani et al. 2019)."""
    layers = []
    for number, (inside, outside) in enumerate(_widths(parameters.layers, sizes), 1):
        activation = torch.nn.functional.elu if number < parameters.layers else parts.unchanged
        layers.append(attention_layers.AttentionLayer(inside, outside, parameters.heads, activation, generator))
    return parts.Encoder(sizes, layers, _inverses(sizes, generator))
