"""Shapley shares of the quality of a vote: KD3A's consensus focus (Feng et al. 2021).

The published code goes through all K! permutations. The sum over coalitions is the same number in O(K 2^K).
The quality is a sum over ids, so ids are taken in parts and memory stays bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..filters.probabilities import probabilities
from ..knowledge import Rows
from ..late import late
from .shares import owners_of

if TYPE_CHECKING:
    import torch
else:
    torch = late("torch")

NUMBERS = 4_000_000
"""How many float64 numbers a table of coalitions or of prefixes may hold at once."""


@dataclass(frozen=True)
class Ballot:
    """Votes in rising order of ``at``, each vote's place among ``ids`` ids: ``at``, ``owners`` and ``named`` (a class
    of ``classes``) int64 [V], ``confidence`` float64 [V]."""

    at: torch.Tensor
    owners: torch.Tensor
    named: torch.Tensor
    confidence: torch.Tensor
    ids: int
    classes: int

    def parts(self, contributors: int, at_once: int) -> Iterator[torch.Tensor]:
        """Yield the confidence by contributor, id and class, float64 [K, n, C], ``at_once`` ids at a time."""
        for first in range(0, self.ids, at_once):
            last = min(first + at_once, self.ids)
            low, high = torch.searchsorted(self.at, torch.tensor([first, last])).tolist()
            table = torch.zeros(contributors, last - first, self.classes, dtype=torch.float64)
            some = slice(low, high)
            table[self.owners[some], self.at[some] - first, self.named[some]] = self.confidence[some]
            yield table


def ballot_of(rows: Rows, scale: str, gate: float) -> Ballot:
    """Return the votes of the rows whose largest probability is above ``gate``; a row that is not finite has none."""
    confidence, named = probabilities(rows.values, scale).max(1)
    ids, at = torch.unique(rows.ids, return_inverse=True)
    order = torch.argsort(at, stable=True)
    kept = order[confidence[order] > gate]
    return Ballot(at[kept], owners_of(rows)[kept], named[kept], confidence[kept], len(ids), rows.values.shape[1])


def exact_shapley(ballot: Ballot, contributors: int) -> torch.Tensor:
    """Return each contributor's share by the sum over coalitions, float64 [K].

    phi_k = sum over S without k of |S|! (K - |S| - 1)! / K! (quality(S with k) - quality(S)).
    """
    coalitions = torch.arange(2**contributors)
    members = (coalitions[:, None] >> torch.arange(contributors)) & 1
    quality = torch.zeros(len(coalitions), dtype=torch.float64)
    at_once = max(NUMBERS // (len(coalitions) * max(ballot.classes, 1)), 1)
    for table in ballot.parts(contributors, at_once):
        gathered = members.double() @ table.flatten(1)
        quality += gathered.unflatten(1, table.shape[1:]).amax(2).sum(1)
    sizes = members.sum(1)
    factors = torch.tensor(
        [1 / (contributors * math.comb(contributors - 1, size)) for size in range(contributors)], dtype=torch.float64
    )
    shares = torch.zeros(contributors, dtype=torch.float64)
    for place in range(contributors):
        without = coalitions[members[:, place] == 0]
        gains = quality[without + (1 << place)] - quality[without]
        shares[place] = (factors[sizes[without]] * gains).sum()
    return shares


def sampled_shapley(ballot: Ballot, orders: torch.Tensor) -> torch.Tensor:
    """Return each contributor's mean gain over the permutations ``orders`` int64 [P, K]: float64 [K]."""
    count = orders.shape[1]
    quality = torch.zeros(orders.shape, dtype=torch.float64)
    for table in ballot.parts(count, max(NUMBERS // (count * max(ballot.classes, 1)), 1)):
        for place, order in enumerate(orders):
            quality[place] += table[order].cumsum(0).amax(2).sum(1)
    gains = quality.diff(dim=1, prepend=torch.zeros(len(orders), 1, dtype=torch.float64))
    return torch.zeros(count, dtype=torch.float64).index_add_(0, orders.flatten(), gains.flatten()) / len(orders)
