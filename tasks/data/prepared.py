"""Data sets kept on disk as plain .npy files, to be mapped into memory by any number of processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ..kinds import DATA_KINDS
from ..parameters import Parameters
from .dataset import DataError, Dataset, content_digest
from .registry import DATASETS

FORMAT = 1
DESCRIPTION = "dataset.json"
INDEX = "index.json"


def _describe(dataset: Dataset) -> dict[str, Any]:
    arrays = [
        {"name": name, "file": f"{position:02d}.npy", "dtype": array.dtype.str, "shape": list(array.shape)}
        for position, (name, array) in enumerate(dataset.arrays())
    ]
    kind = {} if dataset.kind == "samples" else {"kind": dataset.kind}
    return kind | {
        "format": FORMAT,
        "name": dataset.name,
        "digest": dataset.digest(),
        "labels": list(dataset.labels),
        "columns": list(dataset.columns_train),
        "arrays": arrays,
    }


def _write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def _is_prepared(path: Path, digest: str) -> bool:
    """Return whether ``path`` says that it holds the data set with ``digest`` in the present format."""
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        return bool(description["format"] == FORMAT and description["digest"] == digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def prepare(dataset: Dataset, folder: Path) -> Path:
    """Write ``dataset`` to ``folder/<first 16 of its digest>`` and return that path; do nothing if it is there.

    It appears there complete or not at all; a killed writer leaves a folder named ``.writing-*`` behind.
    """
    target = folder / dataset.digest()[:16]
    if _is_prepared(target, dataset.digest()):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".writing-"))
    try:
        description = _describe(dataset)
        for entry, (_, array) in zip(description["arrays"], dataset.arrays(), strict=True):
            np.save(temporary / entry["file"], np.ascontiguousarray(array), allow_pickle=False)
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
        temporary.chmod(0o755)
        try:
            os.replace(temporary, target)
        except OSError:  # something is there: what somebody else wrote meanwhile, or an older format
            if not _is_prepared(target, dataset.digest()):
                shutil.rmtree(target)
                os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def open_prepared(path: Path, verify: bool = False) -> Any:
    """Return the data set, of any kind, at ``path``, its arrays memory-mapped and read-only.

    ``verify`` reads everything and compares the digest. Raises ``DataError`` if the folder is not a prepared data
    set, or not the one that it says it is.
    """
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise DataError(f"{path} has format {description['format']}, expected {FORMAT}; prepare it again")
        arrays = {}
        for entry in description["arrays"]:
            array = np.load(path / entry["file"], mmap_mode="r", allow_pickle=False)
            if array.dtype.str != entry["dtype"] or list(array.shape) != entry["shape"]:
                raise DataError(
                    f"{path / entry['file']} is {array.dtype} {list(array.shape)}; {DESCRIPTION} beside it "
                    f"says {entry['dtype']} {entry['shape']}; delete the folder, and it is written anew"
                )
            arrays[entry["name"]] = array
        dataset = DATA_KINDS[description.get("kind", "samples")].function.restore(description, arrays)
        digest = str(description["digest"])
    except DataError:
        raise
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a prepared data set ({error!r}); delete it, and it is written anew") from error
    if verify and content_digest(dataset) != digest:
        raise DataError(f"{path} does not hold the content that {DESCRIPTION} says; delete it, and it is written anew")
    dataset.__dict__["_digest"] = digest
    return dataset


def source_key(
    name: str, parameters: Parameters, root: str | Path | None = None, extra: Mapping[str, Any] | None = None
) -> str | None:
    """Return a key for what source ``name`` would give, found without reading it.

    It covers the parameters, the version of codistill, ``extra`` (plain JSON values, for instance a ``take``) and
    the path, size and time of change of every file. None if the content cannot be told so: a source that is a
    function may give anything.
    """
    files = DATASETS[name].function.files(parameters, root)
    if files is None:
        return None
    stats = [(str(file.resolve()), file.stat()) for file in files]
    said = {
        "name": name,
        "parameters": parameters.model_dump(mode="json"),
        "version": [FORMAT, __version__],
        "extra": dict(extra or {}),
        "files": [[file, stat.st_size, stat.st_mtime_ns] for file, stat in stats],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _index(folder: Path) -> dict[str, str]:
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def remember(folder: Path, key: str, digest: str) -> None:
    """Note in the folder's index that ``key`` gave the data set with ``digest``.

    Of two writers at the same moment one note may be lost, which costs a second reading of the source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_text(folder / INDEX, json.dumps({**_index(folder), key: digest}, indent=1, sort_keys=True))


def recall(folder: Path, key: str) -> Path | None:
    """Return the prepared data set that ``key`` gave, or None if it is not known or no longer there."""
    digest = _index(folder).get(key)
    if not isinstance(digest, str):
        return None
    path = folder / digest[:16]
    return path if _is_prepared(path, digest) else None


def prepare_source(name: str, parameters: Parameters, root: str | Path | None, folder: Path) -> Path:
    """Return the prepared data set of source ``name``: the one at hand if its key is known, else read and written.

    Raises ``DataError`` with every problem that the source has.
    """
    key = source_key(name, parameters, root)
    known = recall(folder, key) if key is not None else None
    if known is not None:
        return known
    dataset = DATASETS[name].function(parameters, root)
    path = prepare(dataset, folder)
    if key is not None:
        remember(folder, key, dataset.digest())
    return path
