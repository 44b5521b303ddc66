"""Rows that say whose they are, what class they have, what they are found by, and what comes with them."""

import pytest
import torch
from codistill.tasks.knowledge import Models, Rows, addressed_to, marked, together
from codistill.tasks.packet import Label, decode
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


def test_what_some_do_not_tell_is_marked_as_not_told():
    told = rows("a", [1, 2], classes=torch.tensor([0, 1]), keys=torch.ones(2, 3))
    both = together([rows("b", [2]), told])
    assert both.ids.tolist() == [1, 2, 2] and both.classes.tolist() == [0, -1, 1]
    assert both.keys.tolist() == [[1.0] * 3, [0.0] * 3, [1.0] * 3]
    assert together([rows("a", [1]), rows("b", [2])]).classes is None
    assert together([told, rows("b", [2], classes=torch.tensor([4]))]).classes.tolist() == [0, 1, 4]


def test_what_is_addressed_reaches_whom_it_is_for():
    from dataclasses import replace

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
