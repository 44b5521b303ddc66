"""A letter: what passes between a site and anybody else. Signed, of a known version and of limited size, or refused.

On disk it is one Arrow IPC stream of one row with one column of bytes, ``body``; its schema's metadata say who wrote
it, in which run, under which name, and carry the signature, which covers all of that and the body.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass

import pyarrow as pa

from .keys import SigningKey, verified

VERSION = "1"
"""The version of the form of letters; another is refused."""
SCHEMA = pa.schema([pa.field("body", pa.large_binary(), nullable=False)])
ROOM = 4096
"""Bytes that a letter may be longer than its body."""


class LetterRefusedError(RuntimeError):
    """A letter is not what it should be; nothing of it was used. The sentence says which letter and why."""


@dataclass(frozen=True)
class Address:
    """Whose letter it is, of which run, and its name among that writer's letters."""

    run: str
    writer: str
    name: str

    @property
    def path(self) -> str:
        """Where it lies in a store: each writer writes below a folder of its own and nowhere else."""
        return f"{self.writer}/{self.run}/{self.name}"


def sealed(body: bytes | pa.Buffer, address: Address, key: SigningKey) -> bytes:
    """Return the letter with ``body`` (bytes of an Arrow stream, or JSON), signed."""
    head = {"version": VERSION, "run": address.run, "writer": address.writer, "name": address.name}
    signature = base64.b64encode(key.sign(_message(head, body))).decode()
    schema = SCHEMA.with_metadata(head | {"signature": signature})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        column = pa.array([body if isinstance(body, bytes) else body.to_pybytes()], pa.large_binary())
        writer.write_batch(pa.record_batch([column], schema=schema))
    letter: bytes = sink.getvalue().to_pybytes()
    return letter


def opened(letter: bytes, address: Address, public: str, limit: int) -> pa.Buffer:
    """Return the body of a letter that is as ``address`` says, signed by ``public``, with at most ``limit`` bytes.

    Raises ``LetterRefusedError``.
    """

    def refuse(reason: str) -> LetterRefusedError:
        return LetterRefusedError(f"{address.path} is refused: {reason}")

    refuse_too_large(address, len(letter), limit)
    try:
        with pa.ipc.open_stream(letter) as reader:
            schema, batches = reader.schema, list(reader)
        said = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        if schema.remove_metadata() != SCHEMA or len(batches) != 1 or batches[0].num_rows != 1:
            raise refuse("it is not one row with a body")
        batches[0].validate(full=True)
        body = batches[0].column(0)[0].as_buffer()
        signature = base64.b64decode(said.pop("signature", ""), validate=True)
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise refuse(
            f"it is no letter ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None
    if said.get("version") != VERSION:
        raise refuse(f"it is of version {said.get('version', 'unknown')}, and this codistill reads version {VERSION}")
    if len(signature) != 64 or not verified(public, signature, _message(said, body)):
        raise refuse(f"it is not signed with the key of {address.writer} that the spec names")
    if (said.get("run"), said.get("writer"), said.get("name")) != (address.run, address.writer, address.name):
        raise refuse(f"it was written as {said.get('writer')}/{said.get('run')}/{said.get('name')}, and lies here")
    return body


def refuse_too_large(address: Address, size: int, limit: int) -> None:
    """Raise ``LetterRefusedError`` where a letter of ``size`` bytes is longer than ``limit`` bytes of body allow."""
    if size > limit + ROOM:
        raise LetterRefusedError(f"{address.path} is refused: it has {size:,} bytes, engine.limit allows {limit:,}")


def _message(head: dict[str, str], body: bytes | pa.Buffer) -> bytes:
    """Return what is signed: the head, and the digest of the body."""
    return json.dumps([*sorted(head.items()), hashlib.sha256(body).hexdigest()]).encode()
