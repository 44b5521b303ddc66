"""The manifest: which files are a store, and what was counted. Putting it in place is what a write is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ..parameters import Name, Parameters
from .declaration import Declaration
from .errors import StoreError
from .segments import BROKEN, put_in_place

Count = Annotated[int, Field(ge=0)]


class File(Parameters):
    """One file: its path from the manifest's folder, its rows and its bytes."""

    path: str
    rows: Count
    bytes: Count


class Counters(Parameters):
    """What is counted over a store's life, and since its statistics were begun anew (the last six)."""

    files: Count = 0
    """Files ever written, so that no name comes twice."""
    sequence: Count = 0
    """Entries that ever came."""
    hits: Count = 0
    misses: Count = 0
    retrieved: Count = 0
    ages: int = 0
    """Sum of the ages of what was retrieved, in rounds."""
    refused: Count = 0
    evicted: Count = 0


class Manifest(Parameters):
    """A store as written."""

    version: Literal[1]
    name: Name
    declaration: Declaration
    width: Count
    key_width: Count
    contributors: tuple[str, ...]
    segments: tuple[File, ...]
    marks: File
    counters: Counters

    def write(self, path: Path) -> None:
        """Put the manifest in place."""
        put_in_place(path, (self.model_dump_json(indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Return the manifest at ``path``; ``StoreError`` where it is missing, of another version or no manifest."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise StoreError(f"{path}: there is no store; create one, or name the manifest of one") from None
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            if where == "version":
                raise StoreError(
                    f"{path}: is of version {first['input']!r} and this codistill reads version 1; open it with the "
                    "codistill that wrote it"
                ) from None
            raise StoreError(f"{path}: is no manifest of a store ({where}: {first['msg']}); {BROKEN}") from None


def relative(path: Path, folder: Path) -> str:
    """Return how a manifest in ``folder`` names a file."""
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
