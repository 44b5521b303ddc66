from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from codistill.specs.document import validate
from codistill.specs.problems import Mark, Problem, SpecError, dotted, nearest, shown
from codistill.specs.tree import parse
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError


class Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Sgd(Base):
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0, ge=0, lt=1)


class Optimizer(Base):
    """A word or a mapping with one key, as the language writes choices."""

    sgd: Sgd | None = None
    adam: Sgd | None = None

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in cls.model_fields:
            raise PydanticCustomError("unknown_name", "expected one of sgd, adam", {"names": ["sgd", "adam"]})
        return {value: {}} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        inner = handler.resolve_ref_schema(handler(core))
        copy = dict(inner)
        inner.clear()
        inner["anyOf"] = [{"enum": ["sgd", "adam"]}, copy]
        return inner


class Train(Base):
    epochs: int = Field(1, ge=1, le=100)
    batch: int | None = None
    optimizer: Optimizer = Optimizer()


class Extract(Base):
    from_: str = Field(alias="from")
    forms: list[Literal["logits", "features"]] = Field(["logits"], min_length=1)


class TrainStep(Base):
    train: Train


class ExtractStep(Base):
    extract: Extract


def step(value: Any) -> str | None:
    return next(iter(value)) if isinstance(value, dict) and len(value) == 1 else None


Step = Annotated[Annotated[TrainStep, Tag("train")] | Annotated[ExtractStep, Tag("extract")], Discriminator(step)]


class Iid(Base):
    by: Literal["iid"]


class Dirichlet(Base):
    by: Literal["dirichlet"]
    alpha: float


class Mean(Base):
    mean: Sgd


class Median(Base):
    median: Sgd


class Color(Enum):
    red = "red"
    blue = "blue"


def even(value: int) -> int:
    if value % 2:
        raise ValueError("an even number is needed")
    return value


class Window(Base):
    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Root(Base):
    rounds: int = Field(1, ge=1)
    share: Annotated[float, AfterValidator(lambda value: value), Field(gt=0, le=1)] = 1
    recipe: list[Step] = []
    partition: Annotated[Iid | Dirichlet, Field(discriminator="by")] = Iid(by="iid")
    rule: Literal["mean", "median"] | Mean | Median = "mean"
    rate: Annotated[float, Field(gt=0)] | Window = 1.0
    color: Color = Color.red
    count: Annotated[int, AfterValidator(even)] = 2
    window: Window = Window()
    flag: bool = False
    labels: dict[Literal["a", "b"], int] = {}
    inner: Root | None = None
    pair: tuple[int, str] = (1, "x")
    mixed: int | list[int] | bool = 1


def told(text: str, model: type[BaseModel] = Root) -> list[str]:
    node, problems = parse(text, "x.yaml")
    assert node is not None and not problems
    return [str(problem) for problem in validate(node, model)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rounds: 0", "1:9: rounds: expected a whole number of at least 1; got 0"),
        ("rounds: many", "1:9: rounds: expected a whole number of at least 1; got 'many'"),
        ("rounds: 1.5", "1:9: rounds: expected a whole number of at least 1; got 1.5"),
        ("share: 2", "1:8: share: expected a number of at most 1; got 2"),
        ("round: 2", "1:1: round: unknown key; expected one of color, count, flag, inner, labels, mixed, pair,"),
        ("recipe:\n- train: {optimzer: sgd}", "expected one of batch, epochs, optimizer; did you mean 'optimizer'?"),
        ("recipe:\n- train: {epochs: 101}", "2:19: recipe[0].train.epochs: expected a whole number from 1 to 100"),
        ("recipe:\n- train: {optimizer: sdg}", "expected one of sgd, adam; got 'sdg'; did you mean 'sgd'?"),
        ("recipe:\n- train: {optimizer: {sgd: {lr: -1}}}", "optimizer.sgd.lr: expected a number above 0; got -1"),
        ("recipe:\n- train: {optimizer: 3}", "one of sgd, adam, or a mapping with one of these keys; got 3"),
        (
            "recipe:\n- trian: {}",
            "2:3: recipe[0].trian: unknown key; expected one of train, extract; did you mean 'train'?",
        ),
        (
            "recipe:\n- train:\n  epochs: 2",
            "a mapping with one key, one of train, extract; got {train: null, epochs: 2}",
        ),
        ("recipe:\n- 3", "2:3: recipe[0]: expected a mapping with one of train, extract; got 3"),
        ("recipe: 3", "1:9: recipe: expected a list; got 3"),
        ("recipe:\n- extract: {}", "2:3: recipe[0].extract.from: missing key; expected text"),
        (
            "recipe:\n- extract: {form: x}",
            "2:13: recipe[0].extract.form: unknown key; expected one of forms, from; did you mean 'from'?",
        ),
        ("recipe:\n- extract: {from: x, forms: []}", "expected at least 1 element; got []"),
        (
            "recipe:\n- extract: {from: x, forms: [logit]}",
            "forms[0]: expected one of logits, features; got 'logit'; did",
        ),
        (
            "partition: {by: dirichlt}",
            "1:17: partition.by: expected one of iid, dirichlet; got 'dirichlt'; did you mean",
        ),
        ("partition: {}", "1:1: partition.by: missing key; expected one of iid, dirichlet"),
        ("partition: {by: dirichlet}", "1:1: partition.alpha: missing key; expected a number"),
        ("partition: [1]", "1:12: partition: expected a mapping; got [1]"),
        ("rule: men", "a word (one of mean, median), a mapping with mean, or a mapping with median; got 'men'; did"),
        ("rule: {mean: {lr: 0}}", "1:19: rule.mean.lr: expected a number above 0; got 0"),
        ("rule: {men: {}}", "1:8: rule.men: unknown key; expected one of mean, median; did you mean 'mean'?"),
        ("rate: x", "1:7: rate: expected a number above 0 or a mapping with high, low; got 'x'"),
        ("rate: {low: 3}", "1:7: rate: low is above high"),
        ("color: gren", "1:8: color: expected one of red, blue; got 'gren'"),
        ("count: 3", "1:8: count: an even number is needed"),
        ("window: {low: 3}", "1:9: window: low is above high"),
        ("flag: maybe", "1:7: flag: expected true or false; got 'maybe'"),
        ("labels: {c: 1}", "1:10: labels.c: unknown key; expected one of a, b"),
        ("labels: {a: x}", "1:13: labels.a: expected a whole number; got 'x'"),
        ("inner: {inner: {rounds: no}}", "1:25: inner.inner.rounds: expected a whole number of at least 1; got 'no'"),
        ("pair: [1]", "1:1: pair[1]: missing element; expected text"),
        ("mixed: {}", "1:8: mixed: expected a whole number, a list, or true or false; got {}"),
        ("mixed: [1, x]", "1:12: mixed[1]: expected a whole number; got 'x'"),
        ("- 1", "1:1: expected a mapping; got [1]"),
    ],
)
def test_each_mistake_is_told_once_in_plain_words(text: str, expected: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert expected in found[0]


def test_the_example_of_the_brief() -> None:
    assert told("recipe:\n  - train: {epochs: 1}\n  - train: {optimzer: sgd}\n") == [
        "x.yaml:3:13: recipe[1].train.optimzer: unknown key; expected one of batch, epochs, optimizer; "
        "did you mean 'optimizer'?"
    ]


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    found = told("count: 3\nrounds: 0\nrecipe:\n  - train: {epochs: 0, btch: 1}\n  - 1\nflag: 7\n")
    assert [line.split(": ")[1] for line in found] == [
        "count",
        "rounds",
        "recipe[0].train.epochs",
        "recipe[0].train.btch",
        "recipe[1]",
        "flag",
    ]


def test_a_misspelt_required_key_is_one_mistake() -> None:
    found = told("recipe:\n  - extract: {frm: public}\n")
    assert len(found) == 1 and "did you mean 'from'?" in found[0]


def test_nothing_is_known_inside_a_validator_that_calls_a_model() -> None:
    def call(value: Any) -> Any:
        return Train.model_validate(value)

    class Hidden(Base):
        train: Annotated[Any, AfterValidator(call)]

    assert told("train: {epochs: x, foo: 1}", Hidden) == [
        "x.yaml:1:17: train.epochs: expected a whole number; got 'x'",
        "x.yaml:1:20: train.foo: unknown key",
    ]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("temprature", "temperature"),
        ("optimiser", "optimizer"),
        ("fedprxo", "fedprox"),
        ("TEMP", "temperature"),
        ("zz", None),
    ],
)
def test_nearest(word: str, meant: str | None) -> None:
    assert nearest(word, ["temperature", "optimizer", "fedprox", "fedavg"]) == meant


def test_errors_carry_all_problems_sorted() -> None:
    late, early = Problem(Mark("x", 10, 1), "b", "late"), Problem(Mark("x", 9, 3), "a", "early", "hint")
    error = SpecError([late, early, Problem(None, "", "nowhere"), late])
    assert str(error) == "nowhere\nx:9:3: a: early; hint\nx:10:1: b: late"
    assert len(error.problems) == 3


def test_values_and_paths_as_text() -> None:
    assert dotted(("recipe", 1, "a.b", "0", "on")) == 'recipe[1]."a.b"."0".on'
    assert shown({"a": [1, None, True, "x"]}) == "{a: [1, null, true, 'x']}"
    assert len(shown(list(range(100)))) == 60 and shown(10**9000) == "a huge number"


leaves = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | st.sampled_from(["mean", "sgd", "x", "iid"])
keys = st.sampled_from(
    [*Root.model_fields, "train", "extract", "from", "by", "sgd", "lr", "low", "mean", "zz", "alpha"]
)
data = st.recursive(leaves, lambda item: st.lists(item, max_size=3) | st.dictionaries(keys, item, max_size=4))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(keys, data))
def test_every_wrong_value_gets_problems_with_marks(value: dict[str, Any]) -> None:
    from codistill.specs.printing import dump

    node, _ = parse(dump(value), "x")
    assert node is not None
    problems = validate(node, Root)
    assert len(set(map(str, problems))) == len(problems)
    assert all(problem.mark is not None and "\n" not in str(problem) for problem in problems)
    try:
        Root.model_validate(value)
    except ValueError:
        assert problems
    else:
        assert not problems
