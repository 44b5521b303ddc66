"""Packets of a run on sites: each a signed letter in the shared store, inspected before anything reads it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ...specs.engine import COORDINATOR
from ...tasks import packet
from ...tasks.encoding import ENCODINGS
from ...tasks.knowledge import FORMS, Knowledge
from ...tasks.parameters import Parameters
from ..plan import Plan
from ..shared_store import SharedStore
from .inspection import Expected, UnfitPacketError, inspect
from .keys import read_key
from .letter import Address, LetterRefusedError, opened, refuse_too_large, sealed


class Correspondence(Parameters):
    """How whoever is at work on a run writes and reads letters: ``mail.json`` in its own folder of the run."""

    store: str
    run: str
    writer: str
    key_file: str
    keys: dict[str, str]
    """The public key of every writer."""
    limit: int
    """Bytes that a letter may have."""


class Letters:
    """Writes letters of one writer and reads anybody's."""

    def __init__(self, said: Correspondence) -> None:
        self.said = said
        self.store = SharedStore(said.store)
        self._key = read_key(Path(said.key_file))

    def write(self, name: str, body: bytes | pa.Buffer) -> None:
        """Seal and put a letter. Raises ``LetterRefusedError`` where it is too large for those who would read it."""
        size = len(body) if isinstance(body, bytes) else body.size
        if size > self.said.limit:
            raise LetterRefusedError(f"{name} would have {size:,} bytes, and engine.limit allows {self.said.limit:,}")
        address = Address(self.said.run, self.said.writer, name)
        self.store.put(address.path, sealed(body, address, self._key))

    def read(self, writer: str, name: str) -> pa.Buffer | None:
        """Return the body of a letter, or None where there is none. Raises ``LetterRefusedError``."""
        address = Address(self.said.run, writer, name)
        size = self.store.size(address.path)
        if size is None:
            return None
        refuse_too_large(address, size, self.said.limit)  # before it is fetched
        letter = self.store.get(address.path)
        return None if letter is None else opened(letter, address, self.said.keys[writer], self.said.limit)

    def names(self, folder: str) -> list[str]:
        """Return the names of our own letters in a folder."""
        return self.store.names(Address(self.said.run, self.said.writer, folder).path)

    def forget(self, name: str) -> None:
        """Remove a letter of our own, or a folder of them."""
        self.store.forget(Address(self.said.run, self.said.writer, name).path)


class SignedMail:
    """The packets of a run as letters; a :class:`..mail.Mail`."""

    def __init__(self, said: Correspondence, plan: Plan) -> None:
        self._letters, self._plan = Letters(said), plan

    def put(self, number: int, exchange: int, name: str, message: pa.Buffer) -> None:
        """Send a packet."""
        self._letters.write(_packet(number, exchange, name), message)

    def get(self, number: int, exchange: int, name: str) -> pa.Buffer | None:
        """Return a packet, or None. Raises ``LetterRefusedError`` where it is not what it should be."""
        return self._inspected(_packet(number, exchange, name), int(name.partition("-")[0]), number, exchange)

    def remember(self, number: int, exchange: int, place: int, total: Knowledge) -> None:
        """Keep what an aggregator delivers, and of earlier ones the last: this round may have to be done again."""
        label = packet.Label(self._plan.agents[place].name, number, exchange)
        folder = f"delivered/{exchange}-{place}"
        self._letters.write(f"{folder}/{number:07d}", packet.encode(total, "float32", _plain(), label))
        earlier = [name for name in self._letters.names(folder) if name < f"{number:07d}"]
        for name in earlier[:-1]:
            self._letters.forget(f"{folder}/{name}")

    def remembered(self, version: int, exchange: int, place: int, kind: str) -> pa.Buffer | None:
        """Return what an aggregator had delivered last when round ``version`` left it."""
        folder, writer = f"delivered/{exchange}-{place}", self._writer(place)
        every = self._letters.store.names(Address(self._letters.said.run, writer, folder).path)
        names = [name for name in every if name.isdecimal() and int(name) <= version]
        return self._inspected(f"{folder}/{names[-1]}", place, int(names[-1]), exchange) if names else None

    def _inspected(self, name: str, place: int, number: int, exchange: int) -> pa.Buffer | None:
        writer, said = self._writer(place), self._plan.exchanges[exchange]
        body = self._letters.read(writer, name)
        if body is None:
            return None
        forms = set(FORMS) if self._plan.agents[place].tier >= 0 else {said.form}
        encodings = {"float32", *(next(iter(one)) if isinstance(one, dict) else one for one in (said.up, said.down))}
        try:
            inspect(body, Expected(self._plan.agents[place].name, number, exchange, forms, encodings))
        except UnfitPacketError as error:
            raise LetterRefusedError(f"{writer}/{self._letters.said.run}/{name} is refused: {error}") from None
        return body

    def _writer(self, place: int) -> str:
        return self._plan.agents[place].site or COORDINATOR


def _packet(number: int, exchange: int, name: str) -> str:
    return f"packets/{number:07d}/{exchange}-{name}"


def _plain() -> Parameters:
    return ENCODINGS["float32"].parameters()
