"""Where packets lie between sender and receiver. Who writes and who reads them is :mod:`.exchange`'s."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa

from ..tasks import packet
from ..tasks.knowledge import Knowledge
from .folder import RunFolder, piece_beside


class Mail(Protocol):
    """Packets of a run by round, exchange and name: ``3`` is what place 3 sends up, ``9-to-3``, ``9-to-all``."""

    def put(self, number: int, exchange: int, name: str, message: pa.Buffer) -> None:
        """Send a packet, over one of that name that an interrupted attempt at the round left."""
        ...

    def get(self, number: int, exchange: int, name: str) -> pa.Buffer | None:
        """Return a packet, or None where there is none."""
        ...

    def remember(self, number: int, exchange: int, place: int, total: Knowledge) -> None:
        """Keep what the aggregator at ``place`` delivers in round ``number``, for those who return later."""
        ...

    def remembered(self, version: int, exchange: int, place: int, kind: str) -> pa.Buffer | None:
        """Return what an aggregator had delivered last when round ``version`` left it; ``kind``: of its memory."""
        ...


class FolderMail:
    """Packets in the run's folder, which every worker sees."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def put(self, number: int, exchange: int, name: str, message: pa.Buffer) -> None:
        """Write a packet."""
        packet.write(self._folder.packet(number, exchange, name), message)

    def get(self, number: int, exchange: int, name: str) -> pa.Buffer | None:
        """Return a packet, mapped into memory."""
        try:
            with pa.memory_map(str(self._folder.packet(number, exchange, name))) as source:
                return source.read_buffer()
        except FileNotFoundError:
            return None

    def remember(self, number: int, exchange: int, place: int, total: Knowledge) -> None:
        """Do nothing: the aggregator's own memory lies in the folder too."""

    def remembered(self, version: int, exchange: int, place: int, kind: str) -> pa.Buffer | None:
        """Return it from the aggregator's memory."""
        path = piece_beside(self._folder.state(version, place), kind, f"delivered {exchange}")
        return pa.py_buffer(path.read_bytes()) if path.exists() else None
