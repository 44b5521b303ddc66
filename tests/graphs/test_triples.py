from __future__ import annotations

import hashlib
import struct
import subprocess
import sys

import pytest
import torch
from codistill.graphs.triples import Triples, first_of_each, shared_entities, shared_relations, stable_ids, triple_keys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

EMPTY = torch.empty((0, 3), dtype=torch.int64)


def ids(*rows: tuple[int, int, int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


def small(**other: object) -> Triples:
    values = {
        "entities": ("a", "b", "ü"),
        "relations": ("r", "s"),
        "train": ids((0, 0, 1), (1, 1, 2)),
        "valid": ids((0, 1, 2)),
        "test": ids((2, 0, 2)),
    }
    return Triples(**{**values, **other})  # type: ignore[arg-type]


def test_counts_and_names() -> None:
    graph = small(unlearn=ids((1, 1, 2)))
    assert graph.counts() == {"entities": 3, "relations": 2, "train": 2, "valid": 1, "test": 1, "unlearn": 1}
    assert graph.named(graph.train[1]) == ("b", "s", "ü")


def test_the_digest_is_the_sha256_of_lengths_names_and_triples() -> None:
    content = struct.pack("<4q", 3, 1, 1, 2) + "abü".encode() + struct.pack("<3q", 2, 1, 1) + b"rs"
    content += struct.pack("<7q", 2, 0, 0, 1, 1, 1, 2) + struct.pack("<4q", 1, 0, 1, 2) + struct.pack("<4q", 1, 2, 0, 2)
    content += struct.pack("<q", 0)
    assert small().digest() == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"entities": ("a", "bü", "")[:2] + ("c",)},
        {"relations": ("s", "r")},
        {"train": ids((1, 1, 2), (0, 0, 1))},
        {"valid": EMPTY},
        {"valid": EMPTY, "test": ids((0, 1, 2), (2, 0, 2))},
        {"unlearn": ids((1, 1, 2))},
    ],
)
def test_the_digest_tells_graphs_apart(other: dict[str, object]) -> None:
    assert small(**other).digest() != small().digest()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"entities": ("a", "b", "a")}, "the name 'a' stands twice among the entities"),
        ({"relations": ("r", "")}, "relations: at least one is needed, and none may have an empty name"),
        ({"entities": ()}, "entities: at least one is needed"),
        ({"train": ids((0, 0, 1)).int()}, r"train is torch.int32 \[1, 3\]; torch.int64 \[N, 3\] is needed"),
        ({"test": torch.zeros(2, 2, dtype=torch.int64)}, r"test is torch.int64 \[2, 2\]"),
        ({"valid": ids((0, 0, 3))}, "valid holds ids 3 to 3 in column 2, but there are 3 entities"),
        ({"valid": ids((0, 2, 1))}, "valid holds ids 2 to 2 in column 1, but there are 2 relations"),
        ({"train": ids((-1, 0, 1))}, "train holds ids -1 to -1 in column 0"),
        ({"unlearn": ids((0, 1, 2))}, r"the triple \('a', 's', 'ü'\) is to be unlearned, but is not in train"),
    ],
)
def test_what_is_no_graph_is_refused(other: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**other)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 4)), max_size=30))
def test_keys_are_equal_where_triples_are_and_sort_as_they_do(rows: list[tuple[int, int, int]]) -> None:
    keys = triple_keys(ids(*rows), 5, 3).tolist()
    assert [rows[at] for at in sorted(range(len(rows)), key=keys.__getitem__)] == sorted(rows)
    kept = [rows[at] for at in first_of_each(torch.tensor(keys, dtype=torch.int64)).tolist()]
    assert kept == list(dict.fromkeys(rows))


def test_shared_names_are_those_of_two_clients_or_more() -> None:
    other = small(entities=("b", "x", "y"), relations=("s", "t"))
    third = small(entities=("b", "x", "z"), relations=("u", "v"))
    assert shared_entities([small(), other, third]) == ("b", "x")
    assert shared_relations([small(), other, third]) == ("s",)
    assert shared_entities([small()]) == ()


def test_a_stable_id_depends_on_the_name_alone() -> None:
    assert stable_ids(["ü"]).tolist() == [int.from_bytes(hashlib.sha256("ü".encode()).digest()[:8], "big") >> 1]
    names = [str(number) for number in range(1000)]
    assert torch.equal(stable_ids(names).flip(0), stable_ids(names[::-1]))
    assert stable_ids(names).min() >= 0
    assert stable_ids([]).shape == (0,)


def test_naming_sources_and_splits_does_not_wait_for_torch() -> None:
    heavy = ("torch", "pyarrow", "networkx")
    code = f"import sys, codistill.graphs.sources, codistill.graphs.splits; print({{*{heavy}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
