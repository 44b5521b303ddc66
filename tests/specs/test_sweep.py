from __future__ import annotations

from typing import Any, Literal

from codistill.specs.document import validate
from codistill.specs.problems import Problem
from codistill.specs.sweep import expand
from codistill.specs.tree import Node, parse
from pydantic import BaseModel, ConfigDict, Field


class Base(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Inner(Base):
    rate: float = Field(0.1, gt=0)
    layers: list[int] = []


class Root(Base):
    rounds: int = 1
    rule: Literal["mean", "median"] | Inner = "mean"
    inner: Inner = Inner()
    groups: list[Inner] = []
    metrics: list[Literal["accuracy", "loss"]] = []


calls = 0


def check(node: Node) -> list[Problem]:
    global calls
    calls += 1
    return validate(node, Root)


def swept(text: str, limit: int = 1000) -> tuple[list[dict[str, Any]], list[str]]:
    node, problems = parse(text, "x")
    assert node is not None and not problems
    variants, problems = expand(node, check, limit)
    return [variant.choices for variant in variants], [str(problem) for problem in problems]


def test_without_a_list_there_is_one_variant() -> None:
    assert swept("rounds: 2") == ([{}], [])
    assert swept("inner: {layers: [1, 2]}\nmetrics: [accuracy, loss]") == ([{}], [])


def test_axes_multiply_in_document_order() -> None:
    choices, problems = swept("rule: [mean, {rate: 2}]\ninner: {rate: [1, 2]}\ngroups: [{rate: 1}, {rate: [5, 6]}]")
    assert not problems and len(choices) == 8
    assert choices[0] == {"rule": "mean", "inner.rate": 1, "groups[1].rate": 5}
    assert choices[1] == {"rule": "mean", "inner.rate": 1, "groups[1].rate": 6}
    assert choices[-1] == {"rule": {"rate": 2}, "inner.rate": 2, "groups[1].rate": 6}


def test_axes_are_checked_one_by_one() -> None:
    global calls
    calls = 0
    choices, _ = swept("rounds: [1, 2, 3, 4, 5, 6]\nrule: [mean, median]\ninner: {rate: [1, 2, 3, 4, 5]}")
    assert len(choices) == 60 and calls == 1 + 3 + 60


def test_lists_of_lists() -> None:
    assert swept("inner: {layers: [[1], [2, 3]]}")[0] == [{"inner.layers": [1]}, {"inner.layers": [2, 3]}]
    assert swept("inner: {layers: [1, [2, 3]]}")[0] == [{"inner.layers[1]": 2}, {"inner.layers[1]": 3}]


def test_a_choice_may_hold_a_sweep() -> None:
    choices, problems = swept("rule: [mean, {rate: [1, 2]}]")
    assert not problems
    assert [choice.get("rule.rate") for choice in choices] == [None, 1, 2]


def test_a_wrong_choice_is_told_at_its_own_place_once() -> None:
    choices, problems = swept("rounds: [1, x]\ninner: {rate: [1, -2, 3]}")
    assert len(choices) == 6
    assert problems == [
        "x:1:13: rounds: expected a whole number; got 'x'",
        "x:2:19: inner.rate: expected a number above 0; got -2",
    ]


def test_a_wrong_list_is_no_sweep() -> None:
    assert swept("rounds: [x, y]") == ([{}], ["x:1:9: rounds: expected a whole number; got ['x', 'y']"])
    assert swept("rounds: []")[1] == ["x:1:9: rounds: expected a whole number; got []"]
    assert len(swept("metrics: [accuracy, los]")[1]) == 1
    assert len(swept("zzz: [1, 2]")[1]) == 1


def test_a_sweep_has_a_limit() -> None:
    choices, problems = swept("rounds: [1, 2, 3]\ninner: {rate: [1, 2, 3]}", limit=8)
    assert not choices
    assert problems == ["x:1:9: rounds: the sweep has more than 8 variants (rounds: 3 x inner.rate: 3)"]
    assert len(swept("rounds: [1, 2, 3]\ninner: {rate: [1, 2, 3]}", limit=9)[0]) == 9
