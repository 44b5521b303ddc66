"""What is wrong with a store's files is said in a sentence that names the file."""

import json
import random

import pyarrow as pa
import pytest
from codistill.tasks.stores import Store, StoreError


@pytest.fixture
def written(declare, some, tmp_path):
    store = Store.create(declare(keys="int8"), "s")
    store.put(some(range(20)), 1)
    return store.write(tmp_path, "s")


def segment(manifest):
    return manifest.parent / json.loads(manifest.read_text())["segments"][0]["path"]


def marks(manifest):
    return manifest.parent / json.loads(manifest.read_text())["marks"]["path"]


def change(manifest, **said):
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | said))


@pytest.mark.parametrize("which", [segment, marks])
def test_a_truncated_file(written, which):
    path = which(written)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=f"{path.name}: has .* bytes and its manifest says"):
        Store.open(written)


@pytest.mark.parametrize("which", [segment, marks])
def test_a_missing_file(written, which):
    which(written).unlink()
    with pytest.raises(StoreError, match="names this file, and it is missing; restore it"):
        Store.open(written)


@pytest.mark.parametrize("which", [segment, marks])
def test_a_file_of_nonsense(written, which):
    path = which(written)
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
    with pytest.raises(StoreError, match=f"{path.name}: is no Arrow file"):
        Store.open(written)


def test_a_broken_footer(written):
    path = segment(written)
    content = bytearray(path.read_bytes())
    for seed in range(60):
        broken = bytearray(content)
        rng = random.Random(seed)
        for _ in range(4):
            broken[len(broken) - rng.randrange(10, 1200)] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            Store.open(written).all()
        except StoreError as problem:
            assert path.name in str(problem)


def rewritten(path, change):
    table = pa.ipc.open_file(pa.OSFile(str(path))).read_all()
    batch = change(table).combine_chunks().to_batches()[0]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return path.stat().st_size


@pytest.mark.parametrize(
    ("alter", "said"),
    [
        (lambda table: table.drop_columns(["weight"]), "has the schema"),
        (lambda table: table.rename_columns(["address", *table.column_names[1:]]), "has the schema"),
        (lambda table: table.replace_schema_metadata({"codistill.store": "9"}), "has the schema"),
        (lambda table: table.slice(3), "has 17 rows and its manifest says one batch of 20 rows"),
    ],
)
def test_a_segment_of_another_schema(written, alter, said):
    path = segment(written)
    size = rewritten(path, alter)
    change(written, segments=[{"path": path.name, "rows": 20, "bytes": size}])
    with pytest.raises(StoreError, match=f"{path.name}: {said}"):
        Store.open(written)


def test_marks_of_another_schema(written):
    path = marks(written)
    size = rewritten(path, lambda table: table.drop_columns(["hits"]))
    change(written, marks={"path": path.name, "rows": 20, "bytes": size})
    with pytest.raises(StoreError, match=f"{path.name}: has the schema"):
        Store.open(written)


def test_a_segment_of_another_store(written):
    change(written, declaration=json.loads(written.read_text())["declaration"] | {"encoding": "int8"})
    with pytest.raises(StoreError, match="has the schema .* expected"):
        Store.open(written)


def test_a_segment_of_another_form(written):
    change(written, declaration=json.loads(written.read_text())["declaration"] | {"holds": "features"})
    with pytest.raises(StoreError, match="has the form .*logits.*; expected features"):
        Store.open(written)


def test_other_contributors(written):
    change(written, contributors=["x", "y"])
    with pytest.raises(StoreError, match="has other contributors than its manifest"):
        Store.open(written)


def test_an_unknown_version(written):
    change(written, version=2)
    with pytest.raises(StoreError, match="s.json: is of version 2 and this codistill reads version 1"):
        Store.open(written)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', "\x00\x01"])
def test_what_is_no_manifest(written, content):
    written.write_text(content)
    with pytest.raises(StoreError, match="s.json: is no manifest of a store"):
        Store.open(written)


def test_no_manifest(tmp_path):
    with pytest.raises(StoreError, match="there is no store; create one"):
        Store.open(tmp_path / "none.json")
