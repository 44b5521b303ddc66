"""What docs/fkge.md compares is what it says. What the runs reach is not tested here: they take an hour."""

from __future__ import annotations

import pytest
import torch
from codistill.flows.drive import run_plainly
from codistill.flows.finish import finish
from codistill.flows.launch import launch
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.specs.load import load_specs
from codistill.tests.benchmarks import fkge, fkge_forgetting
from codistill.tests.benchmarks.fkge_measured import METRICS, Reached, collective, reached
from codistill.tests.benchmarks.fkge_protocols import EVENLY, METHODS, PATTERNS, PROTOCOLS

torch.set_num_threads(1)


def spec_of(name, label, pattern="pattern=distributed", more=()):
    (loaded,) = load_specs(str(fkge.SPEC), [*PROTOCOLS[name].overrides(name, label, pattern, 1), *more])
    return loaded.value


def trainings(spec):
    return [step.parameters for step in spec.recipe.round if step.name == "train"]


def test_every_recipe_over_graphs_is_in_the_table_of_all():
    shipped = (fkge.ROOT / "specs" / "recipes").glob("*.yaml")
    over_graphs = {path.stem for path in shipped if "by: triples" in path.read_text(encoding="utf-8")}
    assert {METHODS[label].recipe for label in PROTOCOLS["codex"].methods} == over_graphs - {"fedlu-unlearning"}
    assert PROTOCOLS["codex"].patterns and {*PATTERNS} == {"star", "tree", "peers"}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_method_trains_as_often_and_in_the_same_way(name):
    protocol = PROTOCOLS[name]
    for label in protocol.methods:
        spec = spec_of(name, label, next(iter(METHODS[label].pattern.values())))
        (training,) = trainings(spec)
        assert {key: getattr(training, key) for key in protocol.train} == protocol.train
        assert (spec.rounds, spec.seed, spec.data.dataset.name) == (protocol.rounds, 1, protocol.dataset)
        assert spec.agents[0].count == (1 if label == "collective" else protocol.clients)
        assert spec.agents[0].model.parameters.margin == protocol.margin
        assert spec.measure.control == "none"  # the row `local` is the control of all


def test_a_gain_is_taken_over_the_same_clients_alone():
    for label, method in METHODS.items():
        if method.against is not None:
            alone, mine = METHODS[method.against], method
            assert alone.recipe == "local-kge" and alone.against is None, label
            assert (alone.width, alone.partition) == (mine.width, mine.partition), label
    dealt = {METHODS[label].partition for label in PROTOCOLS["codex"].methods}
    assert dealt == {None, EVENLY}


MADE_UP = Reached({"mrr": {"a": 0.5, "b": 0.2}, "hits_at_1": {"a": 1, "b": 0}}, {"a": 30, "b": 10}, {1: 0.4}, 7, 2.0)
ALONE = Reached({"mrr": {"a": 0.1, "b": 0.3}}, {"a": 30, "b": 10}, {1: 0.1}, 0, 1.0)


def test_clients_weigh_as_their_test_triples_and_gains_are_means_over_clients():
    assert MADE_UP.weighted("mrr") == pytest.approx((30 * 0.5 + 10 * 0.2) / 40)
    assert MADE_UP.weighted("hits_at_1") == pytest.approx(0.75)
    assert fkge.gains(MADE_UP, ALONE) == pytest.approx([0.4, -0.1])
    assert fkge.several([0.15], sign="+") == "+0.150"
    assert fkge.several([-0.1], sign="+") == "−0.100"
    assert fkge.several([1.0, 3.0], digits=1) == "2.0 ± 12.7"


def made_up_graph(folder):
    """Write 20 entities in a ring with 4 relations, cut into three parts."""
    lines = [f"e{i:02}\tr{k}\te{(i + k) % 20:02}" for i in range(20) for k in range(1, 5)]
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(1)).tolist()
    for name, chosen in {"test": order[:15], "valid": order[15:25], "train": order[25:]}.items():
        (folder / f"{name}.txt").write_text("".join(lines[i] + "\n" for i in sorted(chosen)))
    return [f"data.dataset={{triples: {{path: {folder}}}}}", "rounds=2", "recipe.train.batch=16"]


def done(spec, runs):
    ready = launch(spec, runs)
    session = open_session(ready.folder, Here())
    run_plainly(session, SilentProgress())
    finish(ready.folder, session.plan, None)
    return ready


def test_all_triples_together_are_ranked_for_each_client_as_it_ranks(tmp_path):
    more = made_up_graph(tmp_path)
    ready = done(spec_of("codex", "collective", more=more), tmp_path / "runs")
    own = reached(ready.folder.path)
    # One client that holds everything ranks as the one agent does.
    same = collective(ready, spec_of("codex", "local", more=[*more, "agents[0].count=1"]), ["client-1"], tmp_path / "r")
    for metric in METRICS:
        assert same.weighted(metric) == pytest.approx(own.weighted(metric), abs=1e-12)
    (ready.folder.path / "by-client.json").unlink()
    spec = spec_of("codex", "local", more=[*more, "agents[0].count=2"])
    two = collective(ready, spec, ["client-1", "client-2"], tmp_path / "r")
    assert sum(two.weights.values()) == 15 and len(two.values["mrr"]) == 2
    # Both hold all entities here, and relations are apart: the same ranks, by client.
    assert two.weighted("mrr") == pytest.approx(own.weighted("mrr"), abs=1e-12)


def test_forgetting_is_asked_for_when_the_table_says():
    for way, (confuses, leaves) in fkge_forgetting.WAYS.items():
        (loaded,) = load_specs(str(fkge_forgetting.SPEC), fkge_forgetting.overrides(way, 15, 20))
        unlearning, training = trainings(loaded.value)
        from_round = {1: 1, fkge_forgetting.NEVER: fkge_forgetting.NEVER}
        assert unlearning.when.first == from_round.get(confuses, 16)
        assert training.without_forgotten.first == from_round.get(leaves, 16)
        assert (loaded.value.rounds, training.lr, unlearning.lr) == (20, 0.005, 0.005)
