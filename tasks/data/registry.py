"""The sources of data that a spec may name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..parameters import Parameters
from ..registry import Registry
from .dataset import DataError, Dataset

ENVIRONMENT_VARIABLE = "CODISTILL_DATA"


def data_root(given: str | Path | None = None) -> Path:
    """Return the folder of data: ``given``, else $CODISTILL_DATA, else ``~/.cache/codistill/data``."""
    chosen = given or os.environ.get(ENVIRONMENT_VARIABLE) or "~/.cache/codistill/data"
    return Path(chosen).expanduser()


@dataclass(frozen=True)
class Source:
    """A source of data: how it is read, what stands in the way of reading it, and which files it reads.

    ``read(parameters, root)`` returns the data set; its docstring is the source's. ``find_problems(parameters,
    root)`` returns sentences, cheaply, without reading the data. ``find_files(parameters, root)`` lists the files
    that ``read`` would read; it is None where the content cannot be told from files.
    """

    read: Callable[[Any, Path], Dataset]
    find_problems: Callable[[Any, Path], list[str]]
    find_files: Callable[[Any, Path], list[Path]] | None
    kind: str = "samples"
    """The kind of data (:data:`..kinds.DATA_KINDS`) that is read."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.read.__doc__)

    def __call__(self, parameters: Parameters, root: str | Path | None = None) -> Dataset:
        """Return the data set that ``parameters`` describe; raise ``DataError`` with every problem found."""
        found = self.problems(parameters, root)
        if found:
            raise DataError("\n".join(found))
        return self.read(parameters, data_root(root))

    def load(self, parameters: Parameters, root: str | Path | None = None) -> Dataset:
        """Return what calling the source returns."""
        return self(parameters, root)

    def problems(self, parameters: Parameters, root: str | Path | None = None) -> list[str]:
        """Return, before anything runs, a sentence for each thing that is missing or wrong; [] if all is well."""
        return self.find_problems(parameters, data_root(root))

    def files(self, parameters: Parameters, root: str | Path | None = None) -> list[Path] | None:
        """Return the files that would be read, or None where the content cannot be told from files."""
        return None if self.find_files is None else self.find_files(parameters, data_root(root))


DATASETS: Registry[Source] = Registry("datasets")


def add_source(
    name: str,
    parameters: type[Parameters],
    problems: Callable[[Any, Path], list[str]],
    files: Callable[[Any, Path], list[Path]] | None,
) -> Callable[[Callable[[Any, Path], Dataset]], Callable[[Any, Path], Dataset]]:
    """Return a decorator that enters a reading function as the source ``name``, with its two companions."""

    def enter(read: Callable[[Any, Path], Dataset]) -> Callable[[Any, Path], Dataset]:
        DATASETS.register(name, parameters)(Source(read, problems, files))
        return read

    return enter


def no_problems(parameters: Parameters, root: Path) -> list[str]:
    """Return no problems: for sources that need no files."""
    return []


def no_files(parameters: Parameters, root: Path) -> list[Path]:
    """Return no files: for sources whose content depends on their parameters alone."""
    return []
