"""What private steps have cost each agent by the end of a run: the table ``privacy.parquet``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..tasks import accounting, packet
from ..tasks.knowledge import Rows
from .folder import RunFolder, piece_beside, replacing
from .inherit import left_by
from .plan import Plan

PRIVACY = pa.schema(
    [
        ("agent", pa.string()),
        ("steps", pa.int64()),
        ("noise", pa.float64()),
        ("rate", pa.float64()),
        ("delta", pa.float64()),
        ("epsilon", pa.float64()),
    ]
)


def write_privacy(folder: RunFolder, plan: Plan) -> None:
    """Write, for each agent that took private steps, how many of each kind, and the epsilon of all of them together.

    Epsilon is null where it is infinite or the package that computes it is not installed. No table where no agent took
    any.
    """
    left, rows = left_by(folder, plan), list[list[Any]]()
    for agent in plan.agents[: plan.learners]:
        if agent.name not in left:
            continue
        path = piece_beside(left[agent.name], "procedural", accounting.KEY)
        held = packet.read(path) if path.exists() else None
        if not isinstance(held, Rows):
            continue
        spent, delta = accounting.account_of(held)
        cost = _epsilon(tuple(spent), delta)
        rows += [[agent.name, one.steps, one.noise, one.rate, delta, cost] for one in spent]
    write_rows(folder, rows)


def write_rows(folder: RunFolder, rows: Sequence[Sequence[Any]]) -> None:
    """Write the table with ``rows`` in the columns of ``PRIVACY``; none where there are no rows."""
    if rows:
        columns = [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), PRIVACY, strict=True)]
        with replacing(folder.table("privacy")) as temporary:
            pq.write_table(pa.Table.from_arrays(columns, schema=PRIVACY), temporary)


@cache
def _epsilon(spent: tuple[accounting.Spent, ...], delta: float) -> float | None:
    try:
        found = accounting.epsilon(spent, delta)
    except ModuleNotFoundError:
        return None
    return found if found < float("inf") else None
