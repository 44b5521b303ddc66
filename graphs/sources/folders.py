"""Graphs in a user's own folders or archives."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ...tasks.data.dataset import DataError
from ...tasks.data.files import candidates, find_stated, places
from ...tasks.parameters import Parameters
from .files import Files, files_below, graph_per_client, one_graph, readable
from .read import read_triples
from .registry import Graphs, add_graph_source


class GraphPathParameters(Parameters):
    """Where the triples lie."""

    path: str = Field(
        description="Directory or tar archive with train, valid and test (.txt or .tsv, plain, .gz or .xz); relative "
        "to the data root, then to the working folder."
    )


class ClientPathsParameters(Parameters):
    """Where the clients' folders lie."""

    path: str = Field(
        description="Directory or tar archive with a folder per client, each with train, valid and test; relative to "
        "the data root, then to the working folder."
    )


def _find(parameters: GraphPathParameters | ClientPathsParameters, root: Path) -> Path | None:
    found = find_stated(parameters.path, root)
    return found if found is not None and readable(found) else None


def _problems(parameters: GraphPathParameters | ClientPathsParameters, root: Path) -> list[str]:
    if _find(parameters, root) is not None:
        return []
    where = places(candidates(parameters.path, root))
    return [f"path: no directory or tar archive at {where}; give the path of the triples, or set CODISTILL_DATA"]


def _files(parameters: GraphPathParameters | ClientPathsParameters, root: Path) -> list[Path]:
    found = _find(parameters, root)
    return [] if found is None else list(files_below(found))


def _place(parameters: GraphPathParameters | ClientPathsParameters, root: Path) -> Path:
    found = _find(parameters, root)
    if found is None:
        raise DataError(_problems(parameters, root)[0])
    return found


def read_clients(name: str, clients: dict[str, Files], where: Path) -> Graphs:
    """Return the graphs of several clients; each one's notes begin with its name."""
    graphs, notes = {}, []
    for client, files in clients.items():
        graphs[client], found = read_triples(files, f"{where}/{client}")
        notes += [f"{client}: {note}" for note in found]
    return Graphs(name, graphs, tuple(notes))


@add_graph_source("triples", GraphPathParameters, _problems, _files)
def read_folder(parameters: GraphPathParameters, root: Path) -> Graphs:
    """One graph of your own: a folder with train, valid and test, lines of head TAB relation TAB tail.

    Raises ``DataError`` with file and line for what does not fit.
    """
    place = _place(parameters, root)
    graph, notes = read_triples(one_graph(place), str(place))
    return Graphs(place.name, {place.name: graph}, notes)


@add_graph_source("client-folders", ClientPathsParameters, _problems, _files)
def read_client_folders(parameters: ClientPathsParameters, root: Path) -> Graphs:
    """Your own clients: a folder for each with train, valid and test, aligned by names or by entities.map.

    A client may also have unlearn (triples of train that it is to forget), entities.dict and relations.dict (all its
    names) and entities.map and relations.map (own name TAB common name). Raises ``DataError`` with file and line for
    what does not fit.
    """
    place = _place(parameters, root)
    return read_clients(place.name, graph_per_client(place), place)
