"""Shipped specs and what ``--set`` may say about them."""

from __future__ import annotations

import pytest
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError


def test_a_path_into_a_recipe_may_leave_out_round():
    (short,) = load_specs("fl/fd", ["recipe.train.epochs=3"])
    (full,) = load_specs("fl/fd", ["recipe.round.train.epochs=3"])
    assert short.value == full.value
    assert next(step for step in short.value.recipe.round if step.name == "train").parameters.epochs == 3


def test_a_mistake_in_an_override_is_quoted_as_it_was_typed():
    with pytest.raises(SpecError) as caught:
        load_specs("fl/fd", ["recipe.train.epoch=3", "name=a b"])
    unknown, name = sorted(map(str, caught.value.problems), reverse=True)
    assert unknown.startswith("--set recipe.train.epoch=3:1:1: recipe.round[1].train.epoch: unknown key")
    assert "did you mean 'epochs'?" in unknown
    assert "expected a name of at most 64 letters, digits, dots, dashes and underscores" in name
