"""The published knowledge graphs, from the files in which they are handed around."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from ...tasks.data.dataset import DataError
from ...tasks.data.files import check_digest, places
from ...tasks.parameters import Parameters
from .files import Files, folder_files, graph_per_client, one_graph
from .folders import read_clients
from .read import read_triples
from .registry import GRAPHS, Graphs, GraphSource, add_graph_source

CONVE = "github.com/TimDettmers/ConvE"
DIGESTS = {
    "umls": "ebfd5c9cfb2abade7487413359a77b6dad81ae10b515f60851c9414be665a84c",
    "kinship": "c95278ee49926991ab621ea1519b99c655b0dd33cb08bc0a76760b8fe06d40aa",
    "nations": "f0ef196f3ea9c2a5b02614acaef53b915d67f4f0165e8949d0fddf5a927c1722",
    "codex-s": "80d6a36dff906facc95fa4779ca37b63f2013e2d68011a80772b8bdb0a131edd",
    "codex-m": "47ef04bb87870a6134791f2fbf91f5bd62b2a45d313ca78d21c0f69a42dca6be",
    "fb15k237": "c4ba987c09cb16c56fb7f8ceab89b379fb471cf85c828918e61b25a6f3d4dba8",
    "fb15k237-r10": "c73eb0fb26df2469b62cae14e68c08e4afb9b986e07cc9009d4131f814fd3581",
    "wn18rr": "d010c4ba8fce4d9b22e76e781d6eb3f8c47a455d335f448e018a56ec9c4b7f39",
}
"""``Graphs.digest`` of what was published, whatever it is packed in."""


class PublishedParameters(Parameters):
    """Nothing can be chosen: the triples as published, with their train, valid and test parts."""


class CodexParameters(Parameters):
    """Which of the CoDEx graphs."""

    size: Literal["s", "m"] = Field("s", description="s: 2,034 entities; m: 17,050 entities.")


def _checked(name: str, graphs: Graphs, where: Path) -> Graphs:
    check_digest(graphs.digest(), DIGESTS[name], f"{name}: {where}")
    return graphs


@dataclass(frozen=True)
class _Archive:
    """A published archive: its file name, the folder below the data root in which it lies, and where it is from."""

    name: str
    file: str
    folder: str
    origin: str
    read: Callable[[str, Path], Graphs]

    def homes(self, root: Path) -> list[Path]:
        return [root / self.folder / self.file, root / self.name / self.file]

    def found(self, root: Path) -> Path | None:
        return next((path for path in self.homes(root) if path.is_file()), None)

    def problems(self, parameters: Parameters, root: Path) -> list[str]:
        homes = self.homes(root)
        if self.found(root) is not None:
            return []
        return [
            f"{self.name}: neither {places(homes[:1])} nor {places(homes[1:])} is there; put {self.file} (from "
            f"{self.origin}) there, or set CODISTILL_DATA"
        ]

    def files(self, parameters: Parameters, root: Path) -> list[Path]:
        found = self.found(root)
        return [] if found is None else [found]


def _whole(name: str, path: Path) -> Graphs:
    graph, notes = read_triples(one_graph(path), str(path))
    return Graphs(name, {name: graph}, notes)


def _per_client(name: str, path: Path) -> Graphs:
    return read_clients(name, graph_per_client(path), path)


def _enter(archive: _Archive, sentence: str) -> None:
    def read(parameters: PublishedParameters, root: Path) -> Graphs:
        found = archive.found(root)
        if found is None:
            raise DataError(archive.problems(parameters, root)[0])
        return _checked(archive.name, archive.read(archive.name, found), found)

    read.__doc__ = sentence
    GRAPHS.register(archive.name, PublishedParameters)(GraphSource(read, archive.problems, archive.files))


_enter(
    _Archive("umls", "umls.tar.gz", "kg_small", CONVE, _whole),
    "UMLS: kinds of medical things; 135 entities, 46 relations, 5,216 + 652 + 661 triples.",
)
_enter(
    _Archive("kinship", "kinship.tar.gz", "kg_small", CONVE, _whole),
    "Kinship: who is what to whom among the Alyawarra; 104 entities, 25 relations, 8,544 + 1,068 + 1,074 triples.",
)
_enter(
    _Archive("nations", "nations.tar.gz", "kg_small", CONVE, _whole),
    "Nations: 14 countries and how they deal with each other; 55 relations, 1,592 + 199 + 201 triples.",
)
_enter(
    _Archive("fb15k237", "FB15k-237.tar.gz", "kg_fb15k237", CONVE, _whole),
    "FB15k-237: Freebase without inverse relations; 14,541 entities, 237 relations, 272,115 + 17,535 + 20,466 triples.",
)
_enter(
    _Archive("wn18rr", "WN18RR.tar.gz", "kg_wn18rr", CONVE, _whole),
    "WN18RR: WordNet without inverse relations; 40,943 entities, 11 relations, 86,835 + 3,034 + 3,134 triples.",
)
_enter(
    _Archive(
        "fb15k237-r10",
        "R10FL.tar.xz",
        "kg_fb15k237_r10fl",
        "Data/FB15k-237/R10FL of github.com/nju-websoft/FedLU",
        _per_client,
    ),
    "FB15k-237-R10FL: FedLU's ten clients by relation, with triples that each is to forget; 248,086 train triples.",
)


def _codex_files(parameters: CodexParameters, root: Path) -> list[Path]:
    """Return train, valid and test of the first folder that has all three, else nothing."""
    for folder in _codex_homes(root):
        for ending in ("txt.xz", "txt"):
            paths = [folder / f"codex-{parameters.size}.{piece}.{ending}" for piece in ("train", "valid", "test")]
            if all(path.is_file() for path in paths):
                return paths
    return []


def _codex_homes(root: Path) -> list[Path]:
    return [root / "kg_codex", root / "codex"]


def _codex_problems(parameters: CodexParameters, root: Path) -> list[str]:
    if _codex_files(parameters, root):
        return []
    homes = _codex_homes(root)
    return [
        f"codex: codex-{parameters.size}.train.txt, .valid.txt and .test.txt (or .txt.xz) do not lie in "
        f"{places(homes)}; put data/triples/codex-{parameters.size} of github.com/tsafavi/codex into {homes[0]} under "
        "these names, or set CODISTILL_DATA"
    ]


@add_graph_source("codex", CodexParameters, _codex_problems, _codex_files)
def read_codex(parameters: CodexParameters, root: Path) -> Graphs:
    """CoDEx: Wikidata; s has 2,034 entities, 42 relations, 32,888 + 1,827 + 1,828 triples; m has 17,050 entities.

    Raises ``DataError`` if the content is not what was published.
    """
    found = _codex_files(parameters, root)
    if not found:
        raise DataError(_codex_problems(parameters, root)[0])
    name = f"codex-{parameters.size}"
    there = folder_files(found[0].parent)
    files: Files = {path.name.removeprefix(f"{name}."): there[path.name] for path in found}
    graph, notes = read_triples(files, str(found[0].parent))
    return _checked(name, Graphs(name, {name: graph}, notes), found[0].parent)
