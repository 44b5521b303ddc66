"""Rules that look at all that came alike: means, sharpened means, and rows side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..agent import Agent, Context
from ..knowledge import Knowledge, Models, Rows, together
from ..late import late
from .door import Merge
from .means import mean_of_models, mean_of_rows
from .registry import AGGREGATES

if TYPE_CHECKING:
    from ...kernels import ensembles
else:
    ensembles = late("codistill.kernels.ensembles")


class Collect(Merge):
    """Nothing is merged."""

    takes: ClassVar[tuple[str, ...]] = ("logits", "class_logits", "prototypes")
    side_by_side: ClassVar[bool] = True
    one_out: ClassVar[bool] = False


class Sharpened(Merge):
    """DS-FL."""

    takes: ClassVar[tuple[str, ...]] = ("logits",)
    scale: ClassVar[str | None] = "probabilities"
    one_out: ClassVar[bool] = False
    temperature: Annotated[float, Field(gt=0)] = Field(0.1, description="below 1 sharpens")


@AGGREGATES.register("mean", Merge)
def mean(agent: Agent, packets: Sequence[Knowledge], said: Merge, context: Context) -> Knowledge:
    """The weighted mean: of parameters within each architecture, of rows within each id."""
    if isinstance(packets[0], Models):
        return mean_of_models([p for p in packets if isinstance(p, Models)])
    return mean_of_rows([p for p in packets if isinstance(p, Rows)])


@AGGREGATES.register("collect", Collect)
def collect(agent: Agent, packets: Sequence[Rows], said: Collect, context: Context) -> Rows:
    """Everybody's rows side by side, each with its owner; for a memory at the top, not to be sent back as they are."""
    return together(packets)


@AGGREGATES.register("sharpened_mean", Sharpened)
def sharpened_mean(agent: Agent, packets: Sequence[Rows], said: Sharpened, context: Context) -> Rows:
    """The mean of probabilities, sharpened once at the top: entropy reduction (Itahara et al. 2021, eq. 9)."""
    merged = mean_of_rows(packets)
    if not context.final:
        return merged
    values = ensembles.sharpened(merged.values, said.temperature)
    return Rows(merged.form, merged.ids, values, merged.weights, merged.samples)
