"""The filter by density ratio: which samples look like the agent's own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ..agent import Agent, Context
from ..knowledge import FORMS, Rows
from ..late import late
from ..parameters import Parameters
from ..streams import torch_stream
from .registry import FILTERS

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

Count = Annotated[int, Field(ge=1)]


class DensityRatio(Parameters):
    """Selective-FD's client."""

    needs_samples: ClassVar[bool] = True
    least: float | None = Field(None, description="the least estimated ratio; null: set by `share`")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75, description="of the agent's samples outside the estimate that the threshold lets through"
    )
    basis: Count = Field(256, description="private samples, and uniform ones, in the estimate: at most so many of each")
    calibration: Count = Field(1000, description="the most private samples that the threshold is set with")
    sigma: Annotated[float, Field(gt=0)] | None = Field(
        None, description="width of the Gaussian kernel; null: the median distance between private samples"
    )
    regularization: Annotated[float, Field(gt=0)] | None = Field(
        None, alias="lambda", description="weight of the squared norm of the ratio; null: 1 / sqrt(uniform samples)"
    )


@FILTERS.register("density_ratio", DensityRatio)
def density_ratio(agent: Agent, rows: Rows, said: DensityRatio, context: Context) -> torch.Tensor:
    """Rows of samples where the agent's own data are dense enough: Selective-FD's client (Shao et al. 2024).

    The ratio of the density of the agent's samples to a uniform one, over the range of values that they span, is
    estimated by KuLSIF (Kanamori et al. 2012) on the inputs ``context.world.x_train[rows.ids]``. The samples in the
    estimate are drawn from a stream of the agent that does not move from round to round, so neither do the verdicts.
    About half of the private samples, or ``basis`` of them, are in the estimate, and others set the threshold.

    Raises ``ValueError`` for knowledge that is not keyed by sample, or where the agent has no private samples.
    """
    form = FORMS.get(rows.form)
    if form is None or form.keyed_by != "sample":
        raise ValueError(
            f"{agent.name}: the filter density_ratio looks at samples, and {rows.form} is not keyed by them"
        )
    if not agent.samples:
        raise ValueError(
            f"{agent.name}: the filter density_ratio compares with the agent's own samples and there are none;"
            " use it where learners filter"
        )
    generator = torch_stream(context.seed, "agent", agent.name, "density_ratio")
    order = agent.train_ids[torch.randperm(agent.samples, generator=generator)]
    inside = min(said.basis, max(agent.samples // 2, 1))
    private = _flat(context, order[:inside])
    low, high = private.min(), private.max()
    uniform = torch.rand(said.basis, private.shape[1], generator=generator, dtype=torch.float64)
    ratio = kulsif(private, low + (high - low) * uniform, said.sigma, said.regularization)
    if said.least is None:
        outside = order[inside : inside + said.calibration]
        known = ratio(_flat(context, outside)) if len(outside) else ratio(private)
        threshold = float(known.sort(descending=True).values[math.ceil(said.share * len(known)) - 1])
    else:
        threshold = said.least
    found = [ratio(_flat(context, part)) >= threshold for part in rows.ids.split(4096)]
    return torch.cat(found) if found else torch.zeros(0, dtype=torch.bool)


def _flat(context: Context, ids: torch.Tensor) -> torch.Tensor:
    return context.world.x_train[ids].double().flatten(1)


@dataclass(frozen=True)
class Ratio:
    """An estimated density ratio: ``numerator`` [M, D] and ``denominator`` [B, D] samples, and ``alpha`` [B]."""

    numerator: torch.Tensor
    denominator: torch.Tensor
    alpha: torch.Tensor
    sigma: float
    regularization: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the ratio at ``x`` float64 [N, D]: float64 [N]. It may be slightly negative where it is small."""
        near = _kernel(x, self.numerator, self.sigma).mean(1) / self.regularization
        return near + _kernel(x, self.denominator, self.sigma) @ self.alpha


def kulsif(
    numerator: torch.Tensor, denominator: torch.Tensor, sigma: float | None = None, regularization: float | None = None
) -> Ratio:
    """Estimate the ratio of the densities behind two samples (Kanamori, Suzuki and Sugiyama 2012).

    ``numerator`` float64 [M, D], ``denominator`` float64 [B, D]. With the Gaussian kernel k of width ``sigma``:
    w(x) = sum_i alpha_i k(x, denominator_i) + 1 / (M lambda) sum_j k(x, numerator_j), where alpha solves
    (K / B + lambda I) alpha = -1 / (B M lambda) sum_j k(denominator, numerator_j). Selective-FD's published code
    multiplies by the matrix on the left where the equation is to be solved; this solves it.
    """
    sigma = _median_distance(numerator) if sigma is None else sigma
    count = len(denominator)
    weight = 1 / math.sqrt(count) if regularization is None else regularization
    left = _kernel(denominator, denominator, sigma) / count + weight * torch.eye(count, dtype=torch.float64)
    right = _kernel(denominator, numerator, sigma).mean(1) / (-count * weight)
    return Ratio(numerator, denominator, torch.linalg.solve(left, right), sigma, weight)


def _kernel(a: torch.Tensor, b: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.exp(_squared_distances(a, b) / (-2 * sigma**2))


def _squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T)).clamp(min=0)


def _median_distance(x: torch.Tensor) -> float:
    """Return the median distance between two of ``x`` [M, D]; 1 where they are all alike, or one alone."""
    # Differences, not products: the distance between equal samples must be exactly zero.
    apart = torch.nn.functional.pdist(x)
    return (float(apart.median()) if len(apart) else 0.0) or 1.0
