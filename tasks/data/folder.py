"""Images in one folder per class, in a directory or a .zip."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from ..parameters import Parameters
from .dataset import DataError, Dataset, Ids, Values, scaled
from .files import candidates, find_stated, places
from .registry import add_source
from .stratify import split_test

_Part: TypeAlias = tuple[Values, Ids, list[str]]

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


class FolderParameters(Parameters):
    """Where the images lie and how they are read."""

    path: str = Field(
        description="Directory or .zip with a folder of images per class; relative to the data root, "
        "then to the working folder."
    )
    test_path: str | None = Field(None, description="The same for the test images.")
    test_share: float | None = Field(
        None, gt=0, lt=1, description="Share of each class set aside for testing where no test_path is given: 0.2."
    )
    size: int | None = Field(
        None, ge=1, le=1024, description="Resize to this height and width, bilinear; without it all must be alike."
    )
    greyscale: bool = Field(False, description="One channel instead of three.")
    limit_per_class: int | None = Field(
        None, ge=1, description="At most this many images of each class, the first by name, in either part."
    )

    @model_validator(mode="after")
    def _one_test(self) -> Self:
        if self.test_path is not None and self.test_share is not None:
            raise ValueError("give test_path or test_share, not both")
        return self


def _names(path: Path) -> list[str]:
    """Return the images in a directory or .zip as paths inside it, by name; hidden and Mac's own files left out."""
    if path.is_dir():
        names = [one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file()]
    else:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    return sorted(name for name in names if _is_image(name))


def _is_image(name: str) -> bool:
    hidden = name.startswith((".", "__MACOSX/")) or "/." in name
    return not hidden and os.path.splitext(name)[1].lower() in ENDINGS


def _by_class(names: list[str]) -> dict[str, list[str]]:
    """Return the names under the folder that gives their class; folders that hold everything are passed over."""
    parts = [name.split("/") for name in names]
    depth = 0
    while parts and all(len(one) > depth + 2 and one[depth] == parts[0][depth] for one in parts):
        depth += 1
    found: dict[str, list[str]] = {}
    for name, one in zip(names, parts, strict=True):
        if len(one) > depth + 1:
            found.setdefault(one[depth], []).append(name)
    return found


def _problems(parameters: FolderParameters, root: Path) -> list[str]:
    problems = []
    classes: list[set[str]] = []
    for stated in (parameters.path, parameters.test_path):
        if stated is None:
            continue
        path = find_stated(stated, root)
        if path is None:
            problems.append(f"folder: nothing at {places(candidates(stated, root))}; give a directory or a .zip")
        elif not path.is_dir() and not zipfile.is_zipfile(path):
            problems.append(f"folder: {path} is neither a directory nor a .zip")
        else:
            found = set(_by_class(_names(path)))
            classes.append(found)
            problems += _layout_problems(path, found)
    if parameters.test_path is not None and not problems:
        paths = [find_stated(stated, root) for stated in (parameters.path, parameters.test_path)]
        if paths[0] is not None and paths[1] is not None and paths[0].samefile(paths[1]):
            problems.append(f"folder: path and test_path are both {paths[0]}; leave test_path out, and a share is cut")
    if len(classes) == 2 and not problems and classes[1] - classes[0]:
        problems.append(f"folder: the test images have classes without train images: {sorted(classes[1] - classes[0])}")
    return problems


def _layout_problems(path: Path, found: set[str]) -> list[str]:
    if found and {name.lower() for name in found} <= {"train", "test", "val", "valid", "validation"}:
        return [
            f"folder: {path} holds {', '.join(sorted(found))} instead of a folder per class; "
            "give the train folder as path and the test folder as test_path"
        ]
    if len(found) < 2:
        return [f"folder: {path} has images in {len(found)} class folders; at least 2 are needed, as <class>/<image>"]
    return []


def _files(parameters: FolderParameters, root: Path) -> list[Path]:
    files: list[Path] = []
    for stated in (parameters.path, parameters.test_path):
        path = find_stated(stated, root) if stated is not None else None
        if path is not None:
            files += [path / name for name in _names(path)] if path.is_dir() else [path]
    return files


@contextmanager
def _reader(path: Path) -> Iterator[Callable[[str], bytes]]:
    """Give a function that returns the bytes of an image by its path inside ``path``."""
    if path.is_dir():
        yield lambda name: (path / name).read_bytes()
    else:
        with zipfile.ZipFile(path) as archive:
            yield archive.read


def _read_part(stated: str, root: Path, labels: list[str] | None, parameters: FolderParameters) -> _Part:
    """Return images float32 [N, channels, height, width], classes int64 [N] and the names of the classes."""
    from PIL import Image

    path = find_stated(stated, root)
    if path is None:
        raise DataError(f"folder: nothing at {places(candidates(stated, root))}")
    by_class = _by_class(_names(path))
    labels = sorted(by_class) if labels is None else labels
    pixels: list[npt.NDArray[np.uint8]] = []
    classes: list[int] = []
    first = ""
    with _reader(path) as read:
        for position, label in enumerate(labels):
            for name in by_class.get(label, [])[: parameters.limit_per_class]:
                try:
                    with Image.open(io.BytesIO(read(name))) as opened:
                        image = opened.convert("L" if parameters.greyscale else "RGB")
                except (OSError, zipfile.BadZipFile) as error:
                    raise DataError(f"folder: {path}/{name} cannot be read as an image: {error}") from error
                if parameters.size is not None:
                    image = image.resize((parameters.size, parameters.size), Image.Resampling.BILINEAR)
                array = np.asarray(image, dtype=np.uint8)
                first = first or name
                if pixels and array.shape != pixels[0].shape:
                    raise DataError(
                        f"folder: {path}/{name} has height and width {array.shape[:2]}, {first} has "
                        f"{pixels[0].shape[:2]}; give `size` to resize them"
                    )
                pixels.append(array)
                classes.append(position)
    stacked = np.stack(pixels)
    images = stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2)
    return scaled(np.ascontiguousarray(images)), np.array(classes, dtype=np.int64), labels


@add_source("folder", FolderParameters, _problems, _files)
def read_folder(parameters: FolderParameters, root: Path) -> Dataset:
    """Images of your own, in one folder per class, in a directory or a .zip.

    Classes are the folder names in alphabetical order; samples are ordered by class and name. Raises ``DataError``
    for an image that cannot be read, or images of different sizes where no ``size`` is given.
    """
    x, y, labels = _read_part(parameters.path, root, None, parameters)
    if parameters.test_path is not None:
        x_test, y_test, _ = _read_part(parameters.test_path, root, labels, parameters)
        return Dataset("folder", x, y, x_test, y_test, tuple(labels))
    train, test = split_test(y, 0.2 if parameters.test_share is None else parameters.test_share)
    return Dataset("folder", x[train], y[train], x[test], y[test], tuple(labels))
