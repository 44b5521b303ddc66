"""Rows of entities that agents share, before and after, in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reading import read_table
from .results import Results

Floats = npt.NDArray[np.float64]
Row = tuple[int, str, str]
"""0 before or 1 after, agent, entity."""


@dataclass(frozen=True)
class SharedRows:
    """Rows of shared entities at two moments, projected onto one plane.

    ``points`` are float64 [2] by row; ``rounds`` the first and the last round of each agent; ``explained`` the share of
    the variance of all rows that lies in the plane; ``apart`` how far agents' rows of one entity are from each other,
    in units of how far entities are from each other, before and after.
    """

    agents: list[str]
    entities: list[str]
    points: dict[Row, Floats]
    rounds: tuple[int, int]
    explained: float
    apart: tuple[float, float]

    def of(self, moment: int, entity: str) -> dict[str, Floats]:
        """Return the points of an entity at a moment, by agent."""
        named = {agent: self.points.get((moment, agent, entity)) for agent in self.agents}
        return {agent: point for agent, point in named.items() if point is not None}

    def middle(self, moment: int, entity: str) -> Floats:
        """Return the mean of an entity's points at a moment, float64 [2]."""
        mean: Floats = np.mean(list(self.of(moment, entity).values()), axis=0)
        return mean


def shared_rows(results: Results) -> SharedRows | None:
    """Return the rows that a run kept to be drawn; None where there are not three entities that two agents share.

    Of agents whose models differ, the rows mean different things: those with the model that most have are taken.
    Rows that are not finite, or that an agent has at one moment only, are left out.
    """
    rows = _alike(results, _read(results))
    entities = sorted({entity for _, _, entity in rows})
    if len(entities) < 3:
        return None
    order = {agent.name: place for place, agent in enumerate(results.agents())}
    agents = sorted({agent for _, agent, _ in rows}, key=lambda name: order.get(name, len(order)))
    keys = sorted(rows)
    values = np.stack([rows[key][1] for key in keys])
    points, explained = project(values)
    apart = tuple(
        _apart(values[[key[0] == moment for key in keys]], [key[2] for key in keys if key[0] == moment])
        for moment in (0, 1)
    )
    first, last = (max(number for key, (number, _) in rows.items() if key[0] == moment) for moment in (0, 1))
    drawn = dict(zip(keys, points, strict=True))
    return SharedRows(agents, entities, drawn, (first, last), explained, (apart[0], apart[1]))


def _read(results: Results) -> dict[Row, tuple[int, Floats]]:
    """Return the rows by moment, agent and entity, each with its round."""
    table = read_table(results.folder, "embeddings")
    found: dict[tuple[str, str], dict[int, Floats]] = {}
    for number, agent, entity, values in zip(*(column.to_pylist() for column in table.columns), strict=True):
        found.setdefault((agent, entity), {})[number] = np.array(values, dtype=np.float64)
    rows: dict[Row, tuple[int, Floats]] = {}
    for (agent, entity), by_round in found.items():
        moments = [(number, by_round[number]) for number in (min(by_round), max(by_round))]
        if len(by_round) > 1 and all(np.isfinite(values).all() for _, values in moments):
            rows |= {(moment, agent, entity): one for moment, one in enumerate(moments)}
    return rows


def _alike(results: Results, rows: dict[Row, tuple[int, Floats]]) -> dict[Row, tuple[int, Floats]]:
    """Return the rows of agents with the model that most have, of entities that at least two of these share."""
    planned = results.plan.get("agents")
    said = [one for one in planned if isinstance(one, dict)] if isinstance(planned, list) else []
    model = {str(one.get("name")): str(one.get("architecture")) for one in said}
    agents = sorted({agent for _, agent, _ in rows})
    counts = [model.get(agent, "") for agent in agents]
    most = max(sorted(set(counts)), key=counts.count, default="")
    alike = {key: row for key, row in rows.items() if model.get(key[1], "") == most}
    holders = [entity for moment, _, entity in alike if moment == 0]
    return {key: row for key, row in alike.items() if holders.count(key[2]) > 1}


def project(values: Floats) -> tuple[Floats, float]:
    """Return ``values`` float64 [n, d] on their two principal axes, [n, 2], and the share of variance in these.

    The number of greatest magnitude along each axis is positive, so that a picture is never mirrored by chance.
    """
    centred = values - values.mean(0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((2, values.shape[1]))
    plane[: len(axes)] = axes[:2]
    heads = np.take_along_axis(plane, np.abs(plane).argmax(1)[:, None], 1)
    plane *= np.where(heads < 0, -1.0, 1.0)
    whole = float((lengths**2).sum())
    return centred @ plane.T, float((lengths[:2] ** 2).sum()) / whole if whole > 0 else 1.0


def _apart(values: Floats, entities: Sequence[str]) -> float:
    """Return the root mean square distance of rows [n, d] to their entity's mean, over that of these to their own."""
    names, place = np.unique(np.array(entities), return_inverse=True)
    counts = np.bincount(place, minlength=len(names)).astype(np.float64)
    means = np.zeros((len(names), values.shape[1]))
    np.add.at(means, place, values)
    means /= counts[:, None]
    within = ((values - means[place]) ** 2).sum(1).mean()
    between = ((means - means.mean(0)) ** 2).sum(1).mean()
    return float(np.sqrt(within / between)) if between > 0 else 0.0
