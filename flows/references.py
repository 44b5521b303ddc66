"""What both ends of a link hold already, so that a packet may be a difference from it.

Used where parameters travel as ``svd``: what a round changed has few directions, weights have not. A child keeps
what was delivered to it last and says on its packets which round's that is; its parent keeps what it delivered.
Where the two rounds agree a packet is a difference, else it is whole.
"""

from __future__ import annotations

import pyarrow as pa

from ..tasks import packet
from ..tasks.agent import Agent
from ..tasks.knowledge import Knowledge, Models

HOLDS = "holds"
"""Written on a packet: the round of the delivery that its sender holds."""


def kept(agent: Agent, exchange: int) -> tuple[Knowledge, int] | None:
    """Return what was delivered to an agent last and the round that it was from."""
    item = agent.memory.items("procedural").get(f"reference {exchange}")
    return None if item is None else (item.knowledge, item.round)


def keep(agent: Agent, exchange: int, delivered: Knowledge, number: int) -> None:
    """Remember what was delivered to an agent in round ``number``."""
    agent.memory.hold("procedural", f"reference {exchange}", delivered, number, agent.above)


def delivered(agent: Agent, exchange: int) -> tuple[Knowledge, int] | None:
    """Return what an aggregator delivered last and the round in which it did."""
    item = agent.memory.items("procedural").get(f"delivered {exchange}")
    return None if item is None else (item.knowledge, item.round)


def holds(message: pa.Buffer) -> int | None:
    """Return the round of the delivery that the sender of a packet holds, or None."""
    head = pa.ipc.open_stream(message).schema.metadata or {}
    said = head.get(HOLDS.encode())
    return None if said is None else int(said)


def common(parent: tuple[Knowledge, int] | None, child_round: int | None) -> Knowledge | None:
    """Return what a parent delivered if the child holds the same delivery."""
    return parent[0] if parent is not None and parent[1] == child_round else None


def as_received(message: pa.Buffer, reference: Knowledge | None, before: Knowledge | None) -> Knowledge:
    """Return what a receiver makes of ``message``; architectures that it does not carry stay as they were."""
    arrived, _ = packet.decode(message, reference)
    if isinstance(arrived, Models) and isinstance(before, Models):
        return Models({**before.tensors, **arrived.tensors}, {**before.samples_by, **arrived.samples_by})
    return arrived
