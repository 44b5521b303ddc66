from __future__ import annotations

import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from codistill.graphs.sources import GRAPHS, Graphs, files
from codistill.graphs.triples import Triples, shared_entities
from codistill.tasks.data import DataError

GOOD = {"train.txt": "b\tr\ta\na\tr\tc\nc\ts\tb\n", "valid.txt": "a\ts\tb\n", "test.txt": "b\ts\tc\n"}


def write(folder: Path, content: Mapping[str, str | bytes]) -> Path:
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def clients(content: Mapping[str, str | bytes], names: tuple[str, ...] = ("one", "two")) -> dict[str, str | bytes]:
    return {f"{client}/{name}": text for client in names for name, text in content.items()}


def packed(path: Path, content: Mapping[str, str]) -> Path:
    with tarfile.open(path, "w:xz") as archive:
        for name, text in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def load(path: Path, source: str = "triples") -> Graphs:
    entry = GRAPHS[source]
    return entry.function(entry.parameters(path=str(path)), None)


def only(graphs: Graphs) -> Triples:
    (graph,) = graphs.clients.values()
    return graph


def named(graph: Triples, piece: str) -> list[tuple[str, str, str]]:
    return [graph.named(triple) for triple in getattr(graph, piece)]


def test_a_folder_is_read_with_ids_by_name_and_triples_in_their_order(tmp_path: Path) -> None:
    graph = only(load(write(tmp_path, GOOD)))
    assert (graph.entities, graph.relations) == (("a", "b", "c"), ("r", "s"))
    assert graph.train.tolist() == [[1, 0, 0], [0, 0, 2], [2, 1, 1]]
    assert (graph.valid.tolist(), graph.test.tolist(), graph.unlearn.tolist()) == ([[0, 1, 1]], [[1, 1, 2]], [])


def test_ids_do_not_depend_on_the_order_of_lines(tmp_path: Path) -> None:
    turned = {name: "\n".join(text.splitlines()[::-1]) for name, text in GOOD.items()}
    one, two = only(load(write(tmp_path / "1", GOOD))), only(load(write(tmp_path / "2", turned)))
    assert (one.entities, one.relations) == (two.entities, two.relations)
    assert sorted(one.train.tolist()) == sorted(two.train.tolist())


def test_the_same_triples_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    plain = load(write(tmp_path / "plain", GOOD)).clients["plain"].digest()
    kinds: dict[str, Mapping[str, str | bytes]] = {
        "crlf": {name: text.replace("\n", "\r\n") for name, text in GOOD.items()},
        "tsv": {name.replace(".txt", ".tsv"): text for name, text in GOOD.items()},
        "gz": {f"{name}.gz": gzip.compress(text.encode()) for name, text in GOOD.items()},
        "xz": {f"{name}.xz": lzma.compress(text.encode()) for name, text in GOOD.items()},
        "mark": {name: "\ufeff" + text for name, text in GOOD.items()},
    }
    for kind, content in kinds.items():
        assert only(load(write(tmp_path / kind, content))).digest() == plain, kind
    assert only(load(packed(tmp_path / "a.tar.xz", GOOD))).digest() == plain
    assert (
        only(load(packed(tmp_path / "b.tar.xz", {f"deep/er/{name}": text for name, text in GOOD.items()}))).digest()
        == plain
    )


def test_a_folder_per_client_is_read_with_2_before_10_from_a_folder_or_an_archive(tmp_path: Path) -> None:
    content = clients(GOOD, ("10", "2", "02", "x", "²"))
    write(tmp_path / "all", {**content, "README": "not a client", ".hidden/train.txt": "x"})
    folder = load(tmp_path / "all", "client-folders")
    archive = load(
        packed(tmp_path / "all.tar.xz", {f"R/{name}": str(text) for name, text in content.items()}), "client-folders"
    )
    assert list(folder.clients) == list(archive.clients) == ["02", "2", "10", "x", "²"]
    assert folder.digest() == archive.digest()


def test_a_path_is_looked_for_below_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine", GOOD)
    monkeypatch.setenv("CODISTILL_DATA", str(tmp_path))
    assert only(load(Path("mine"))).entities == ("a", "b", "c")


def test_what_is_odd_but_right_is_kept_and_counted(tmp_path: Path) -> None:
    odd = {
        "train.txt": "a\tr\tb\na\tr\tb\nb\tr\tb\nc\tonce\ta\nc\tonce\ta\nc\tr\ta\n",
        "valid.txt": "",
        "test.txt": "a\tr\td\na\tr\tb\nb\tnew\tb\n",
    }
    graphs = load(write(tmp_path, odd))
    graph = only(graphs)
    assert named(graph, "train") == [("a", "r", "b"), ("b", "r", "b"), ("c", "once", "a"), ("c", "r", "a")]
    assert graph.entities == ("a", "b", "c", "d")
    assert graph.valid.shape == (0, 3)
    assert graphs.notes == (
        "2 duplicate triples dropped from train",
        "2 triples from an entity to itself kept",
        "1 entity is in valid or test but not in train, and ranked like the others",
        "1 relation is in valid or test but not in train",
        "valid is empty",
        "1 triple of test also in train, so ranked too well",
    )


def test_clients_are_aligned_by_name_or_by_what_their_mapping_says(tmp_path: Path) -> None:
    content = clients(GOOD)
    content["two/entities.map"] = "b\tB\na\tc\nc\tz\nnobody\thas this\n"
    content["two/relations.map"] = "r\ts\ns\tr\n"
    graphs = load(write(tmp_path, content), "client-folders")
    two = graphs.clients["two"]
    assert (two.entities, two.relations) == (("B", "c", "z"), ("r", "s"))
    assert named(two, "train") == [("B", "s", "c"), ("c", "s", "z"), ("z", "r", "B")]
    assert shared_entities(graphs.clients.values()) == ("c",)
    assert f"two: 3 of 3 entities are mapped by {tmp_path}/two/entities.map" in graphs.notes


def test_a_list_adds_entities_that_no_triple_has(tmp_path: Path) -> None:
    graphs = load(
        write(tmp_path, {**GOOD, "entities.dict": "0\tc\n1\tlonely\n2\tb\n3\ta\n", "relations.dict": "0\tr\n1\ts\n"})
    )
    assert only(graphs).entities == ("a", "b", "c", "lonely")
    assert graphs.notes == ("1 listed entity is in no triple, and ranked like the others",)


def test_what_is_to_be_unlearned_is_read_in_ids_of_train(tmp_path: Path) -> None:
    graph = only(load(write(tmp_path, {**GOOD, "unlearn.txt": "c\ts\tb\nc\ts\tb\n"})))
    assert named(graph, "unlearn") == [("c", "s", "b")]


FAULTS: list[tuple[dict[str, str | bytes | None], str]] = [
    (
        {"train.txt": "a\tr\tb\na b\n"},
        "/train.txt, line 2: 1 column, expected 3: head TAB relation TAB tail; put one tab between two names",
    ),
    ({"train.txt": "\n"}, "/train.txt has no triples, expected lines of head TAB relation TAB tail"),
    ({"train.txt": None}, ": train.txt or train.tsv (or .gz, .xz) is missing, expected lines of head TAB"),
    ({"valid.txt": None}, "; an empty one says that there is none"),
    (
        {"test.txt": b"a\tr\tb\n\xff\xfe\n"},
        "/test.txt, line 2: the byte 0xff at position 1 is not UTF-8; save the file as UTF-8",
    ),
    ({"train.tsv": "a\tr\tb\n"}, "/train.txt: train.tsv lies beside it; keep one of the two"),
    ({"test.txt": None, "test.txt.gz": b"\x1f\x8bcut"}, "/test.txt.gz cannot be decompressed"),
    (
        {"unlearn.txt": "c\ts\tb\nc\ts\tb\n\nb\ts\ta\n"},
        "/unlearn.txt, line 4: b s a is not in {}/train.txt, expected a triple that is learned; add it there, or",
    ),
    (
        {"entities.map": "a\tx\nb\tx\n"},
        "/entities.map, line 2: 'b' is mapped to 'x', as 'a' is by line 1; two entities of one client cannot become "
        "one: give one of them another common name, or make them one in its triple files",
    ),
    (
        {"entities.map": "q\tc\nb\tc\n"},
        "/entities.map, line 2: 'b' is mapped to 'c', which is a name of this client's own; two entities",
    ),
    (
        {"relations.map": "r\ts\n"},
        "/relations.map, line 1: 'r' is mapped to 's', which is a name of this client's own; two relations",
    ),
    (
        {"entities.map": "a\tx\na\ty\n"},
        "/entities.map, line 2: 'a' is mapped to 'y', but line 1 maps it to 'x'; delete one of the two",
    ),
    ({"entities.map": "a\n"}, "/entities.map, line 1: 1 column, expected 2: own name TAB common name"),
    (
        {"entities.dict": "0\ta\n1\tb\n"},
        "/train.txt, line 2: 'c' is not in {}/entities.dict, expected one of its 2 entities; add it there, or delete",
    ),
    ({"relations.dict": "0\tr\n1\tr\n"}, "/relations.dict, line 2: 'r' stands in line 1 already; delete one"),
    ({"entities.dict": "a\t0\n"}, "/entities.dict, line 1: 'a' is no number, expected number TAB name"),
]


@pytest.mark.parametrize(("other", "said"), FAULTS)
def test_a_wrong_file_is_told_with_its_line_what_was_expected_and_what_to_do(
    tmp_path: Path, other: dict[str, str | bytes | None], said: str
) -> None:
    content = {name: text for name, text in {**GOOD, **other}.items() if text is not None}
    with pytest.raises(DataError, match=re.escape(said.replace("{}", str(tmp_path)))) as caught:
        load(write(tmp_path, content))
    assert str(caught.value).startswith(str(tmp_path))


def test_a_mapping_that_exchanges_two_names_is_no_clash(tmp_path: Path) -> None:
    graph = only(load(write(tmp_path, {**GOOD, "entities.map": "a\tb\nb\ta\n"})))
    assert named(graph, "train") == [("a", "r", "b"), ("b", "r", "c"), ("c", "s", "a")]


def test_a_client_without_triples_is_told_by_its_folder(tmp_path: Path) -> None:
    write(tmp_path, clients(GOOD))
    (tmp_path / "three").mkdir()
    with pytest.raises(DataError, match=f"{tmp_path}/three: train.txt or train.tsv .* is missing"):
        load(tmp_path, "client-folders")


def test_a_source_of_the_wrong_kind_is_told_the_right_one(tmp_path: Path) -> None:
    write(tmp_path / "all", clients(GOOD))
    with pytest.raises(
        DataError, match="holds a folder per client, expected one graph; name the source client-folders"
    ):
        load(tmp_path / "all")
    with pytest.raises(DataError, match="holds 2 folders with train.*, expected 1; .* client-folders"):
        load(packed(tmp_path / "all.tar.xz", {name: str(text) for name, text in clients(GOOD).items()}))
    with pytest.raises(DataError, match="holds no folder; expected one for each client"):
        load(write(tmp_path / "flat", GOOD), "client-folders")


def test_a_path_that_is_not_there_is_told_before_anything_runs(tmp_path: Path) -> None:
    entry = GRAPHS["triples"]
    (problem,) = entry.function.problems(entry.parameters(path="nowhere"), tmp_path)
    assert problem.startswith(f"path: no directory or tar archive at {tmp_path}/nowhere, ")
    with pytest.raises(DataError, match="set CODISTILL_DATA"):
        load(tmp_path / "nowhere")
    write(tmp_path, GOOD)
    with pytest.raises(DataError, match="no directory or tar archive"):
        load(tmp_path / "train.txt")


@pytest.mark.parametrize("name", ["../train.txt", "/etc/train.txt", "x/../../train.txt"])
def test_an_archive_that_points_outside_itself_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"the member '{name}' points outside the archive; pack it again"):
        load(packed(tmp_path / "a.tar.xz", {**GOOD, name: "a\tr\tb\n"}))


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("train.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(DataError, match="'train.txt' is a link or a device; pack plain files only"):
        load(tmp_path / "a.tar")


def test_a_damaged_or_oversized_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packed(tmp_path / "a.tar.xz", GOOD)
    (tmp_path / "b.tar.xz").write_bytes(whole.read_bytes()[:100])
    with pytest.raises(DataError, match=r"b.tar.xz cannot be read \(.*\); fetch it again"):
        load(tmp_path / "b.tar.xz")
    monkeypatch.setattr(files, "LARGEST_ARCHIVE", 20)
    with pytest.raises(DataError, match="holds more than 20 bytes; unpack it and name the folder"):
        load(whole)


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"train.txt cannot be read \(Permission denied\); make it readable"):
        load(tmp_path)


def test_the_files_of_a_folder_are_listed_for_hashing(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    entry = GRAPHS["triples"]
    listed = entry.function.files(entry.parameters(path=str(tmp_path)), None)
    assert [path.name for path in listed] == ["test.txt", "train.txt", "valid.txt"]
