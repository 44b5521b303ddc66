"""Public samples that are those of another data set."""

import numpy as np
import pytest
from codistill.flows.holdings import hold
from codistill.specs.load import load_mapping
from codistill.specs.problems import SpecError
from codistill.tasks.data.dataset import DataError, Dataset
from codistill.tasks.data.public import PUBLIC, with_public


def made(name, train, test, labels=("a", "b"), shape=(3,), seed=0):
    draw = np.random.default_rng(seed)
    return Dataset(
        name,
        draw.random((train, *shape), dtype=np.float32),
        draw.integers(0, len(labels), train),
        draw.random((test, *shape), dtype=np.float32),
        draw.integers(0, len(labels), test),
        labels,
        {"ward": np.array(["x"] * train)},
        {"ward": np.array(["x"] * test)},
    )


def test_they_come_first_and_are_marked():
    private, public = made("private", 7, 4), made("public", 5, 2, seed=1)
    both = with_public(private, public)
    assert (both.x_train[:5] == public.x_train).all() and (both.x_train[5:] == private.x_train).all()
    assert (both.y_train[:5] == public.y_train).all() and (both.y_train[5:] == private.y_train).all()
    assert (both.x_test == private.x_test).all(), "nothing is tested on what everybody sees"
    assert both.columns_train[PUBLIC].tolist() == [True] * 5 + [False] * 7
    assert both.columns_train["ward"].tolist() == [""] * 5 + ["x"] * 7


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (made("public", 5, 2, labels=("a", "c")), "public: its classes are a, c, and those of private are a, b"),
        (made("public", 5, 2, shape=(4,)), r"public: a sample has the shape \(4,\), and one of private \(3,\)"),
    ],
)
def test_of_other_classes_or_shapes_they_are_refused(other, sentence):
    with pytest.raises(DataError, match=sentence):
        with_public(made("private", 7, 4), other)


def spec(**public):
    return {
        "name": "p",
        "rounds": 1,
        "data": {"dataset": "digits", "partition": {"by": "iid"}, "take": {"train": 60, "test": 20}, "public": public},
        "agents": [{"name": "a", "count": 3, "model": "linear"}],
        "recipe": "fedmd",
    }


def test_everybody_holds_them_and_nobody_alone(tmp_path):
    (loaded,) = load_mapping(spec(dataset="digits"))
    for _ in range(2):  # read, and then found again as it was prepared
        held = hold(loaded.value, tmp_path)
        assert len(held.data.y_train) == len(held.public) + 60
        assert held.public.tolist() == list(range(len(held.public)))
        assert min(ids.min() for ids in held.partition.train) == len(held.public)
        assert sum(map(len, held.partition.train)) == 60 and sum(map(len, held.partition.test)) == 20
    assert hold(load_mapping(spec(share=0.5))[0].value, tmp_path).folder != held.folder


@pytest.mark.parametrize("public", [{}, {"share": 0.2, "dataset": "digits"}])
def test_they_come_from_one_place(public):
    with pytest.raises(SpecError, match="expected either `share`, of the training samples, or `dataset`"):
        load_mapping(spec(**public))
