"""What docs/fidelity.md compares is what it says. What the runs reach is not tested here: they take an hour."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from codistill.specs.load import load_specs
from codistill.specs.problems import SpecError
from codistill.tests.benchmarks import fidelity, markers
from codistill.tests.benchmarks.protocols import PATHOLOGICAL, PROTOCOLS, Method, Protocol, as_long, two_classes_each

LABELS = np.repeat(np.arange(10), 120)[np.random.default_rng(0).permutation(1200)]


def loaded(name):
    protocol = PROTOCOLS[name]
    partition = "{by: iid}" if protocol.partition == PATHOLOGICAL else protocol.partition
    return {label: one.value for label, one in fidelity.specs(name, protocol, partition, []).items()}


def test_the_pathological_partition_is_that_of_the_leaderboard():
    parts = two_classes_each(LABELS, np.random.default_rng(3))
    assert len(parts) == 20
    every = np.concatenate(parts)
    assert sorted(every) == list(range(1200))
    for agent, ids in enumerate(parts):
        pair = agent // 4 * 2
        counts = np.bincount(LABELS[ids], minlength=10)
        assert set(np.flatnonzero(counts)) == {pair, pair + 1}
        if agent % 4 < 3:  # the fourth has the rest
            assert 3 <= counts[pair] < 30 and 3 <= counts[pair + 1] < 30
        else:
            assert counts[pair] >= 30 and counts[pair + 1] >= 30
    again = two_classes_each(LABELS, np.random.default_rng(4))
    assert any(len(one) != len(other) for one, other in zip(parts, again, strict=True))


@pytest.mark.parametrize("name", [name for name in PROTOCOLS if name.startswith("pfllib")])
def test_every_run_of_the_leaderboard_has_its_settings(name):
    for label, spec in loaded(name).items():
        (step,) = [step.parameters for step in spec.recipe.round if step.name == "train"]
        assert (step.epochs, step.batch, step.optimizer.parameters.lr) == (1, 10, 0.005)
        assert [(group.count, group.model.name) for group in spec.agents] == [(20, "fedavg-cnn")]
        assert spec.measure.predict == ("prototypes" if label in ("FedProto", "FedTGP") else "classifier")
        assert spec.participation.share == 1
        assert spec.data.take.train / (spec.data.take.train + spec.data.take.test) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize(
    ("inquiry", "usual", "changed"),
    [
        ("more-samples", "pfllib-pathological", {"name", "rounds", "data.take"}),
        ("other-draw", "pfllib-dirichlet", {"name", "seed"}),
        ("more-rounds", "pfllib-dirichlet", {"name", "rounds", "data.take"}),
        ("all-samples", "pfllib-dirichlet", {"name", "rounds", "data.take"}),
        ("faster", "pfllib-dirichlet", {"name", "recipe.train.optimizer"}),
        ("faster-prototypes", "pfllib-dirichlet", {"name", "rounds", "data.take", "recipe.train.optimizer"}),
        ("faster-pathological", "pfllib-pathological", {"name", "rounds", "data.take", "recipe.train.optimizer"}),
        ("faster-and-more", "pfllib-dirichlet", {"name", "rounds", "data.take", "recipe.train.optimizer"}),
    ],
)
def test_an_inquiry_changes_what_it_says_and_nothing_else(inquiry, usual, changed):
    for label, method in PROTOCOLS[inquiry].methods.items():
        as_usual = PROTOCOLS[usual].methods
        assert method in (as_usual[label], as_long(as_usual)[label])
        one, other = (  # what is said twice is meant the second time
            dict(said.split("=", 1) for said in fidelity.overrides(name, PROTOCOLS[name], method, "{by: iid}"))
            for name in (inquiry, usual)
        )
        assert {key for key in one if one[key] != other[key]} == changed and one.keys() == other.keys()
    for spec in loaded(inquiry).values():
        (step,) = [step.parameters for step in spec.recipe.round if step.name == "train"]
        assert step.optimizer.parameters.lr == (0.05 if inquiry.startswith("faster") else 0.005)


@pytest.mark.parametrize("name", ["fedcache-mnist-cnn", "fedcache-fashion-cnn", "fedcache-mnist"])
def test_every_run_of_fedcaches_protocol_has_its_settings(name):
    for spec in loaded(name).values():
        (step,) = [step.parameters for step in spec.recipe.round if step.name == "train"]
        sgd = step.optimizer.parameters
        assert (step.epochs, step.batch, step.drop_last) == (1, 8, True)
        assert (sgd.lr, sgd.momentum, sgd.weight_decay) == (0.01, 0.9, 5e-4)
        assert [(group.count, group.model.name) for group in spec.agents] == [
            (20, "cnn" if name.endswith("cnn") else "resnet")
        ]
        assert spec.data.partition.alpha == 1.0


def test_a_spec_that_is_wrong_is_refused():
    said = fidelity.overrides("x", PROTOCOLS["fedcache-mnist"], Method("fedcache", said=("rounds=none",)), "{by: iid}")
    with pytest.raises(SpecError, match="rounds"):
        load_specs("fl/fedcache", said)


def test_a_table_shows_what_is_there_and_what_is_not():
    methods = {"local": Method("local"), "FD": Method("fd", "97.43 ± 0.04", 97.43), "FedGen": Method("fedgen", "80.00")}
    protocol = Protocol("mnist", "{by: iid}", 2, (), methods)
    reached = {
        "local": fidelity.Found(96.0, 2, 95.0, 3, 0),
        "FD": fidelity.Found(97.0, 1, 94.25, 3, 2048),
        "FedGen": None,
    }
    lines = fidelity.write_table(protocol, reached).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:5]]
    assert cells[0][:6] == ["local", "–", "96.00 (2)", "95.00", "–", "–"]
    assert cells[1][:7] == ["FD", "97.43 ± 0.04", "97.00 (1)", "94.25", "+1.00", "-0.43", "3"]
    assert cells[2][:4] == ["FedGen", "80.00", "not run", ""]


class Rounds:
    """Enough of a run's results: three rounds after the zeroth."""

    def accuracy_by_round(self):
        class At:
            def __init__(self, number, total, mean):
                self.round, self.total, self.mean = number, total, mean

        return [At(0, 0.99, 0.99), At(1, 0.7, 0.6), At(2, 0.8, 0.5), At(3, 0.8, 0.4)]

    def bytes_by_round(self):
        return {1: 10, 2: 10, 3: 10}


def test_the_best_round_is_the_first_of_the_best_and_never_the_zeroth():
    assert fidelity.found(Rounds(), "total") == fidelity.Found(pytest.approx(80), 2, pytest.approx(80), 3, 30)
    assert fidelity.found(Rounds(), "mean") == fidelity.Found(pytest.approx(60), 1, pytest.approx(40), 3, 30)


def test_the_partition_file_states_everybodys_samples(tmp_path, monkeypatch):
    class Held:
        y_train = LABELS

    monkeypatch.setattr(fidelity, "hold", lambda *said: Held())
    text = fidelity.partition_of("x", PROTOCOLS["pfllib-pathological"], tmp_path, [])
    path = re.search(r'"(.+)"', text)[1]
    stated = json.loads(Path(path).read_text(encoding="utf-8"))
    assert sorted(sum(stated["train"], [])) == list(range(1200)) and "test" not in stated
    assert fidelity.partition_of("x", PROTOCOLS["pfllib-dirichlet"], tmp_path, []).startswith("{by: dirichlet")


def test_the_document_has_the_markers_and_names_tests_that_exist():
    text = fidelity.DOCUMENT.read_text(encoding="utf-8")
    for name in PROTOCOLS:
        assert f"new {name}" in markers.between(text, name, f"new {name}")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 10
    for path, test in named:
        assert f"def {test}(" in (fidelity.ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"
