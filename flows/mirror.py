"""A run in a store: each process has what it needs of the run's folder in a folder of its own, and the rest lies there.

For workers that see no common file system. No file of a run is written twice with another content but those that a
process reads once, when it opens the run; so what was fetched stays valid.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ..tasks.knowledge import Knowledge
from ..tasks.stores.manifest import files_of
from .folder import STORE, WAITING, RunFolder, piece_beside, waiting
from .shared_store import SharedStore

OPENED = ("plan", "ids", "run", "left_out")
"""What a process reads when it opens a run."""


@dataclass(frozen=True)
class Mirror(RunFolder):
    """A run's folder in this process, with what is fetched from ``store`` below ``run`` and published there."""

    store: SharedStore
    run_id: str

    def fetch(self, state: Path) -> None:
        """Have an agent's files at ``state`` at hand, and those of its stores that lie elsewhere."""
        self._fetch_all(self._beside(state))

    def _fetch_all(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self._fetch(path)
            if _lists_files(path):
                for file in files_of(path):
                    self._fetch(file)

    def _beside(self, state: Path) -> list[Path]:
        """Return what the store has of an agent at ``state``."""
        names = self.store.names(self.name_of(state.parent))
        return [state.with_name(name) for name in names if name.startswith(f"{state.stem}.")]

    def _fetch(self, path: Path) -> None:
        if path.exists():
            return
        content = self.store.get(self.name_of(path))
        if content is None:
            raise FileNotFoundError(f"{self.store.url} lacks {self.name_of(path)}, which the run needs")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_bytes(content)
        os.replace(draft, path)

    def publish(self, state: Path) -> None:
        """Let others have an agent's files at ``state``; what was before is not needed here any more."""
        for path in sorted(state.parent.glob(f"{state.stem}.*")):
            self.store.put(self.name_of(path), path.read_bytes())
        number, place = int(state.parent.name), int(state.stem)
        there = (int(one.name) for one in (self.path / "state").iterdir())
        super().forget(number, [(version, place) for version in there if version < number], keep_packets=True)

    def publish_unfinished(self, number: int, stage: int, place: int) -> None:
        """Let others have an agent as a stage left it: its files, and those of its stores."""
        models, left = self.unfinished(number, stage, place), self.state(number, place)
        beside = [*models.parent.glob(f"{place}.*"), *left.parent.glob(f"{place}.{waiting(stage)}.*")]
        for path in sorted(beside, key=lambda one: one == models):  # the models last: they say that all is there
            self.store.put(self.name_of(path), path.read_bytes())

    def find_unfinished(self, number: int, stage: int, place: int) -> int | None:
        """Return the last stage before ``stage`` that left an agent in the store, and have its files at hand."""
        here = super().find_unfinished(number, stage, place)
        if here is not None:
            return here
        for earlier in reversed(range(stage)):
            models = self.unfinished(number, earlier, place)
            if self.store.size(self.name_of(models)) is not None:
                self._fetch_all(self._beside(models))
                stores = self._beside(self.state(number, place))
                self._fetch_all(one for one in stores if f".{waiting(earlier)}." in one.name)
                return earlier
        return None

    def supersede(self, number: int, superseded: Iterable[tuple[int, int]]) -> None:
        """Remove from the store the versions of agents that round ``number``, which is committed, has made useless."""
        gone: list[str] = []
        for version, place in superseded:
            older = self._files(self.state(version, place))
            gone += [self.name_of(path) for path in older - self._files(self.state(number, place))]
        self.store.forget_all(gone)

    def _files(self, state: Path) -> set[Path]:
        """Return the files of an agent at ``state``, fetching but its stores' manifests."""
        beside = self._beside(state)
        found = {path.resolve() for path in beside}
        for path in beside:
            if _lists_files(path):
                self._fetch(path)
                found |= files_of(path)
        return found

    def name_of(self, path: Path) -> str:
        """Return what a file of the run is called in the store."""
        return f"{self.run_id}/{path.resolve().relative_to(self.path)}"


def _lists_files(path: Path) -> bool:
    """Whether a file is a store's manifest, which names the files that hold the rest of it."""
    return path.suffix == ".json" and path.name.split(".")[1].partition("-")[0] in (STORE, WAITING)


class StoreMail:
    """Packets of a run in a store; a :class:`.mail.Mail`."""

    def __init__(self, folder: Mirror) -> None:
        self._folder, self._store = folder, folder.store

    def put(self, number: int, exchange: int, name: str, message: pa.Buffer) -> None:
        """Write a packet."""
        self._store.put(self._folder.name_of(self._folder.packet(number, exchange, name)), message.to_pybytes())

    def get(self, number: int, exchange: int, name: str) -> pa.Buffer | None:
        """Return a packet, or None where there is none."""
        return self._read(self._folder.packet(number, exchange, name))

    def remember(self, number: int, exchange: int, place: int, total: Knowledge) -> None:
        """Do nothing: the aggregator's own memory lies in the store too."""

    def remembered(self, version: int, exchange: int, place: int, kind: str) -> pa.Buffer | None:
        """Return it from the aggregator's memory."""
        return self._read(piece_beside(self._folder.state(version, place), kind, f"delivered {exchange}"))

    def _read(self, path: Path) -> pa.Buffer | None:
        content = self._store.get(self._folder.name_of(path))
        return None if content is None else pa.py_buffer(content)


def published(folder: RunFolder, store: SharedStore, run_id: str, states: Iterable[Path]) -> Mirror:
    """Put into the store what workers need to open the run in ``folder``, and agents at ``states`` that lie there.

    Returns the folder as one that is mirrored.
    """
    mirror = Mirror(folder.path.resolve(), store, run_id)
    for name in OPENED:
        path: Path = getattr(mirror, name)
        if path.exists():
            store.put(mirror.name_of(path), path.read_bytes())
    prepared = Path(folder.info()["prepared"])
    if not store.names(f"prepared/{prepared.name}"):
        whole_last = sorted(prepared.iterdir(), key=lambda one: one.suffix == ".json")
        for path in whole_last:
            store.put(f"prepared/{prepared.name}/{path.name}", path.read_bytes())
    inherited = mirror.inherited(0).parent
    for path in sorted(inherited.iterdir()) if inherited.is_dir() else ():
        store.put(mirror.name_of(path), path.read_bytes())
    for state in states:
        for path in local_files(state):
            store.put(mirror.name_of(path), path.read_bytes())
    return mirror


def local_files(state: Path) -> list[Path]:
    """Return the files of an agent at ``state`` that lie here, and those of its stores, wherever."""
    beside = [path.resolve() for path in state.parent.glob(f"{state.stem}.*")]
    manifests = [path for path in beside if path.name.endswith(".json") and f".{STORE}." in path.name]
    return sorted({*beside, *(file for path in manifests for file in files_of(path))})


def mirrored(url: str, run_id: str) -> Mirror:
    """Return a new folder of this process for a run that :func:`published` put into the store at ``url``."""
    store = SharedStore(url)
    folder = Mirror(Path(tempfile.mkdtemp(prefix="codistill-run-")).resolve(), store, run_id)
    folder.make()
    for name in OPENED:
        path: Path = getattr(folder, name)
        if name != "left_out" or store.size(folder.name_of(path)) is not None:
            folder._fetch(path)
    prepared = _prepared(store, Path(folder.info()["prepared"]).name)
    folder.run.write_text(json.dumps(folder.info() | {"prepared": str(prepared)}), encoding="utf-8")
    return folder


def _prepared(store: SharedStore, name: str) -> Path:
    """Return prepared data, fetched once for all workers of a user on a machine."""
    kept = Path(tempfile.gettempdir()) / f"codistill-prepared-{os.getuid()}"
    kept.mkdir(mode=0o700, exist_ok=True)
    if kept.stat().st_uid != os.getuid():
        raise PermissionError(f"{kept} is another user's; set TMPDIR to a folder of your own")
    if not (kept / name).exists():
        draft = Path(tempfile.mkdtemp(dir=kept))
        for file in store.names(f"prepared/{name}"):
            content = store.get(f"prepared/{name}/{file}")
            assert content is not None  # it was named a moment ago
            (draft / file).write_bytes(content)
        try:
            os.replace(draft, kept / name)
        except OSError:  # another worker was faster
            shutil.rmtree(draft)
    return kept / name
