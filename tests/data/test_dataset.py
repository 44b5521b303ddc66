from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from codistill.tasks.data import DATASETS, DataError, Dataset, data_root, split_public, take
from codistill.tasks.data.dataset import scaled
from codistill.tasks.data.stratify import apportion, split_test
from hypothesis import given, settings
from hypothesis import strategies as st


def made_up(samples: int = 40, classes: int = 4) -> Dataset:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(2 * samples, 3)).astype(np.float32)
    y = np.arange(2 * samples, dtype=np.int64) % classes
    columns = {"ward": np.array(["north", "south"])[y % 2]}
    return Dataset(
        "made-up", x[:samples], y[:samples], x[samples:], y[samples:], tuple("abcdefgh"[:classes]),
        {"ward": columns["ward"][:samples]}, {"ward": columns["ward"][samples:]},
    )  # fmt: skip


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = (
        "import sys, codistill.tasks.data\n"
        "print([name for name in ('torch', 'sklearn', 'pandas', 'h5py', 'PIL', 'pyarrow') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_arrays_are_read_only_and_the_shape_is_that_of_one_sample() -> None:
    given_x = made_up().x_train.copy()
    dataset = replace(made_up(), x_train=given_x)
    assert (dataset.classes, dataset.input_shape) == (4, (3,))
    with pytest.raises(ValueError, match="read-only"):
        dataset.x_train[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        dataset.columns_test["ward"][0] = "east"
    given_x[0] = 0  # the caller's own array stays writable


def test_the_digest_follows_the_content_and_not_the_name() -> None:
    dataset = made_up()
    assert replace(dataset, name="other").digest() == dataset.digest() == made_up().digest()
    changed = dataset.x_test.copy()
    changed[-1, -1] += 1
    y = dataset.y_train.copy()
    y[0] = 1
    others = [
        replace(dataset, x_test=changed),
        replace(dataset, y_train=y),
        replace(dataset, labels=("a", "b", "c", "z")),
        replace(dataset, columns_train={"ward": dataset.columns_train["ward"][::-1].copy()}),
        replace(dataset, x_train=dataset.x_train[:, :, None], x_test=dataset.x_test[:, :, None]),
    ]
    assert len({one.digest() for one in [dataset, *others]}) == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x_train": np.zeros((40, 3))}, "float64"),
        ({"y_test": np.zeros(40, dtype=np.int32)}, "int32"),
        ({"y_train": np.zeros(39, dtype=np.int64)}, r"\(39,\)"),
        ({"y_train": np.full(40, 4, dtype=np.int64)}, "4 labels"),
        ({"x_test": np.zeros((40, 2), dtype=np.float32)}, "test sample"),
        ({"columns_train": {"ward": np.array([None] * 40)}}, "'ward'"),
        ({"columns_test": {}}, "columns"),
        ({"x_train": np.zeros((0, 3), dtype=np.float32), "y_train": np.zeros(0, dtype=np.int64)}, "no samples"),
    ],
)
def test_a_wrong_data_set_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        replace(made_up(), **change)


def test_pixels_are_scaled_to_minus_one_to_one() -> None:
    values = scaled(np.arange(256, dtype=np.uint8))
    assert values.dtype == np.float32
    assert (values[0], values[255]) == (-1, 1)
    np.testing.assert_allclose(values, (np.arange(256) / 255 - 0.5) / 0.5, atol=1e-7)


def test_the_data_root_is_what_is_given_then_the_environment_then_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODISTILL_DATA", "/from/environment")
    assert data_root("/given") == Path("/given")
    assert data_root() == Path("/from/environment")
    monkeypatch.delenv("CODISTILL_DATA")
    assert data_root() == Path(os.path.expanduser("~/.cache/codistill/data"))


def test_every_source_has_a_sentence_and_described_parameters() -> None:
    names = {"digits", "digits20", "mnist", "fashion-mnist", "cifar10", "usps", "folder", "table", "callable"}
    assert set(DATASETS.names()) >= names
    for entry in DATASETS:
        assert len(entry.sentence) > 20
        assert "source of data" not in entry.sentence  # the class's docstring instead of the source's
        assert all(field.description for field in entry.parameters.model_fields.values()), entry.name


def test_take_keeps_the_share_of_every_class_and_the_columns() -> None:
    dataset = made_up(100, 4)
    small = take(dataset, 20, 8, np.random.default_rng(3))
    assert np.bincount(small.y_train).tolist() == [5, 5, 5, 5]
    assert np.bincount(small.y_test).tolist() == [2, 2, 2, 2]
    rows = [int(np.flatnonzero((dataset.x_train == row).all(axis=1))[0]) for row in small.x_train]
    assert rows == sorted(set(rows))
    assert (small.columns_train["ward"] == dataset.columns_train["ward"][rows]).all()
    assert (small.y_train == dataset.y_train[rows]).all()


def test_take_keeps_a_rare_class() -> None:
    dataset = replace(made_up(100, 4), y_train=np.array([0] * 97 + [1, 2, 3]))
    assert np.bincount(take(dataset, 10, None, np.random.default_rng(0)).y_train).tolist() == [7, 1, 1, 1]


def test_take_is_deterministic_and_none_takes_all() -> None:
    dataset = made_up()
    first, second, other = (take(dataset, 10, None, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.digest() == second.digest() != other.digest()
    assert len(first.y_test) == 40
    assert take(dataset, None, None, np.random.default_rng(1)).digest() == dataset.digest()
    with pytest.raises(ValueError, match="41 samples"):
        take(dataset, 41, None, np.random.default_rng(1))


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(lambda one: sum(one) > 0),
    total=st.integers(0, 1000),
)
@settings(max_examples=50, deadline=None)
def test_apportion_sums_to_the_total_and_is_off_by_less_than_one(weights: list[float], total: int) -> None:
    counts = apportion(np.array(weights), total)
    assert counts.sum() == total
    assert np.abs(counts - np.array(weights) / sum(weights) * total).max() < 1 + 1e-6


@given(
    labels=st.lists(st.integers(0, 5), min_size=4, max_size=120).map(lambda one: np.array(one, dtype=np.int64)),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 1000),
)
@settings(max_examples=50, deadline=None)
def test_public_and_private_are_disjoint_complete_and_stratified(labels: np.ndarray, share: float, seed: int) -> None:
    total = round(share * len(labels))
    if not 0 < total < len(labels):
        with pytest.raises(ValueError, match="at least one"):
            split_public(labels, share, np.random.default_rng(seed))
        return
    public, private = split_public(labels, share, np.random.default_rng(seed))
    assert len(public) == total
    assert sorted([*public, *private]) == list(range(len(labels)))
    assert public.dtype == private.dtype == np.int64
    again, _ = split_public(labels, share, np.random.default_rng(seed))
    assert (again == public).all()
    counts = np.bincount(labels[public], minlength=6)
    assert np.abs(counts - share * np.bincount(labels, minlength=6)).max() < 6
    if total >= len(np.unique(labels)):
        assert (counts[np.unique(labels)] > 0).all()


def test_the_test_split_leaves_both_sides_something() -> None:
    train, test = split_test(np.array([0, 1], dtype=np.int64), 0.01)
    assert (len(train), len(test)) == (1, 1)
