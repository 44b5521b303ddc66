"""Finding files, reading them uncompressed and comparing their checksums."""

from __future__ import annotations

import bz2
import glob
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Sequence
from pathlib import Path

from .dataset import DataError


def places(paths: Sequence[Path]) -> str:
    """Return paths as they stand in a sentence."""
    return ", ".join(str(path) for path in paths)


def candidates(stated: str, root: Path) -> list[Path]:
    """Return where a stated path may lie: itself if absolute, else under ``root``, then in the working folder."""
    path = Path(stated).expanduser()
    return [path] if path.is_absolute() else [root / path, Path.cwd() / path]


def find_stated(stated: str, root: Path) -> Path | None:
    """Return the first of ``candidates`` that is there."""
    return next((path for path in candidates(stated, root) if path.exists()), None)


def expand(stated: str, root: Path) -> list[Path]:
    """Return the files that a stated file name or glob pattern stands for, by name, from the first place with any."""
    for path in candidates(stated, root):
        if path.is_file():
            return [path]
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        files = [one for one in found if one.is_file()]
        if files:
            return files
    return []


def find_in(folder: Path, name: str, endings: Sequence[str] = ("", ".gz")) -> Path | None:
    """Return the file ``name`` with the first of ``endings`` that lies in ``folder``."""
    return next((folder / (name + end) for end in endings if (folder / (name + end)).is_file()), None)


def uncompressed(data: bytes, name: str) -> bytes:
    """Return the content of a file with these bytes, decompressed if its name ends in .gz, .bz2 or .xz.

    Raises ``DataError`` for a compressed file that is cut short or damaged.
    """
    try:
        if name.endswith(".gz"):
            return gzip.decompress(data)
        if name.endswith(".bz2"):
            return bz2.decompress(data)
        if name.endswith(".xz"):
            return lzma.decompress(data)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{name} cannot be decompressed ({error}); fetch it again") from error
    return data


def read_uncompressed(path: Path) -> bytes:
    """Return the content of a file, decompressed by its ending as ``uncompressed`` does."""
    return uncompressed(path.read_bytes(), str(path))


def uncompressed_size(path: Path) -> int:
    """Return the size of a plain file, or the one that the end of a .gz file states (below 4 GiB)."""
    if path.suffix != ".gz":
        return path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 4))
        return int.from_bytes(stream.read(4), "little")


def check_digest(found: str, expected: str, what: str) -> None:
    """Raise ``DataError`` if a checksum differs."""
    if found != expected:
        raise DataError(f"{what} has the checksum {found}, expected {expected}: it is not the published content")


def check_file(path: Path, algorithm: str, expected: str) -> None:
    """Raise ``DataError`` if the checksum of a file's bytes as they lie there differs."""
    with path.open("rb") as stream:
        check_digest(hashlib.file_digest(stream, algorithm).hexdigest(), expected, f"{algorithm}: {path}")
