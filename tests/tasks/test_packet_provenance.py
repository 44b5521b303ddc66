"""Rows that say whose they are, what class they have, what they are found by, and what comes with them."""

from dataclasses import replace

import pyarrow as pa
import pytest
import torch
from codistill.tasks.encoding import Plain
from codistill.tasks.knowledge import Models, Rows, addressed_to, marked, together
from codistill.tasks.packet import Label, decode, encode
from codistill.tasks.provenance import COLUMNS
from codistill.tasks.share import EncodingChoice, share

LABEL = Label("server", 3, 0)


def rows(contributor, ids, base=0.0, **more):
    ids = torch.tensor(ids)
    values = base + ids[:, None].float() * torch.tensor([1.0, -2.0, 0.5])
    return marked(Rows("logits", ids, values, torch.ones(len(ids), dtype=torch.float64), 5.0, **more), contributor)


def sent(knowledge, said="float32"):
    found, _ = decode(share(knowledge, EncodingChoice.model_validate(said), LABEL).to_pybytes())
    return found


def test_all_columns_arrive():
    keys = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    given = rows("phone-1", [4, 9, 11], classes=torch.tensor([0, -1, 2]), keys=keys)
    found = sent(given)
    assert found.contributors == ("phone-1",) and found.owners.tolist() == [0, 0, 0]
    assert found.classes.tolist() == [0, -1, 2] and found.classes.dtype == torch.int64
    assert torch.equal(found.keys, keys) and not found.addressed and found.attached is None


@pytest.mark.parametrize(("said", "bound"), [("float16", 1e-3), ("int8", 2e-2), ("float32", 0)])
def test_keys_travel_as_small_as_values_do(said, bound):
    keys = torch.rand(50, 16, generator=torch.Generator().manual_seed(1))
    found = sent(rows("a", list(range(50)), keys=keys), said)
    assert (found.keys - keys).abs().max() <= bound
    if bound:
        plain = share(rows("a", list(range(50)), keys=keys), EncodingChoice.model_validate("float32"), LABEL)
        small = share(rows("a", list(range(50)), keys=keys), EncodingChoice.model_validate(said), LABEL)
        assert small.size < plain.size * 0.7


def test_plain_rows_weigh_what_they_did():
    plain = Rows("logits", torch.arange(4), torch.zeros(4, 3), torch.ones(4, dtype=torch.float64))
    assert share(plain, EncodingChoice.model_validate("float32"), LABEL).size + 30 < (
        share(marked(plain, "phone-1"), EncodingChoice.model_validate("float32"), LABEL).size
    )


def test_models_may_come_with_rows():
    models = Models({"discriminator": {"weight": torch.randn(3, 2), "bias": torch.zeros(3)}}, {"discriminator": 1.0})
    found = sent(rows("server", [1, 2], attached=models))
    assert torch.equal(found.attached.tensors["discriminator"]["weight"], models.tensors["discriminator"]["weight"])
    assert found.ids.tolist() == [1, 2]


def test_models_tell_the_labels_behind_them():
    tensors = {"w": torch.zeros(2, 2), "b": torch.ones(2)}
    given = Models({"mlp": tensors, "cnn": tensors}, {"mlp": 4.0, "cnn": 2.0}, {"cnn": torch.tensor([1.0, 0.0, 1.0])})
    found = sent(given)
    assert set(found.labels) == {"cnn"} and found.labels["cnn"].tolist() == [1.0, 0.0, 1.0]
    assert sent(Models({"mlp": tensors}, {"mlp": 1.0})).labels == {}


def test_rows_of_several_lie_side_by_side():
    both = together([rows("b", [1, 5, 7]), rows("a", [1, 7], 100.0)])
    assert both.contributors == ("b", "a")
    assert both.ids.tolist() == [1, 1, 5, 7, 7] and both.owners.tolist() == [0, 1, 0, 0, 1]
    assert both.values[1, 0] == 101.0 and both.samples == 10.0
    assert torch.equal(both.of("a").ids, torch.tensor([1, 7])) and both.of("a").owners is None
    assert both.of("nobody").items == 0


def test_of_two_rows_of_one_contributor_the_later_packet_s_is_kept():
    both = together([rows("a", [1, 2]), rows("a", [2, 3], 10.0)])
    assert both.ids.tolist() == [1, 2, 3] and both.values[:, 0].tolist() == [1.0, 12.0, 13.0]


def test_what_the_earlier_told_of_a_row_and_the_later_does_not_is_kept():
    """A packet that came too late and the next one of the same agent arrive together; keys are told once."""
    first = rows("a", [1, 2], classes=torch.tensor([3, 4]), keys=torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    both = together([first, rows("a", [1, 2, 3], 10.0), rows("b", [1], classes=torch.tensor([5]))])
    assert both.ids.tolist() == [1, 1, 2, 3] and both.values[:, 0].tolist() == [11.0, 1.0, 12.0, 13.0]
    assert both.classes.tolist() == [3, 5, 4, -1]
    assert both.keys.tolist() == [[1.0, 2.0], [0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]
    newer = rows("a", [1], 10.0, classes=torch.tensor([7]), keys=torch.tensor([[9.0, 9.0]]))
    again = together([first, newer])
    assert again.classes.tolist() == [7, 4] and again.keys.tolist() == [[9.0, 9.0], [3.0, 0.0]]


def test_what_some_do_not_tell_is_marked_as_not_told():
    told = rows("a", [1, 2], classes=torch.tensor([0, 1]), keys=torch.ones(2, 3))
    both = together([rows("b", [2]), told])
    assert both.ids.tolist() == [1, 2, 2] and both.classes.tolist() == [0, -1, 1]
    assert both.keys.tolist() == [[1.0] * 3, [0.0] * 3, [1.0] * 3]
    assert together([rows("a", [1]), rows("b", [2])]).classes is None
    assert together([told, rows("b", [2], classes=torch.tensor([4]))]).classes.tolist() == [0, 1, 4]


def test_what_is_addressed_reaches_whom_it_is_for():
    answers = replace(together([rows("a", [1, 2]), rows("b", [2, 3]), rows("c", [9])]), addressed=True)
    assert addressed_to(answers, "b").ids.tolist() == [2, 3] and not addressed_to(answers, "b").addressed
    below = addressed_to(answers, "edge-1", frozenset({"a", "c"}))
    assert below.addressed and below.ids.tolist() == [1, 2, 9]
    assert addressed_to(below, "c").ids.tolist() == [9] and addressed_to(below, "b") is None
    assert addressed_to(sent(answers), "a").ids.tolist() == [1, 2]


def test_rows_that_do_not_say_whose_they_are_cannot_be_laid_side_by_side():
    plain = Rows("logits", torch.arange(2), torch.zeros(2, 3), torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="logits say of none"):
        together([plain])


def remembered(knowledge, said="float32", label=LABEL):
    """The table of a piece as it is kept, and what is read back from it."""
    entry = EncodingChoice.model_validate(said)
    message = encode(knowledge, entry.name, entry.parameters, label, remembered=True)
    return pa.ipc.open_stream(message).read_all(), decode(message)[0]


def test_every_row_that_is_kept_says_who_when_and_how():
    given = together([rows("phone-2", [4, 9]), rows("phone-1", [9])])
    table, found = remembered(given, "int8")
    assert table.column("id").to_pylist() == [4, 9, 9]
    assert table.column("contributor").to_pylist() == ["phone-2", "phone-2", "phone-1"]
    assert table.column("round").to_pylist() == [3, 3, 3] and table.column("round").type == pa.int32()
    assert table.column("form").to_pylist() == ["logits"] * 3
    assert table.column("encoding").to_pylist() == ["int8"] * 3
    assert torch.equal(found.values, sent(given, "int8").values) and found.contributors == given.contributors


def test_rows_that_do_not_say_whose_they_are_are_their_makers():
    table, _ = remembered(Rows("prototypes", torch.arange(2), torch.zeros(2, 3), torch.ones(2, dtype=torch.float64)))
    assert table.column("contributor").to_pylist() == ["server", "server"]
    answers = replace(together([rows("a", [1]), rows("b", [1])]), addressed=True)
    table, found = remembered(answers)
    assert table.column("contributor").to_pylist() == ["server", "server"]  # a and b are whom they are for
    assert found.addressed and found.contributors == ("a", "b")


def test_every_tensor_that_is_kept_says_who_when_and_how():
    tensors = {"w": torch.arange(4.0).reshape(2, 2), "b": torch.ones(2)}
    table, found = remembered(Models({"mlp": tensors}, {"mlp": 4.0}, {"mlp": torch.tensor([1.0, 3.0])}))
    assert table.column("name").to_pylist() == ["w", "b"]
    assert table.column("contributor").to_pylist() == ["server", "server"]
    assert table.column("round").to_pylist() == [3, 3] and table.column("form").to_pylist() == ["parameters"] * 2
    assert torch.equal(found.tensors["mlp"]["w"], tensors["w"]) and found.labels["mlp"].tolist() == [1.0, 3.0]


def test_what_is_attached_says_so_too_and_nothing_is_no_rows():
    models = Models({"discriminator": {"bias": torch.zeros(3)}}, {"discriminator": 1.0})
    message = encode(rows("a", [1, 2], attached=models), "float32", Plain(), LABEL, remembered=True)
    stream = pa.BufferReader(message)
    first, second = pa.ipc.open_stream(stream).read_all(), pa.ipc.open_stream(stream).read_all()
    assert first.column("contributor").to_pylist() == ["a", "a"]
    assert second.column("contributor").to_pylist() == ["server"]
    assert torch.equal(decode(message)[0].attached.tensors["discriminator"]["bias"], torch.zeros(3))
    table, found = remembered(rows("a", []))
    assert len(table) == 0 and found.items == 0 and "contributor" in table.column_names


def test_what_travels_has_provenance_on_its_label_alone():
    message = share(rows("a", [1, 2]), EncodingChoice.model_validate("float32"), LABEL)
    assert not {*COLUMNS} & {*pa.ipc.open_stream(message).schema.names}
