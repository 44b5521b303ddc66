from __future__ import annotations

from typing import Any

import pytest
from codistill.specs.override import apply, parse_assignment
from codistill.specs.problems import Mark, SpecError
from codistill.specs.tree import Node, at, locate, parse, plain
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = """\
seed: 1
data: {partition: {by: iid}}
agents:
  - {name: phone, count: 12}
  - {name: laptop, count: 8}
recipe:
  - train: {epochs: 1}
  - extract: {knowledge: logits}
  - train: {epochs: 2}
with: {absorb.temperature: 2}
empty:
"""


def tree() -> Node:
    node, _ = parse(TEXT, "x.yaml")
    assert node is not None
    return node


def changed(*texts: str) -> tuple[Any, list[str]]:
    node, problems = apply(tree(), [parse_assignment(text) for text in texts])
    return plain(node), [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=2", ("seed",), 2),
        ("agents[0].count=3", ("agents", 0, "count"), 3),
        ("agents.1.count=3", ("agents", 1, "count"), 3),
        ("agents.phone.count=[1, 2]", ("agents", 0, "count"), [1, 2]),
        ("recipe.train[1].epochs=9", ("recipe", 2, "train", "epochs"), 9),
        ("recipe.train.1.epochs=9", ("recipe", 2, "train", "epochs"), 9),
        ("recipe.extract.from=public", ("recipe", 1, "extract", "from"), "public"),
        ("recipe.extract={a: on}", ("recipe", 1, "extract"), {"a": "on"}),
        ("data.public.share=0.2", ("data", "public", "share"), 0.2),
        ("with.absorb.temperature=4", ("with", "absorb.temperature"), 4),
        ('with."a.b"=1e-3', ("with", "a.b"), 1e-3),
        ("empty.x.y=1", ("empty", "x", "y"), 1),
        ("cite=a=b", ("cite",), "a=b"),
        ("seed=", ("seed",), None),
    ],
)
def test_a_value_is_put_in_its_place(text: str, path: tuple[str | int, ...], value: object) -> None:
    node, problems = apply(tree(), [parse_assignment(text)])
    found = at(node, path)
    assert not problems and found is not None and plain(found) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed.x=1", "seed: there is nothing inside 1; set seed as a whole"),
        ("agents[2].count=1", "agents: there is no [2]: the list has 2 elements"),
        ("agents.phon.count=1", "expected one of phone, laptop; did you mean 'phone'?"),
        ("recipe.train.epochs=1", "2 elements of this list are named 'train'; say which one: train[0], train[1]"),
        ("recipe.train[2].epochs=1", "there is no train[2]: 2 named 'train'"),
        ("data.new[0]=1", "data.new: there is no list here"),
        ("data[0]=1", "data: there is no 0 in this mapping"),
    ],
)
def test_a_place_that_cannot_be(text: str, message: str) -> None:
    value, problems = changed(text)
    assert value == plain(tree())
    assert len(problems) == 1 and message in problems[0] and problems[0].startswith(f"--set {text}:1:1: ")


def test_all_problems_and_all_values() -> None:
    value, problems = changed("seed.x=1", "seed=7", "agents[9]=1")
    assert value["seed"] == 7 and len(problems) == 2


@pytest.mark.parametrize(
    "text", ["", "=1", "seed", "a..b=1", "a[x]=1", "a[0=1", '"a=1', "a=[1", "a=!x y", "a={b: 1, b: 2}"]
)
def test_what_is_no_assignment(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_assignment(text)
    assert str(caught.value).startswith(f"--set {text}:1:")


def test_marks_point_into_the_assignment() -> None:
    node, _ = apply(tree(), [parse_assignment("a.b=[1, x]"), parse_assignment("seed=5")])
    assert locate(node, ("a", "b", 1)) == Mark("--set a.b=[1, x]", 1, 9)
    assert locate(node, ("a", "b"), key=True) == Mark("--set a.b=[1, x]", 1, 1)
    assert locate(node, ("seed",), key=True) == Mark("x.yaml", 1, 1)


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=20)
    | st.from_regex(r'((seed|agents|recipe|train|phone|"x"|[0-3])[.\[\]]{0,2}){1,4}=[0-9a{]?', fullmatch=True)
)
def test_any_text_is_applied_or_answered(text: str) -> None:
    try:
        assignment = parse_assignment(text)
    except SpecError as error:
        assert error.problems
        return
    apply(tree(), [assignment])
