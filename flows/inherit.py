"""What a finished run leaves to one that goes on from it: each agent's models and memories, copied and checked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from ..tasks.memory import KINDS
from ..tasks.stores.manifest import Manifest
from .folder import STORE, RunFolder, replace_text
from .plan import Plan
from .versions import Versions

_PASSED = re.compile(r"(delivered|reference) [0-9]+")
"""Pieces about what passed in an exchange of the run; they mean nothing in another run, which numbers its own."""


def left_by(folder: RunFolder, plan: Plan) -> dict[str, Path]:
    """Return, by agent, the file of its last models; its memories lie beside it.

    Agents that never changed are left out. An agent that a continued run did not change is as that run took it over.
    """
    versions, found = Versions(plan), {}
    for place, agent in enumerate(plan.agents):
        last = versions.before(plan.rounds + 1, place)
        path = folder.inherited(place) if last is None else folder.state(last, place)
        if path.exists():
            found[agent.name] = path
    return found


def state_digest(folder: RunFolder, plan: Plan) -> str:
    """Return the SHA-256 of all that a run leaves: names of agents, names and bytes of models, pieces and stores."""
    whole = hashlib.sha256()
    for name, base in sorted(left_by(folder, plan).items()):
        whole.update(f"agent {name}\n".encode())
        for word, path in _plain(base):
            whole.update(f"{word} {_file_digest(path)}\n".encode())
        for word, manifest in _manifests(base):
            said = Manifest.read(manifest)
            blank = said.model_copy(update={"segments": (), "marks": said.marks.model_copy(update={"path": ""})})
            files = [_file_digest(manifest.parent / file.path) for file in (*said.segments, said.marks)]
            whole.update(f"{word} {blank.model_dump_json()} {' '.join(files)}\n".encode())
    return whole.hexdigest()


def take_over(source: RunFolder, old: Plan, target: RunFolder, new: Plan) -> None:
    """Put what ``source`` left of the agents of ``new`` into the folder of the run that goes on from it.

    Files are linked where that is possible and copied where not: no run changes a file that it has written.
    """
    shutil.rmtree(target.inherited(0).parent, ignore_errors=True)
    left = left_by(source, old)
    for place, agent in enumerate(new.agents):
        if agent.name not in left:
            continue
        base, into = left[agent.name], target.inherited(place)
        into.parent.mkdir(exist_ok=True)
        for word, path in _plain(base):
            _link(path, into.with_name(f"{place}.{word}"))
        for word, manifest in _manifests(base):
            said, stem = Manifest.read(manifest), f"{place}.{word.removesuffix('.json')}"
            names = [f"{stem}.taken.{number}.arrow" for number in range(len(said.segments) + 1)]
            moved = [
                file.model_copy(update={"path": name})
                for file, name in zip((*said.segments, said.marks), names, strict=True)
            ]
            for file, name in zip((*said.segments, said.marks), names, strict=True):
                _link(manifest.parent / file.path, into.with_name(name))
            here = said.model_copy(update={"segments": tuple(moved[:-1]), "marks": moved[-1]})
            replace_text(into.with_name(f"{stem}.json"), here.model_dump_json(indent=1) + "\n")


def _plain(base: Path) -> Iterator[tuple[str, Path]]:
    """Yield the models and pieces at ``base``, by what is in their names after the agent's place."""
    yield "safetensors", base
    for path in sorted(base.parent.glob(f"{base.stem}.*.arrow")):
        _, kind, key, *_ = path.name.split(".")
        if kind in KINDS and kind != "working" and not _PASSED.fullmatch(unquote(key)):
            yield path.name.partition(".")[2], path


def _manifests(base: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(base.parent.glob(f"{base.stem}.{STORE}.*.json")):
        yield path.name.partition(".")[2], path


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
