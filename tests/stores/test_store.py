"""What goes in comes out, what is broken stays out, and equal calls make equal files."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from codistill.tasks.stores import MissingError, Store, StoreError, consolidated, entries
from codistill.tasks.stores.search import tensor


@pytest.mark.parametrize(
    ("encoding", "within"), [("float32", 0), ("float16", 2**-11), ("int8", 1 / 250), ({"top-k": {"k": 5}}, 2**-11)]
)
def test_values_come_back_within_what_the_encoding_loses(declare, some, tmp_path, encoding, within):
    given = some(range(40))
    store = Store.create(declare(encoding=encoding, keys="int8"), "s")
    store.put(given, 1)
    for held in (store, Store.open(store.write(tmp_path, "s"))):
        found = held.all()
        most = np.abs(given.values).max(1, keepdims=True)
        assert (np.abs(found.values - given.values) <= within * most + 1e-12).all()
        assert (np.abs(found.keys - given.keys) <= np.abs(given.keys).max(1, keepdims=True) / 250).all()
        assert found.values.dtype == found.keys.dtype == found.confidence.dtype == np.float32
        assert np.array_equal(found.owners, given.owners) and found.contributors == ("a", "b")
        assert np.array_equal(found.rounds, given.rounds) and np.array_equal(found.weights, given.weights)


@pytest.mark.parametrize("where", ["values", "keys", "weights", "confidence"])
@pytest.mark.parametrize("what", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_counted(declare, some, where, what):
    given = some(range(4))
    getattr(given, where).reshape(4, -1)[2, 0] = what
    store = Store.create(declare(keys="float32", encoding="int8"), "s")
    stored = store.put(given, 1)
    assert (stored.stored, stored.refused) == (3, 1)
    assert store.all().ids.tolist() == [0, 1, 3] and store.statistics.refused == 1


def test_a_refused_entry_does_not_take_the_place_of_what_is_there(declare, some):
    store = Store.create(declare(), "s")
    store.put(some([1], contributors=("a",)), 1)
    before = store.all().values
    assert store.put(some([1], contributors=("a",), values=np.full((1, 5), np.nan)), 2).replaced == 0
    assert np.array_equal(store.all().values, before)


def test_what_is_too_large_for_the_encoding_is_refused(declare, some):
    store = Store.create(declare(encoding="float16"), "s")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.put(some([1, 2], values=np.array([[1e6] + [0] * 4, [1] * 5])), 1).refused == 1
    assert store.all().ids.tolist() == [2]


def test_a_missing_id(declare, some):
    store = Store.create(declare(), "cache")
    with pytest.raises(MissingError, match=r"'cache' holds no entry for 1 of the ids asked for \(3\)"):
        store.get([3])
    store.put(some(range(10), contributors=("a",)), 1)
    with pytest.raises(MissingError, match=r"for 9 of the ids asked for \(10, 11, 12, 13, 14, \.\.\.\); store them"):
        store.get(np.arange(19))
    with pytest.raises(MissingError, match="no entry of 'b' for 1 of"):
        store.get([1], "b")
    assert store.get([99, 3, 3], missing="skip").ids.tolist() == [3, 3]


def test_entries_of_other_widths(declare, some):
    store = Store.create(declare(keys="int8"), "s")
    with pytest.raises(StoreError, match="entries have no keys, and its declaration says keys: int8"):
        store.put(some([1], keys=None), 1)
    store.put(some([1]), 1)
    with pytest.raises(StoreError, match="have 6 values and 4 numbers in their keys; it holds 5 and 4"):
        store.put(some([2], width=6), 1)
    assert len(store) == 1


def test_keys_are_dropped_where_none_are_held(declare, some):
    store = Store.create(declare(), "s")
    store.put(some([1]), 1)
    assert store.all().keys is None


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ({"owners": np.array([0, 2])}, "owners reach from 0 to 2; expected places among the 2 contributors"),
        ({"weights": np.array([1])}, r"weights has shape \(1,\); expected \[2\], one row an id"),
        ({"values": np.ones(2)}, r"values has shape \(2,\); expected \[2, width\]"),
    ],
)
def test_entries_that_do_not_fit_together(some, said, answer):
    with pytest.raises(StoreError, match=answer):
        some([1, 2], **said)


def test_a_capacity_below_one_entry(declare, some):
    store = Store.create(declare(capacity={"bytes": 40}), "small")
    with pytest.raises(StoreError, match="'small': its capacity of 40 bytes holds no entry, which takes 54"):
        store.put(some([1]), 1)


def test_equal_calls_make_equal_bytes(declare, some, tmp_path):
    def life(home, reopen):
        (home / "spill").mkdir(parents=True)
        said = {"spill": home / "spill", "bound": 2000}
        declaration = declare(eviction="reservoir", capacity={"items": 60}, encoding="int8", keys="int8")
        store = Store.create(declaration, "s", **said)
        for round in range(6):
            folder = home / str(round)
            folder.mkdir()
            store.put(some(range(round * 10, round * 10 + 30), seed=round), round, np.random.default_rng(round))
            store.nearest(np.ones((2, 4)), 3, round=round)
            store.get([1, 2, 3], round=round, missing="skip")
            store.decay(0.9, 0.1)
            path = store.write(folder, "s")
            if reopen:
                store = Store.open(path, **said)
        return {file.relative_to(home): file.read_bytes() for file in sorted(home.rglob("*")) if file.is_file()}

    one = life(tmp_path / "a", False)
    assert one == life(tmp_path / "b", False) == life(tmp_path / "c", True)
    assert not any(path.parts[0] == "spill" for path in one)


def test_segments_of_older_rounds_are_referred_to_where_they_lie(declare, some, tmp_path):
    store, paths = Store.create(declare(), "s"), []
    for round, many in ((1, 40), (2, 10), (3, 3)):
        folder = tmp_path / f"round{round}"
        folder.mkdir()
        store.put(some(range(round * 100, round * 100 + many), seed=round), round)
        paths.append(store.write(folder, "s"))
    segments = {file.parent.name for file in store.files()}
    assert segments == {"round1", "round2", "round3"}
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for folder in list(tmp_path.iterdir()):
        if folder != moved:
            folder.rename(moved / folder.name)
    assert len(Store.open(moved / "round3" / "s.json")) == 53
    # Each manifest is still a store: nothing of an older round was touched.
    assert [len(Store.open(moved / path.parent.name / "s.json")) for path in paths] == [40, 50, 53]


def test_a_forgotten_contributor_is_in_no_file(declare, tmp_path):
    store = Store.create(declare(), "s")
    mark = np.float32(1234.5678)
    store.put(entries(np.arange(90), np.ones((90, 4)), "stays", 1), 1)
    store.put(entries(np.arange(5), np.full((5, 4), mark), "leaves", 1), 1)
    store.write(tmp_path, "s")
    assert any(mark.tobytes() in file.read_bytes() for file in store.files())
    assert store.forget(contributor="leaves") == 5
    store.write(tmp_path, "s")
    held = [file.read_bytes() for file in store.files()]
    assert not any(mark.tobytes() in one or b"leaves" in one for one in held)
    assert store.contributors() == ("stays",) and len(store) == 90


def test_means_without_a_contributor_are_those_of_a_store_it_never_gave_to(declare, some, tmp_path):
    with_all, without = (Store.create(declare(encoding="float16"), name) for name in ("one", "other"))
    for round in range(5):
        for name in ("c", "a", "b"):
            given = some(range(30), seed=round * 3 + ord(name), contributors=(name,), round=round)
            with_all.put(given, round)
            if name != "a":
                without.put(given, round)
        with_all.write(tmp_path, "one")
    sums = with_all.class_means()
    never = consolidated(without.class_means())
    taken_out = consolidated(sums, without=["a"])
    assert np.array_equal(taken_out.values, never.values) and np.array_equal(taken_out.weights, never.weights)
    assert not np.array_equal(consolidated(sums).values, never.values)
    with_all.forget(contributor="a")
    assert np.array_equal(consolidated(with_all.class_means()).values, never.values)
    with pytest.raises(ValueError, match="cannot leave one out"):
        consolidated(with_all.class_means(by_contributor=False), without=["a"])


def test_sums_of_everybody_are_those_of_each_together(declare, some):
    store = Store.create(declare(), "s")
    store.put(some(range(50)), 1)
    together, apart = store.class_means(by_contributor=False), store.class_means()
    assert together.classes.tolist() == [0, 1, 2] and set(together.owners.tolist()) == {-1}
    for label, total, weight in zip(together.classes, together.values, together.weights, strict=True):
        np.testing.assert_allclose(apart.values[apart.classes == label].sum(0), total, rtol=1e-12)
        assert apart.weights[apart.classes == label].sum() == weight


def test_what_is_mapped_is_not_copied(declare, some, tmp_path):
    store = Store.create(declare(encoding="int8"), "s")
    store.put(some(range(50)), 1)
    path = store.write(tmp_path, "s")
    store = Store.open(path)
    column = store._table.parts[0].block.values["codes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = tensor(column)
    assert found.dtype == torch.int8 and found.data_ptr() == column.ctypes.data
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "s.0.arrow" in line]
    spans = [tuple(int(end, 16) for end in words[0].split("-")) for words in lines]
    assert any(low <= found.data_ptr() < high for low, high in spans)
    # Any reader of Arrow reads a segment.
    with pa.memory_map(str(tmp_path / "s.0.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.column("form").to_pylist() == ["logits"] * 50
    assert set(table.column("contributor").to_pylist()) == {
        "a",
        "b",
    }


def test_a_store_larger_than_memory(tmp_path):
    script = Path(__file__).with_name("bigger_than_memory.py")
    said = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert said.returncode == 0 and said.stdout == "fine\n", said.stderr
