"""The files of a graph, from a folder or an archive. Nothing is ever unpacked to the disk."""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from ...tasks.data.dataset import DataError
from ...tasks.data.files import uncompressed

ARCHIVE = re.compile(r"\.(tar|tar\.gz|tgz|tar\.xz|tar\.bz2)$")
LARGEST_ARCHIVE = 2**30
ENDINGS = tuple(kind + packed for kind in (".txt", ".tsv") for packed in ("", ".gz", ".xz"))


@dataclass(frozen=True)
class File:
    """A file that can be read: what it is called in a message, and its bytes as they lie there."""

    label: str
    stored: Callable[[], bytes]

    def read(self) -> bytes:
        """Return the content, decompressed if the name ends in .gz, .bz2 or .xz; raise ``DataError`` if that fails."""
        try:
            data = self.stored()
        except OSError as error:
            raise DataError(f"{self.label} cannot be read ({error.strerror}); make it readable") from error
        return uncompressed(data, self.label)


Files: TypeAlias = Mapping[str, File]


def _in_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Return what ``name`` is sorted by: its numbers as numbers, so that 2 comes before 10, and 01 before 1."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)], name


def folder_files(folder: Path) -> dict[str, File]:
    """Return the files that lie directly in ``folder``, by name."""
    return {path.name: File(str(path), path.read_bytes) for path in sorted(folder.iterdir()) if path.is_file()}


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"{archive}: the member {name!r} points outside the archive; pack it again with plain names")
    return path


def _members(archive: Path) -> dict[str, dict[str, File]]:
    """Return the regular files of a tar archive by folder and then by name; they are read into memory."""
    found: dict[str, dict[str, File]] = {}
    total = 0
    try:
        with tarfile.open(archive, "r:*") as opened:
            for member in opened:
                path = _safe(member.name, archive)
                total += member.size
                if total > LARGEST_ARCHIVE:
                    raise DataError(
                        f"{archive} holds more than {LARGEST_ARCHIVE:,} bytes; unpack it and name the folder"
                    )
                content = opened.extractfile(member) if member.isreg() else None
                if content is None:
                    if not member.isdir():
                        raise DataError(f"{archive}: {member.name!r} is a link or a device; pack plain files only")
                    continue
                data = content.read()
                file = File(f"{archive}: {path}", lambda data=data: data)  # type: ignore[misc]
                found.setdefault(str(path.parent), {})[path.name] = file
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{archive} cannot be read ({error}); fetch it again") from error
    return found


def _piece(files: Files, piece: str) -> list[str]:
    return [piece + ending for ending in ENDINGS if piece + ending in files]


def find_piece(files: Files, piece: str) -> File | None:
    """Return the file of a piece: ``train`` stands in train.txt or train.tsv, plain, .gz or .xz.

    Raises ``DataError`` if there are two.
    """
    found = _piece(files, piece)
    if len(found) > 1:
        raise DataError(
            f"{files[found[0]].label}: {found[1]} lies beside it; keep one of the two, they are both {piece}"
        )
    return files[found[0]] if found else None


def _is_graph(files: Files) -> bool:
    return any(_piece(files, piece) for piece in ("train", "valid", "test"))


def one_graph(path: Path) -> Files:
    """Return the files of the one graph in a folder or in an archive.

    Raises ``DataError`` if a folder holds folders with graphs instead, or an archive holds none or several.
    """
    if path.is_dir():
        files = folder_files(path)
        if not _is_graph(files) and any(_is_graph(folder_files(one)) for one in path.iterdir() if one.is_dir()):
            raise DataError(f"{path} holds a folder per client, expected one graph; name the source client-folders")
        return files
    folders = [files for files in _members(path).values() if _is_graph(files)]
    if len(folders) != 1:
        raise DataError(
            f"{path} holds {len(folders)} folders with train, valid or test files, expected 1; for a folder per client "
            "name the source client-folders"
        )
    return folders[0]


def graph_per_client(path: Path) -> dict[str, Files]:
    """Return the files of each client by the name of its folder, 2 before 10, in a folder or in an archive.

    Hidden folders, files beside the clients' folders and an archive's folders without triples are left out. Raises
    ``DataError`` if there is no client, or if two folders of an archive have one name.
    """
    if path.is_dir():
        folders = {one.name: folder_files(one) for one in path.iterdir() if one.is_dir() and one.name[0] != "."}
    else:
        deep = {folder: files for folder, files in _members(path).items() if folder != "." and _is_graph(files)}
        folders = {PurePosixPath(folder).name: files for folder, files in deep.items()}
        if len(folders) != len(deep):
            raise DataError(
                f"{path}: two of the folders {', '.join(deep)} have one name, so they cannot be two clients"
            )
    if not folders:
        raise DataError(f"{path} holds no folder; expected one for each client, with train.txt, valid.txt and test.txt")
    return {name: folders[name] for name in sorted(folders, key=_in_order)}


def readable(path: Path) -> bool:
    """Whether ``path`` is something that graphs are read from: a folder or a tar archive."""
    return path.is_dir() or (path.is_file() and ARCHIVE.search(path.name) is not None)


def files_below(path: Path) -> Iterable[Path]:
    """Return what the content of ``path`` depends on: itself if an archive, else the files in it, by name."""
    return [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
