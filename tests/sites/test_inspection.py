"""Packets are read only if they are what the plan expects, whatever bytes somebody signed."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from codistill.flows.sites.inspection import Expected, UnfitPacketError, inspect
from codistill.tasks import packet
from codistill.tasks.encoding import ENCODINGS
from codistill.tasks.knowledge import Models, Rows
from hypothesis import given, settings
from hypothesis import strategies as st

LABEL = packet.Label("north-1", 3, 0)
EXPECTED = Expected("north-1", 3, 0, {"logits", "parameters"}, {"float32", "float16", "int8", "bits", "top-k", "svd"})
SETTINGS = {"top-k": {"k": 2}, "bits": {"bits": 3}}


def rows(count=5, width=4, **more):
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(count, width, generator=generator)
    return Rows("logits", torch.arange(count), values, torch.ones(count, dtype=torch.float64), 7.0, **more)


def models():
    return Models(
        {"mlp": {"a": torch.arange(200.0).reshape(20, 10), "b": torch.ones(3), "n": torch.tensor(1.0)}}, {"mlp": 4.0}
    )


def written(knowledge, encoding="float32", label=LABEL):
    parameters = ENCODINGS[encoding].parameters.model_validate(SETTINGS.get(encoding, {}))
    return packet.encode(knowledge, encoding, parameters, label)


def changed(message, columns=None, **head):
    """Return a packet with other columns or another label."""
    table = pa.ipc.open_stream(message).read_all()
    said = {key.decode(): value.decode() for key, value in table.schema.metadata.items()} | head
    for name, column in (columns or {}).items():
        if column is None:
            table = table.drop_columns([name])
        elif name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata(said)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("encoding", ["float32", "float16", "int8", "bits", "top-k"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_rows_as_they_are_written_pass(encoding, count):
    owners = {"owners": torch.zeros(count, dtype=torch.int64), "contributors": ("a",)}
    for more in ({}, owners, {"classes": torch.zeros(count, dtype=torch.int64)}, {"keys": torch.rand(count, 3)}):
        inspect(written(rows(count, **more), encoding), EXPECTED)
    inspect(written(replace(rows(count), attached=models()), encoding), EXPECTED)


@pytest.mark.parametrize("encoding", ["float32", "float16", "svd"])
def test_models_as_they_are_written_pass(encoding):
    inspect(written(models(), encoding), EXPECTED)
    inspect(written(replace(models(), labels={"mlp": torch.ones(3, dtype=torch.float64)}), encoding), EXPECTED)


def wide(values, kind, width):
    return pa.FixedSizeListArray.from_arrays(pa.array(values, kind), width)


ROWS = {
    "another sender": ({"sender": "north-2"}, "it is labelled"),
    "another round": ({"round": "4"}, "it is labelled"),
    "no round": ({"round": "x"}, "it is no packet"),
    "another form": ({"form": "prototypes"}, "it holds prototypes"),
    "no encoding": ({"encoding": "pickle"}, "it is written as pickle"),
    "strange settings": ({"settings": '{"a": 1}'}, "it is no packet"),
    "another width": ({"width": "9"}, "not as wide as it says"),
    "negative samples": ({"samples": "-1"}, "numbers that cannot be"),
    "no list of contributors": ({"contributors": '{"a": 1}'}, "its contributors"),
    "contributors without owners": ({"contributors": '["a"]'}, "its contributors"),
    "no ids": ({"columns": {"id": None}}, "its columns are"),
    "long ids": ({"columns": {"id": pa.array(range(5), pa.int64())}}, "its ids are int64"),
    "nulls": ({"columns": {"id": pa.array([0, 1, None, 3, 4], pa.int32())}}, "has nulls"),
    "one more column": ({"columns": {"more": pa.array(["x"] * 5)}}, "its columns are"),
    "doubles": ({"columns": {"values": wide(np.zeros(20), pa.float64(), 4)}}, "its column values is"),
    "no lists": ({"columns": {"values": pa.array(np.zeros(5, np.float32))}}, "its column values is"),
    "null in a list": ({"columns": {"values": wide([None] * 20, pa.float32(), 4)}}, "has nulls"),
    "strange weights": ({"columns": {"weight": pa.array(["1"] * 5)}}, "its column weight is string"),
    "owners untold": (
        {"columns": {"owner": pa.array([0, 0, 0, 0, 3], pa.int32())}, "contributors": '["a"]'},
        "it names owners that it does not tell",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_are_otherwise_are_refused(case):
    change, reason = ROWS[case]
    with pytest.raises(UnfitPacketError, match=reason):
        inspect(changed(written(rows()), **change), EXPECTED)


def test_scores_that_there_are_not_are_refused():
    message = written(rows(), "top-k")
    beyond = wide(np.full(10, 4), pa.int32(), 2)
    with pytest.raises(UnfitPacketError, match="it chooses scores that there are not"):
        inspect(changed(message, columns={"chosen": beyond}), EXPECTED)


MODELS = {
    "a shape too large": ({"shape": pa.array([[2**40, 10], [3], []], pa.list_(pa.int64()))}, "has 800 bytes for"),
    "a negative shape": ({"shape": pa.array([[-20, -10], [3], []], pa.list_(pa.int64()))}, "has the shape"),
    "a strange dtype": ({"dtype": pa.array(["object", "float32", "float32"])}, "holds object"),
    "half a factor": ({"part": pa.array(["right", "whole", "whole"])}, "has a right factor without a left one"),
    "a strange part": ({"part": pa.array(["middle", "whole", "whole"])}, "has a part 'middle'"),
    "a missing column": ({"name": None}, "its columns are"),
    "no bytes": ({"values": pa.array(["a", "b", "c"])}, "its column values is string"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_that_are_otherwise_are_refused(case):
    columns, reason = MODELS[case]
    with pytest.raises(UnfitPacketError, match=reason):
        inspect(changed(written(models()), columns=columns), EXPECTED)


def test_what_follows_after_the_end_is_refused():
    whole = written(rows()).to_pybytes()
    with pytest.raises(UnfitPacketError, match="something follows after its end"):
        inspect(pa.py_buffer(whole + whole), EXPECTED)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_bytes_there_are_they_are_refused_or_can_be_read(data):
    """One to four bytes of a packet changed at random: it is refused in a sentence, or decoding it raises nothing."""
    encoding = data.draw(st.sampled_from(["float32", "int8", "bits", "top-k", "svd"]))
    whole = bytearray(written(models() if encoding == "svd" else rows(), encoding).to_pybytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    message = pa.py_buffer(bytes(whole))
    try:
        inspect(message, EXPECTED)
    except UnfitPacketError:
        return
    packet.decode(message)
