from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codistill.tasks.data import DATASETS, PARTITIONERS, Partition, partition_drawn
from hypothesis import given, settings
from hypothesis import strategies as st

Labels = np.ndarray


def divide(name: str, train: Labels, test: Labels, agents: int, seed: int = 0, **parameters: Any) -> Partition:
    entry = PARTITIONERS[name]
    columns = [{"ward": labels // 3} for labels in (train, test)]
    generator = np.random.default_rng(seed)
    return entry.function(entry.parameters(**parameters), train, test, *columns, agents, generator)


def balanced(each: int, classes: int = 10) -> Labels:
    return np.random.default_rng(5).permutation(np.repeat(np.arange(classes), each)).astype(np.int64)


WAYS: dict[str, dict[str, Any]] = {
    "iid": {},
    "dirichlet": {"alpha": 0.5, "min_size": 3},
    "shards": {"classes_per_agent": 4},
    "quantity": {"alpha": 0.5, "min_size": 4},
    "column": {"column": "ward"},
}


def test_every_way_but_given_is_held_to_the_common_rules() -> None:
    assert set(PARTITIONERS.names()) == {*WAYS, "given"}


@pytest.mark.parametrize("name", WAYS)
@given(agents=st.integers(3, 12), each=st.integers(20, 60), seed=st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_every_sample_has_one_holder_and_the_same_seed_gives_the_same(
    name: str, agents: int, each: int, seed: int
) -> None:
    train, test = balanced(each), balanced(8)
    partition = divide(name, train, test, agents, seed, **WAYS[name])
    assert partition.agents == agents
    assert sorted(np.concatenate(partition.train)) == list(range(len(train)))
    assert sorted(np.concatenate(partition.test)) == list(range(len(test)))
    assert min(map(len, partition.train)) >= max(1, WAYS[name].get("min_size", 1))
    assert min(map(len, partition.test)) >= 1
    assert divide(name, train, test, agents, seed, **WAYS[name]).digest() == partition.digest()


@pytest.mark.parametrize("name", [name for name in WAYS if name != "column"])
def test_another_seed_gives_another_partition(name: str) -> None:
    train, test = balanced(30), balanced(8)
    digests = {divide(name, train, test, 6, seed, **WAYS[name]).digest() for seed in range(4)}
    assert len(digests) == 4


@pytest.mark.parametrize("name", WAYS)
def test_test_samples_have_the_classes_of_the_train_samples(name: str) -> None:
    train, test = balanced(200), balanced(100)
    partition = divide(name, train, test, 5, **WAYS[name])
    for ids, test_ids in zip(partition.train, partition.test, strict=True):
        expected = np.bincount(train[ids], minlength=10) / 2
        assert np.abs(np.bincount(test[test_ids], minlength=10) - expected).max() < 6


def test_few_test_samples_are_not_all_given_to_the_first_agents() -> None:
    partition = divide("iid", balanced(100), balanced(2), 20)
    assert [len(ids) for ids in partition.test] == [1] * 20


def test_an_agent_with_few_samples_still_gets_a_test_sample_of_its_own_classes() -> None:
    train, test = balanced(300, 4), balanced(5, 4)
    partition = divide("quantity", train, test, 6, alpha=0.2, min_size=3)
    assert min(map(len, partition.train)) < len(train) / len(test) / 4  # by its proportion it would have none
    for ids, test_ids in zip(partition.train, partition.test, strict=True):
        assert len(test_ids) >= 1
        assert set(test[test_ids]) <= set(train[ids])
    assert len(np.concatenate(partition.test)) == 20


def test_the_partition_of_the_workload_is_met_to_the_bit() -> None:
    dataset = DATASETS["digits20"].function(DATASETS["digits20"].parameters())
    entry = PARTITIONERS["dirichlet"]
    parameters = entry.parameters(alpha=0.5, min_size=64, min_test=4, balance=True, seed=43)
    generator = np.random.default_rng(7)
    partition = entry.function(parameters, dataset.y_train, dataset.y_test, {}, {}, 20, generator)
    assert partition.train_digest() == "045c0b5989e1dae79cb0f17e7b4f3daeea42716278c0ca12e58abc19ceab26c0"
    assert [len(ids) for ids in partition.train][:5] == [298, 221, 323, 317, 458]
    assert [len(ids) for ids in partition.test] == [
        36, 29, 42, 38, 60, 42, 39, 36, 35, 29, 39, 48, 23, 21, 34, 34, 41, 16, 42, 36,
    ]  # fmt: skip
    unseeded = parameters.model_copy(update={"seed": None})
    other = entry.function(unseeded, dataset.y_train, dataset.y_test, {}, {}, 20, generator)
    assert other.train_digest() != partition.train_digest()


def test_a_smaller_alpha_gives_fewer_classes() -> None:
    def classes_held(alpha: float) -> float:
        partition = divide("dirichlet", train, balanced(10), 10, alpha=alpha, min_size=5)
        return float(np.mean([len(np.unique(train[ids])) for ids in partition.train]))

    train = balanced(100)
    assert classes_held(0.1) + 2 < classes_held(100)


def test_balance_holds_the_largest_agent_down() -> None:
    def largest(balance: bool) -> float:
        parts = [
            divide("dirichlet", balanced(100), balanced(10), 5, seed, alpha=0.5, min_size=1, balance=balance)
            for seed in range(10)
        ]
        return float(np.mean([max(map(len, one.train)) for one in parts]))

    assert largest(True) + 30 < largest(False)


@pytest.mark.parametrize(("agents", "alpha"), [(1, 1e-3), (2, 1e-3), (4, 1e6)])
def test_dirichlet_survives_extreme_alphas(agents: int, alpha: float) -> None:
    partition = divide("dirichlet", balanced(100), balanced(10), agents, alpha=alpha, min_size=1, min_test=0)
    assert len(np.concatenate(partition.train)) == 1000


def test_dirichlet_stops_after_its_tries_and_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_drawn, "TRIES", 20)
    with pytest.raises(ValueError, match=r"20 draws .* 10 agents min_size 90 .* lower min_size"):
        divide("dirichlet", balanced(100), balanced(10), 10, alpha=0.05, min_size=90)


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("dirichlet", {"alpha": 1, "min_size": 200}, "each need 2,000, and there are 1,000"),
        ("dirichlet", {"alpha": 1, "min_test": 11}, "lower min_test"),
        ("quantity", {"alpha": 1, "min_size": 101}, "each need 1,010"),
        ("shards", {"classes_per_agent": 11}, "between 1 and 10"),
        ("column", {"column": "hospital"}, "it keeps 'ward'"),
    ],
)
def test_what_cannot_be_is_refused_at_once(name: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        divide(name, balanced(100), balanced(10), 10, **parameters)


def test_iid_sizes_differ_by_at_most_one_and_more_agents_than_samples_are_refused() -> None:
    sizes = [len(ids) for ids in divide("iid", balanced(10), balanced(2), 7).train]
    assert max(sizes) - min(sizes) == 1
    with pytest.raises(ValueError, match="101 agents"):
        divide("iid", balanced(10), balanced(2), 101)


@given(agents=st.integers(2, 30), each=st.integers(1, 10), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_shards_give_exactly_so_many_classes(agents: int, each: int, seed: int) -> None:
    train, test = balanced(60), balanced(10)
    if agents * each < 10:
        with pytest.raises(ValueError, match="classes_per_agent"):
            divide("shards", train, test, agents, seed, classes_per_agent=each)
        return
    partition = divide("shards", train, test, agents, seed, classes_per_agent=each)
    assert {len(np.unique(train[ids])) for ids in partition.train} == {each}
    for ids, test_ids in zip(partition.train, partition.test, strict=True):
        assert set(test[test_ids]) <= set(train[ids])


def test_shards_refuse_a_class_with_too_few_samples() -> None:
    train = np.concatenate([balanced(50), np.full(1, 10)]).astype(np.int64)
    with pytest.raises(ValueError, match="class 10 has 1 train samples"):
        divide("shards", train, balanced(5, 11), 20, classes_per_agent=2)


@pytest.mark.parametrize("agents", [4, 9])
def test_column_gives_an_agent_samples_of_one_value(agents: int) -> None:
    train, test = balanced(30), balanced(5)  # four wards of 3, 3, 3 and 1 classes
    partition = divide("column", train, test, agents, column="ward")
    wards = [np.unique(train[ids] // 3).tolist() for ids in partition.train]
    assert all(len(ward) == 1 for ward in wards)
    assert wards == sorted(wards)
    assert {ward[0] for ward in wards} == {0, 1, 2, 3}
    for ward, ids in zip(wards, partition.test, strict=True):
        assert set(test[ids] // 3) == set(ward)


def test_column_puts_values_together_for_fewer_agents() -> None:
    train, test = balanced(30), balanced(5)
    partition = divide("column", train, test, 2, seed=1, column="ward")
    wards = [set((train[ids] // 3).tolist()) for ids in partition.train]
    assert wards == [{0, 2}, {1, 3}]  # 90 + 90 and 90 + 30
    again = divide("column", train, test, 2, seed=2, column="ward")
    assert again.train_digest() == partition.train_digest()  # nothing is drawn where a value has one agent


def test_column_evens_out_sizes_when_it_puts_values_together() -> None:
    train = np.repeat([0, 3, 6, 9], [100, 40, 30, 30]).astype(np.int64)  # wards of these sizes
    partition = divide("column", train, balanced(5), 2, column="ward")
    assert [len(ids) for ids in partition.train] == [100, 100]


def test_test_samples_of_an_unknown_value_are_left_out() -> None:
    train, test = balanced(30, 6), balanced(5, 9)
    partition = divide("column", train, test, 2, column="ward")
    train_left, test_left = partition.left_out(len(train), len(test))
    assert len(train_left) == 0
    assert set(test[test_left]) == {6, 7, 8}


def test_digests_are_what_the_workload_says() -> None:
    partition = Partition(
        (np.array([3, 1]), np.array([2])), (np.array([0], dtype=np.int64), np.array([], dtype=np.int64))
    )
    assert partition.train_digest() == hashlib.sha256(np.array([3, 1, 2], dtype=np.int64).tobytes()).hexdigest()
    content = np.array([3, 1, 2, 0, 2, 3, 0, 0, 1, 1], dtype=np.int64)
    assert partition.digest() == hashlib.sha256(content.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ((np.array([0, 1]), np.array([1])), "train sample 1 is given out 2 times"),
        ((np.array([0]),), "1 train parts and 2 test parts"),
        ((np.array([0.0]), np.array([1.0])), "int64"),
        ((np.array([0]), np.array([-1])), "0 or more"),
    ],
)
def test_a_wrong_partition_is_refused(train: tuple[np.ndarray, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Partition(train, (np.array([0]), np.array([1])))


def test_positions_are_looked_up_in_a_selection() -> None:
    partition = Partition((np.array([0]), np.array([2, 1])), (np.array([0]), np.array([1])))
    moved = partition.within(np.array([10, 20, 30]))
    assert [ids.tolist() for ids in moved.train] == [[10], [30, 20]]
    assert [ids.tolist() for ids in moved.test] == [[0], [1]]


@pytest.mark.parametrize("ending", [".json", ".npz"])
@pytest.mark.parametrize("with_test", [True, False])
def test_given_takes_what_a_file_states(tmp_path: Path, ending: str, with_test: bool) -> None:
    train, test, path = balanced(10), balanced(4), tmp_path / f"parts{ending}"
    stated = {"train": [[5, 3], [7, 99, 0]], "test": [[2], [0, 1]]}
    if ending == ".json":
        path.write_text(json.dumps(stated if with_test else {"train": stated["train"]}))
    else:
        arrays = {"train_idx": [5, 3, 7, 99, 0], "train_off": [0, 2, 5], "test_idx": [2, 0, 1], "test_off": [0, 1, 3]}
        np.savez(path, **{name: value for name, value in arrays.items() if with_test or "train" in name})
    partition = divide("given", train, test, 2, path=str(path))
    assert [ids.tolist() for ids in partition.train] == stated["train"]
    if with_test:
        assert [ids.tolist() for ids in partition.test] == stated["test"]
        assert len(partition.left_out(100, 40)[0]) == 95
    else:
        assert len(np.concatenate(partition.test)) == 40


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"train": [[0], [0]]}', "given out 2 times"),
        ('{"train": [[0], [1000]]}', "agent 1 the train samples 1000"),
        ('{"train": [[0], [-1]]}', "agent 1 the train samples -1"),
        ('{"train": [[0]]}', "states 1 agents, the spec 2"),
        ('{"train": [[0], []]}', "agent 1 no train samples"),
        ('{"train": [[0], [1.5]]}', "whole numbers"),
        ('{"test": []}', "train"),
        ("not json", "cannot be read"),
    ],
)
def test_given_refuses_a_file_that_does_not_fit(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "parts.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=said):
        divide("given", balanced(10), balanced(4), 2, path=str(path))
