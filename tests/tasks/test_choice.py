import pytest
from codistill.tasks.aggregate import Aggregate
from codistill.tasks.optimizers import Optimizer
from codistill.tasks.share import EncodingChoice
from pydantic import TypeAdapter, ValidationError


@pytest.mark.parametrize("said", ["sgd", {"sgd": None}, {"sgd": {}}, {"sgd": {"lr": 0.05}}])
def test_a_word_and_a_mapping_say_the_same(said):
    chosen = Optimizer.model_validate(said)
    assert chosen.name == "sgd" and chosen.parameters.lr == 0.05 and chosen.parameters.momentum == 0


def test_a_choice_writes_itself_as_it_is_read():
    written = Optimizer.model_validate({"adam": {"lr": 0.5}}).model_dump(mode="json")
    assert written == {"adam": {"lr": 0.5, "weight_decay": 0.0}}
    assert Optimizer.model_validate(written).model_dump() == written


def test_names_with_dashes():
    chosen = EncodingChoice.model_validate({"top-k": {"k": 2}})
    assert chosen.name == "top-k" and chosen.parameters.k == 2


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("sgdd", "unknown_name"),
        ({"sgd": {}, "adam": {}}, "one_key"),
        ({}, "one_key"),
        ({"sgd": {"rate": 1}}, "extra_forbidden"),
        ({"sgdd": {}}, "extra_forbidden"),
        ({"sgd": {"lr": 0}}, "greater_than"),
        (3, "model_type"),
    ],
)
def test_what_cannot_be_chosen(said, kind):
    with pytest.raises(ValidationError) as caught:
        Optimizer.model_validate(said)
    assert kind in {error["type"] for error in caught.value.errors()}


def test_a_tag_chooses_the_parameters():
    read = TypeAdapter(Aggregate).validate_python
    assert read({"by": "sharpened_mean"}).temperature == 0.1
    assert read({"by": "mean", "weight": "agents"}).weight == "agents"
    with pytest.raises(ValidationError):
        read({"by": "mean", "temperature": 1})
    with pytest.raises(ValidationError):
        read({"by": "median"})


def test_a_schema_offers_words_and_mappings():
    schema = Optimizer.model_json_schema()
    words, mapping = schema["anyOf"]
    assert words == {"enum": ["sgd", "adam"]}
    assert mapping["minProperties"] == mapping["maxProperties"] == 1 and set(mapping["properties"]) == {"sgd", "adam"}
