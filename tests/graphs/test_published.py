from __future__ import annotations

import hashlib
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from codistill.graphs.sources import GRAPHS, Graphs, published
from codistill.graphs.splits import pooled
from codistill.graphs.triples import Triples, shared_entities
from codistill.tasks.data import DataError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the project's shared data are not here")


def load(name: str, root: Path = SHARED, **parameters: object) -> Graphs:
    return GRAPHS[name].function(GRAPHS[name].parameters(**parameters), root)


def only(graphs: Graphs) -> Triples:
    (graph,) = graphs.clients.values()
    return graph


@needs_shared
@pytest.mark.parametrize(
    ("name", "parameters", "entities", "relations", "train", "valid", "test"),
    [
        ("umls", {}, 135, 46, 5216, 652, 661),
        ("kinship", {}, 104, 25, 8544, 1068, 1074),
        ("nations", {}, 14, 55, 1592, 199, 201),
        ("codex", {"size": "s"}, 2034, 42, 32888, 1827, 1828),
        ("codex", {"size": "m"}, 17050, 51, 185584, 10310, 10311),
        ("fb15k237", {}, 14541, 237, 272115, 17535, 20466),
        ("wn18rr", {}, 40943, 11, 86835, 3034, 3134),
    ],
)
def test_a_published_graph_has_the_published_numbers(
    name: str, parameters: dict[str, str], entities: int, relations: int, train: int, valid: int, test: int
) -> None:
    graph = only(load(name, **parameters))
    assert graph.counts() == {
        "entities": entities,
        "relations": relations,
        "train": train,
        "valid": valid,
        "test": test,
        "unlearn": 0,
    }


def published_lines(piece: str) -> Iterator[tuple[str, ...]]:
    with tarfile.open(SHARED / "kg_fb15k237" / "FB15k-237.tar.gz") as archive:
        content = archive.extractfile(f"{piece}.txt")
        assert content is not None
        for line in content:
            yield tuple(line.decode().rstrip("\r\n").split("\t"))


@needs_shared
def test_every_triple_of_fb15k237_has_the_names_of_its_line_in_the_order_of_the_file() -> None:
    graph = only(load("fb15k237"))
    names = np.array(graph.entities), np.array(graph.relations)
    for piece in ("train", "valid", "test"):
        head, relation, tail = getattr(graph, piece).T.numpy()
        read = zip(names[0][head].tolist(), names[1][relation].tolist(), names[0][tail].tolist(), strict=True)
        assert list(read) == list(published_lines(piece))


@needs_shared
def test_ids_are_positions_among_the_sorted_names() -> None:
    graph = only(load("codex"))
    lines = lzma.decompress((SHARED / "kg_codex" / "codex-s.train.txt.xz").read_bytes()).decode().splitlines()
    heads, _, tails = zip(*(line.split("\t") for line in lines), strict=True)
    assert list(graph.entities) == sorted({*heads, *tails})  # CoDEx-S has no entity that train has not
    assert graph.train[0].tolist() == [
        graph.entities.index(heads[0]),
        graph.relations.index(lines[0].split("\t")[1]),
        graph.entities.index(tails[0]),
    ]


@needs_shared
def test_fedlus_ten_clients_have_their_dictionaries_and_one_percent_to_forget() -> None:
    graphs = load("fb15k237-r10")
    assert list(graphs.clients) == [str(number) for number in range(10)]
    assert sum(len(graph.train) for graph in graphs.clients.values()) == 248_086
    assert [len(graph.relations) for graph in graphs.clients.values()] == [23] * 9 + [30]
    assert [len(graph.unlearn) for graph in graphs.clients.values()] == [
        -(-len(graph.train) // 100) for graph in graphs.clients.values()
    ]
    with tarfile.open(SHARED / "kg_fb15k237_r10fl" / "R10FL.tar.xz") as archive:
        listed = archive.extractfile("R10FL/3/entities.dict")
        assert listed is not None
        assert set(graphs.clients["3"].entities) == {line.decode().split("\t")[1].rstrip() for line in listed}
    assert "0: 70 entities are in valid or test but not in train, and ranked like the others" in graphs.notes


@needs_shared
def test_fedlus_ten_clients_hold_each_triple_of_fb15k237_once() -> None:
    clients = list(load("fb15k237-r10").clients.values())
    union, whole = pooled(clients), only(load("fb15k237"))
    assert (union.entities, union.relations) == (whole.entities, whole.relations)
    keys = [
        torch.cat([graph.keys(piece) for piece in ("train", "valid", "test")]).sort().values for graph in (union, whole)
    ]
    assert torch.equal(*keys)
    assert sum(len(getattr(client, piece)) for client in clients for piece in ("train", "valid", "test")) == len(
        keys[1]
    )
    assert len(shared_entities(clients)) / len(whole.entities) == pytest.approx(0.94, abs=0.005)


@needs_shared
def test_reading_twice_gives_the_same_digest() -> None:
    assert load("umls").digest() == load("umls").digest() == published.DIGESTS["umls"]


@needs_shared
def test_content_that_is_not_the_published_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(published.DIGESTS, "nations", hashlib.sha256(b"").hexdigest())
    with pytest.raises(DataError, match=r"nations: .*nations.tar.gz has the checksum f0ef.*, expected e3b0"):
        load("nations")


@pytest.mark.parametrize("name", ["umls", "codex", "fb15k237-r10"])
def test_a_missing_archive_is_told_with_its_place_and_origin_before_anything_runs(name: str, tmp_path: Path) -> None:
    entry = GRAPHS[name]
    (problem,) = entry.function.problems(entry.parameters(), tmp_path)
    assert str(tmp_path) in problem
    assert "github.com/" in problem and "CODISTILL_DATA" in problem
    with pytest.raises(DataError, match="CODISTILL_DATA"):
        load(name, tmp_path)


@needs_shared
def test_the_files_that_are_read_are_listed() -> None:
    entry = GRAPHS["codex"]
    names = [path.name for path in entry.function.files(entry.parameters(size="m"), SHARED)]
    assert names == ["codex-m.train.txt.xz", "codex-m.valid.txt.xz", "codex-m.test.txt.xz"]
    entry = GRAPHS["umls"]
    assert [path.name for path in entry.function.files(entry.parameters(), SHARED)] == ["umls.tar.gz"]
