"""Where everything of a run lies. The one module that knows the layout (docs/run-folder.md)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..tasks.stores.manifest import files_of
from .report.reading import read_json


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a path to write to, then put the file in place: a reader, or a kill, sees the old content or the new."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.unlink(missing_ok=True)
    yield temporary
    os.replace(temporary, path)
    temporary.unlink(missing_ok=True)  # it stays where both were the same file already


def replace_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


STORE, WAITING = "store", "waiting"
"""What the files of an agent's stores are called: as a round left them, and in the middle of one, with the stage."""


def waiting(stage: int) -> str:
    """Return what the files of an agent's stores are called as a stage left them that was not the last."""
    return f"{WAITING}-{stage}"


def piece_beside(state: Path, kind: str, key: str) -> Path:
    """Return where a remembered piece of the agent with models at ``state`` lies; ``unquote`` gives its key back."""
    return state.with_name(f"{state.stem}.{kind}.{quote(key, safe='').replace('.', '%2E')}.arrow")


PARTS = ("packets", "state", "rounds", "models")
"""The folders in a run's folder; the first is the first thing that a launch makes."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def spec(self) -> Path:
        """The resolved spec."""
        return self.path / "spec.yaml"

    @property
    def run(self) -> Path:
        """What was run, on what, and how it stands."""
        return self.path / "run.json"

    @property
    def plan(self) -> Path:
        """The plan."""
        return self.path / "plan.json"

    @property
    def ids(self) -> Path:
        """Which samples each learner holds."""
        return self.path / "ids.arrow"

    @property
    def mail(self) -> Path:
        """How letters are written and read, where agents live on sites."""
        return self.path / "mail.json"

    @property
    def left_out(self) -> Path:
        """Who was left out of which round because its site was away."""
        return self.path / "left-out.json"

    @property
    def checkpoint(self) -> Path:
        """The last committed round."""
        return self.path / "checkpoint.json"

    @property
    def summary(self) -> Path:
        """The figures at the end."""
        return self.path / "summary.json"

    def table(self, name: str) -> Path:
        """Return the path of a Parquet table."""
        return self.path / f"{name}.parquet"

    def model(self, agent: str) -> Path:
        """Return the path of an agent's final models."""
        return self.path / "models" / f"{agent}.safetensors"

    def rows(self, number: int) -> Path:
        """Return the path of a committed round's rows."""
        return self.path / "rounds" / f"{number:07d}.json"

    def state(self, number: int, place: int) -> Path:
        """Return the path of an agent's models as round ``number`` left them; its memories lie beside it."""
        return self.path / "state" / f"{number:07d}" / f"{place}.safetensors"

    def inherited(self, place: int) -> Path:
        """Return the path of an agent's models as another run left them; its memories lie beside it."""
        return self.path / "inherited" / f"{place}.safetensors"

    def unfinished(self, number: int, stage: int, place: int) -> Path:
        """Return where an agent's models lie as a stage of round ``number`` left them that was not its last."""
        return self.path / "packets" / f"{number:07d}" / f"unfinished-{stage}" / f"{place}.safetensors"

    def packet(self, number: int, exchange: int, name: str) -> Path:
        """Return the path of a packet."""
        return self.path / "packets" / f"{number:07d}" / f"{exchange}-{name}.arrow"

    def make(self) -> None:
        """Create the folders."""
        for name in PARTS:
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def fetch(self, state: Path) -> None:
        """Have an agent's files at ``state`` at hand. They are, where all of a run lies in one folder."""

    def publish(self, state: Path) -> None:
        """Let other workers have an agent's files at ``state``. They do, where all of a run lies in one folder."""

    def publish_unfinished(self, number: int, stage: int, place: int) -> None:
        """Let other workers have an agent as a stage left it. They do, where all of a run lies in one folder."""

    def find_unfinished(self, number: int, stage: int, place: int) -> int | None:
        """Return the last stage before ``stage`` of round ``number`` that left an agent on disk; None: no stage did."""
        left = (one for one in reversed(range(stage)) if self.unfinished(number, one, place).exists())
        return next(left, None)

    def begin(self, number: int) -> None:
        """Clear what an interrupted attempt at round ``number`` left, and make its folders."""
        for kind in ("state", "packets"):
            folder = self.path / kind / f"{number:07d}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def committed(self) -> int:
        """Return the last committed round, -1 before round 0 is."""
        return int(read_json(self.checkpoint).get("round", -1))

    def commit(self, number: int, rows: dict[str, Any]) -> None:
        """Make round ``number`` part of the run: from the moment that ``checkpoint.json`` is replaced, it is."""
        replace_text(self.rows(number), json.dumps(rows))
        replace_text(self.checkpoint, json.dumps({"round": number}) + "\n")

    def forget(self, number: int, superseded: list[tuple[int, int]], keep_packets: bool) -> None:
        """Remove what no resumed run needs after round ``number``: packets, and older versions of agents."""
        last = number - 1 if keep_packets else number
        for folder in sorted((self.path / "packets").iterdir()):
            if int(folder.name) <= last:
                shutil.rmtree(folder, ignore_errors=True)
        for version, place in superseded:
            folder = self.state(version, place).parent
            manifests = folder.glob(f"{place}.{STORE}.*.json")
            older = {file for manifest in manifests for file in files_of(manifest)}
            kept: set[Path] = set()
            if older:
                newer = self.state(number, place).parent.glob(f"{place}.{STORE}.*.json")
                kept = {file for manifest in newer for file in files_of(manifest)}
            for file in older.union(one.resolve() for one in folder.glob(f"{place}.*")) - kept:
                file.unlink(missing_ok=True)
                with suppress(OSError):  # others are still in it
                    file.parent.rmdir()

    def info(self) -> dict[str, Any]:
        """Return ``run.json``, or {} before there is one. Raises ``NotARunError`` where it cannot be read."""
        return read_json(self.run)

    def note(self, **values: Any) -> None:
        """Add to ``run.json``."""
        replace_text(self.run, json.dumps(self.info() | values, indent=1) + "\n")
