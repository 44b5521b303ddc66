"""Who signs: an Ed25519 key pair of a person or machine, and how its public half is written in a spec."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PREFIX = "ed25519:"
NAME = "key.json"


class KeyFileError(ValueError):
    """A key cannot be read; the sentence says which, and what to do."""


@dataclass(frozen=True)
class SigningKey:
    """The private half, which never leaves its file."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> str:
        """The public half as a spec has it: ``ed25519:`` and 32 bytes in base64."""
        return PREFIX + base64.b64encode(self.private.public_key().public_bytes_raw()).decode()

    def sign(self, message: bytes) -> bytes:
        """Return the signature of ``message``, 64 bytes."""
        return self.private.sign(message)


def own_key(home: Path) -> SigningKey:
    """Return the key in ``home``, made where there is none; only its owner can read the file.

    Raises ``KeyFileError`` where the file is damaged or others can read it.
    """
    path = home / NAME
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        made = SigningKey(Ed25519PrivateKey.generate())
        said = {"private": base64.b64encode(made.private.private_bytes_raw()).decode(), "public": made.public}
        draft = path.with_name(f".{NAME}.{os.getpid()}")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(said, indent=1) + "\n")
        try:
            os.link(draft, path)  # of two that make one at once, the first wins
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return read_key(path)


def read_key(path: Path) -> SigningKey:
    """Return the key in the file ``path``. Raises ``KeyFileError``."""
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path} can be read by others; `chmod 600 {path}`, and make a new one if they have")
        raw = base64.b64decode(json.loads(path.read_text(encoding="utf-8"))["private"], validate=True)
        return SigningKey(Ed25519PrivateKey.from_private_bytes(raw))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, KeyFileError):
            raise
        raise KeyFileError(
            f"{path} holds no key ({error}); `codistill site key` makes one where there is none"
        ) from None


def public_bytes(said: str) -> bytes:
    """Return the 32 bytes of a public key as a spec has it. Raises ``ValueError``."""
    try:
        raw = base64.b64decode(said.removeprefix(PREFIX), validate=True)
    except ValueError:
        raw = b""
    if not said.startswith(PREFIX) or len(raw) != 32:
        raise ValueError(f"expected a public key as `codistill site key` prints it, {PREFIX} and 44 letters of base64")
    return raw


def verified(said: str, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is that of ``message`` by the public key ``said``."""
    try:
        Ed25519PublicKey.from_public_bytes(public_bytes(said)).verify(signature, message)
    except InvalidSignature:
        return False
    return True
