from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from codistill.tasks.data import (
    DATASETS,
    DataError,
    Dataset,
    open_prepared,
    prepare,
    prepare_source,
    recall,
    remember,
    source_key,
)
from codistill.tasks.data import prepared as module


def made_up() -> Dataset:
    x = np.arange(24, dtype=np.float32).reshape(6, 1, 2, 2)
    y = np.array([0, 1, 2, 0, 1, 2])
    columns = {"ward": np.array(["é", "b", "c", "é", "b", "c"]), "age": np.arange(6.0)}
    return Dataset("made-up", x, y, x[:3] + 1, y[:3], ("x", "y", "z"), columns,
                   {name: column[:3] for name, column in columns.items()})  # fmt: skip


def test_what_is_opened_is_what_was_prepared_mapped_and_read_only(tmp_path: Path) -> None:
    dataset = made_up()
    path = prepare(dataset, tmp_path)
    assert path == tmp_path / dataset.digest()[:16]
    opened = open_prepared(path, verify=True)
    assert (opened.name, opened.labels, opened.digest()) == (dataset.name, dataset.labels, dataset.digest())
    for (name, array), (_, before) in zip(opened.arrays(), dataset.arrays(), strict=True):
        assert isinstance(array, np.memmap), name
        assert not array.flags.writeable
        assert array.dtype == before.dtype
        np.testing.assert_array_equal(array, before)
    assert list(opened.columns_train) == ["ward", "age"]
    assert {file.suffix for file in path.iterdir()} == {".npy", ".json"}


def test_opening_does_not_compute_the_digest_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up_digest = made_up().digest()
    path = prepare(made_up(), tmp_path)
    monkeypatch.setattr("codistill.tasks.data.dataset.content_digest", lambda dataset: "computed")
    assert open_prepared(path).digest() == made_up_digest


def test_preparing_again_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = prepare(made_up(), tmp_path)
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    monkeypatch.setattr(np, "save", lambda *given, **named: pytest.fail("written again"))
    assert prepare(made_up(), tmp_path) == path
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_nothing_to_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    save = np.save

    def fail_at_the_third(path: Path, array: np.ndarray, **named: object) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError("the disk is full")
        save(path, array, **named)

    monkeypatch.setattr(np, "save", fail_at_the_third)
    with pytest.raises(OSError, match="disk is full"):
        prepare(made_up(), tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert open_prepared(prepare(made_up(), tmp_path), verify=True).digest() == made_up().digest()


def test_of_two_writers_the_second_uses_what_the_first_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.replace, []

    def slow(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 1:
            prepare(made_up(), tmp_path)  # somebody else finishes first
        real(source, target)

    monkeypatch.setattr(os, "replace", slow)
    path = prepare(made_up(), tmp_path)
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == [path]
    assert open_prepared(path, verify=True).digest() == made_up().digest()


def test_an_older_format_is_refused_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = prepare(made_up(), tmp_path)
    monkeypatch.setattr(module, "FORMAT", 2)
    with pytest.raises(DataError, match="format 1, expected 2"):
        open_prepared(path)
    assert open_prepared(prepare(made_up(), tmp_path)).digest() == made_up().digest()


def test_damage_is_told(tmp_path: Path) -> None:
    path = prepare(made_up(), tmp_path)
    content = bytearray((path / "00.npy").read_bytes())
    content[-1] ^= 1
    (path / "00.npy").write_bytes(content)
    assert open_prepared(path).labels == ("x", "y", "z")
    with pytest.raises(DataError, match="does not hold the content"):
        open_prepared(path, verify=True)
    np.save(path / "00.npy", np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(DataError, match=r"00\.npy is float32 \[2, 2\]"):
        open_prepared(path)
    (path / "00.npy").write_bytes(b"")
    with pytest.raises(DataError, match="not a prepared data set"):
        open_prepared(path)
    with pytest.raises(DataError, match="not a prepared data set"):
        open_prepared(tmp_path / "nowhere")


def write_table(path: Path, first: int = 1) -> None:
    path.write_text("a,y\n" + "\n".join(f"{row + first},{row % 2}" for row in range(10)))


def test_the_key_follows_parameters_files_and_extra(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv")
    table = DATASETS["table"].parameters
    one = table(path="t.csv", label="y")
    key = source_key("table", one, tmp_path)
    assert key == source_key("table", one, tmp_path)
    others = [
        source_key("table", table(path="t.csv", label="y", test_share=0.3), tmp_path),
        source_key("table", one, tmp_path, {"take": [100, 10]}),
        source_key("digits", DATASETS["digits"].parameters()),
        source_key("digits", DATASETS["digits"].parameters(size=28)),
    ]
    os.utime(tmp_path / "t.csv", ns=(1, 1))
    others.append(source_key("table", one, tmp_path))
    write_table(tmp_path / "t.csv", first=100)
    os.utime(tmp_path / "t.csv", ns=(1, 1))
    others.append(source_key("table", one, tmp_path))
    assert len({key, *others}) == 7


def test_the_content_of_a_function_has_no_key() -> None:
    assert source_key("callable", DATASETS["callable"].parameters(function="some:thing")) is None


def test_the_index_finds_what_is_still_there(tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    assert recall(folder, "key") is None
    remember(folder, "key", made_up().digest())
    remember(folder, "other", "0" * 64)
    assert recall(folder, "key") is None  # noted, but not prepared
    path = prepare(made_up(), folder)
    assert recall(folder, "key") == path
    assert recall(folder, "other") is None
    assert json.loads((folder / "index.json").read_text()) == {"key": made_up().digest(), "other": "0" * 64}
    (folder / "index.json").write_text("cut sho")
    assert recall(folder, "key") is None


def test_a_source_is_read_once_until_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "t.csv")
    entry = DATASETS["table"]
    reads = []
    counting = replace(entry.function, read=lambda *given: reads.append(1) or entry.function.read(*given))
    monkeypatch.setitem(DATASETS._entries, "table", replace(entry, function=counting))
    parameters, folder = entry.parameters(path="t.csv", label="y"), tmp_path / "sets"
    first = prepare_source("table", parameters, tmp_path, folder)
    assert prepare_source("table", parameters, tmp_path, folder) == first
    assert len(reads) == 1
    write_table(tmp_path / "t.csv", first=3)
    os.utime(tmp_path / "t.csv", ns=(1, 1))
    prepare_source("table", parameters, tmp_path, folder)
    assert len(reads) == 2
    (tmp_path / "t.csv").unlink()
    with pytest.raises(DataError, match="no file at"):
        prepare_source("table", parameters, tmp_path, folder)
