"""Valence as knowledge: shares of 1 by contributor, and rows that weigh by them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from ..knowledge import Rows
from ..late import late

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")


def weighted_by_valence(rows: Rows, valence: Rows) -> Rows:
    """Return ``rows`` with each weight times its owner's valence over the mean valence.

    Equal valences change nothing, to the bit. A contributor without a valence keeps its weights. Rows of one whose
    valence is 0 are left out, because a mean over nothing but them would be no number.
    """
    owners = owners_of(rows)
    held = dict(zip(valence.contributors, valence.values[:, 0].double(), strict=True))
    if not held:
        return rows
    usual = torch.stack(list(held.values())).mean()
    factors = torch.stack([held.get(name, usual) / usual for name in rows.contributors] or [usual])[owners]
    weighted = replace(rows, weights=rows.weights * factors)
    return weighted if bool((factors > 0).all()) else weighted.part(factors > 0)


def owners_of(rows: Rows) -> torch.Tensor:
    """Return whose each row is, int64 [N]; ``ValueError`` where the rows do not say."""
    if rows.owners is None:
        raise ValueError(f"rows of {rows.form} say of none whose they are; a valence weighs contributors side by side")
    return rows.owners


def mean_by_owner(rows: Rows, scores: torch.Tensor, comparable: torch.Tensor) -> torch.Tensor:
    """Return the mean of each contributor's ``scores`` [N] over its ``comparable`` rows, float64 [K].

    One without such rows gets the mean of the others' means: nothing speaks for it or against it.
    """
    owners, count = owners_of(rows), len(rows.contributors)
    sums, rows_of = torch.zeros(2, count, dtype=torch.float64)
    sums.index_add_(0, owners[comparable], scores[comparable])
    rows_of.index_add_(0, owners[comparable], torch.ones_like(scores[comparable]))
    means = sums / rows_of
    known = means[rows_of > 0]
    return torch.where(rows_of > 0, means, known.mean() if len(known) else torch.zeros(()).double())


def as_valence(rows: Rows, scores: torch.Tensor, momentum: float, before: Rows | None) -> Rows:
    """Return non-negative ``scores`` float64 [K] as shares of 1: the valence of each contributor of ``rows``.

    With ``momentum`` m it is m times what was held ``before`` and 1 - m times what was found now. A contributor that
    nothing was held of counts as found now; one that is no longer there is left out.
    """
    shares = _shares(scores)
    if before is not None and momentum:
        held = dict(zip(before.contributors, before.values[:, 0].tolist(), strict=True))
        old = torch.tensor(
            [held.get(name, new) for name, new in zip(rows.contributors, shares.tolist(), strict=True)],
            dtype=torch.float64,
        )
        shares = _shares(momentum * old + (1 - momentum) * shares)
    places = torch.arange(len(shares))
    return Rows(
        "valence",
        places,
        shares.float()[:, None],
        torch.ones(len(shares), dtype=torch.float64),
        rows.samples,
        contributors=rows.contributors,
        owners=places.clone(),
    )


def _shares(scores: torch.Tensor) -> torch.Tensor:
    total = float(scores.sum())
    if total > 0 and math.isfinite(total):
        return scores / total
    return torch.full_like(scores, 1 / max(len(scores), 1))
