"""What a spec may say of a store."""

import pydantic
import pytest
from codistill.tasks.stores import Capacity, Declaration
from codistill.tasks.stores.declaration import size_in_bytes


def test_what_is_not_said():
    found = Declaration(kind="semantic", holds="prototypes")
    assert (found.eviction.name, found.encoding.name, found.keys, found.replace) == ("fifo", "float32", "none", True)
    assert found.capacity is None


def test_a_declaration_comes_back_from_what_it_writes():
    said = {"kind": "episodic", "holds": "logits", "capacity": {"bytes": "64MiB"}, "eviction": "herding"}
    one = Declaration.model_validate(said | {"encoding": {"top-k": {"k": 3}}, "keys": "int8", "replace": False})
    assert Declaration.model_validate_json(one.model_dump_json()) == one


@pytest.mark.parametrize(
    "said",
    [
        {"capacity": {}},
        {"capacity": {"items": 1, "bytes": 1}},
        {"capacity": {"bytes": "64MB"}},
        {"capacity": {"items": 0}},
        {"encoding": "svd"},
        {"encoding": "bits"},
        {"encoding": "top-k"},
        {"eviction": "random"},
        {"keys": "float16"},
        {"kind": "short"},
        {"size": 3},
    ],
)
def test_what_cannot_be_said(said):
    with pytest.raises(pydantic.ValidationError):
        Declaration.model_validate({"kind": "episodic", "holds": "logits"} | said)


def test_sizes():
    assert [size_in_bytes(one) for one in (7, "7B", "2 KiB", "64MiB", "1GiB")] == [7, 7, 2048, 2**26, 2**30]
    assert Capacity(bytes="1KiB").entries(100) == 10 and Capacity(items=3).entries(100) == 3


def test_its_schema_says_what_can_be_written():
    schema = Declaration.model_json_schema()
    text = str(schema)
    assert all(word in text for word in ("lowest-confidence", "reservoir", "top-k", "float16", "64MiB"))
