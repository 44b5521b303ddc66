from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from codistill.specs.document import Loaded, load
from codistill.specs.problems import Problem, SpecError
from codistill.specs.tree import Node, at, locate, parse, replaced
from pydantic import BaseModel, ConfigDict

RECIPES = {"one": "[{train: {epochs: 1}}]", "two": "[{train: {epochs: 2}}, {absorb: {temperature: 3}}]"}


class Base(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Train(Base):
    epochs: int


class Absorb(Base):
    temperature: float


class Step(Base):
    train: Train | None = None
    absorb: Absorb | None = None


class Root(Base):
    name: str
    rounds: int = 1
    recipe: list[Step]


def use(node: Node) -> tuple[Node, list[Problem]]:
    name = at(node, ("recipe", "use"))
    if name is None:
        return node, []
    if not isinstance(name.value, str) or name.value not in RECIPES:
        return node, [Problem(locate(node, ("recipe", "use")), "recipe.use", "expected the name of a recipe")]
    recipe, _ = parse(RECIPES[name.value], f"{name.value}.yaml")
    assert recipe is not None
    return replaced(node, ("recipe",), recipe), []


def loaded(folder: Path, text: str, *overrides: str, **options: Any) -> list[Loaded[Root]]:
    file = folder / "x.yaml"
    file.write_text(text)
    return load(file, Root, overrides, use, late_prefixes=("recipe",), early_prefixes=("recipe.use",), **options)


def told(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        loaded(folder, text, *overrides)
    return [str(problem).removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_a_spec_is_loaded(tmp_path: Path) -> None:
    (spec,) = loaded(tmp_path, "name: a\nrecipe: {use: two}\n", "rounds=4", "recipe.train.epochs=9")
    assert spec.value.rounds == 4 and spec.choices == {}
    assert spec.value.recipe == [Step(train=Train(epochs=9)), Step(absorb=Absorb(temperature=3))]
    assert locate(spec.node, ("recipe", 1, "absorb", "temperature")).file == "two.yaml"


def test_overrides_before_and_after_the_transform(tmp_path: Path) -> None:
    text = "name: a\nrecipe: {use: two}\n"
    (spec,) = loaded(tmp_path, text, "recipe.train.epochs=7", "recipe.use=one")
    assert spec.value.recipe == [Step(train=Train(epochs=7))]
    (spec,) = loaded(tmp_path, text, "recipe=[{train: {epochs: 5}}]")
    assert spec.value.recipe == [Step(train=Train(epochs=5))]


def test_sweeps_before_and_after_the_transform(tmp_path: Path) -> None:
    text = "name: a\nrounds: [1, 2]\nrecipe: {use: [one, two]}\n"
    specs = loaded(tmp_path, text, "recipe.train.epochs=[3, 4]")
    assert len(specs) == 8
    assert specs[-1].choices == {"recipe.use": "two", "rounds": 2, "recipe[0].train.epochs": 4}
    assert [len(spec.value.recipe) for spec in specs] == [1] * 4 + [2] * 4
    with pytest.raises(SpecError, match="more than"):
        loaded(tmp_path, text, limit=3)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    text = "nam: a\nrounds: x\nrounds: 2\nrecipe: {use: two}\n"
    assert told(tmp_path, text, "recipe.absorb.temprature=1", "rounds.x=3", "=4", "recipe.train.epochs=one") == [
        "--set =4:1:1: expected a key; an assignment is path=value, such as rounds=3",
        "--set recipe.absorb.temprature=1:1:1: recipe[1].absorb.temprature: unknown key; expected temperature; "
        "did you mean 'temperature'?",
        "--set recipe.train.epochs=one:1:21: recipe[0].train.epochs: expected a whole number; got 'one'",
        "--set rounds.x=3:1:1: rounds: there is nothing inside 'x'; set rounds as a whole",
        "x.yaml:1:1: nam: unknown key; expected one of name, recipe, rounds; did you mean 'name'?",
        "x.yaml:3:1: rounds: the key 'rounds' is here twice (first in line 2)",
    ]


def test_a_failed_transform_is_told_once(tmp_path: Path) -> None:
    text = "name: a\nrounds: x\nrecipe: {use: three}\n"
    assert told(tmp_path, text) == [
        "x.yaml:2:9: rounds: expected a whole number; got 'x'",
        "x.yaml:3:15: recipe.use: expected the name of a recipe",
    ]


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    for path, hint in ((tmp_path / "fedmdd.yaml", "fl/fedmd"), (Path("fl/fedmdd"), "fl/fedmd"), (Path("zzz"), None)):
        with pytest.raises(SpecError) as caught:
            load(path, Root, candidates=["fl/fedmd", "fl/feddf"])
        assert str(caught.value) == f"{path}:1:1: there is no such file" + (f"; did you mean {hint!r}?" if hint else "")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert told(tmp_path, "a: [", "b")[0].startswith("--set b:1:2: expected '='")
