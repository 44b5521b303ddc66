"""The floors do what they say, and the tables go where they belong. What anything costs is not tested here."""

from __future__ import annotations

import os
import time

import pytest
import torch
from codistill.flows.drive import run_plainly
from codistill.flows.launch import launch
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.specs.load import load_specs
from codistill.tasks.models import architecture
from codistill.tasks.networks import build
from codistill.tasks.streams import torch_stream
from codistill.tests.benchmarks import floors, markers, watch, workload
from codistill.tests.benchmarks.run import per_round

torch.set_num_threads(1)

# 32 samples an agent are one batch: its order does not matter, so two programs take the same steps.
ONE_BATCH = ["data.partition={by: iid}", "data.take={train: 640, test: 200}", "rounds=2"]
TOLERANCE = 2 / 200
"""Accuracies may differ by two test samples, for the order in which sums are taken."""


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    return floors.read(workload.write_workload(tmp_path_factory.mktemp("workload"), ONE_BATCH))


@pytest.mark.parametrize("method", floors.METHODS)
def test_every_floor_runs(agents, method):
    found = floors.measure(method, agents, rounds=2)
    assert [len(found[kind]) for kind in ("cpu", "wall", "accuracy")] == [2, 2, 2]
    assert all(cost > 0 for cost in found["cpu"])
    assert all(0 < accuracy < 1 for accuracy in found["accuracy"])


def test_the_floor_has_the_model_and_the_agents_of_the_workload(agents):
    assert sum(weight.numel() for weight in floors.Net().parameters()) == 582_026
    assert len(agents) == 20
    assert {len(agent.y) for agent in agents} == {32}
    assert sum(len(agent.y_test) for agent in agents) == 200


def first_weights() -> dict[str, torch.Tensor]:
    """What every agent of the run starts from."""
    (loaded,) = load_specs(str(workload.SPEC))
    said = loaded.value.agents[0].model
    made = architecture(said.name, said.parameters, (1, 28, 28), 10)
    return build(made, torch_stream(loaded.value.seed, "initial", "model", made.name)).state_dict()


def test_fedavg_takes_the_same_steps_as_its_floor(agents, tmp_path):
    (loaded,) = load_specs(str(workload.SPEC), ONE_BATCH)
    ready = launch(loaded.value, tmp_path)
    pool = Here()
    session = open_session(ready.folder, pool)
    told = []
    progress = SilentProgress()
    progress.round_done = lambda number, accuracy, *_: told.append(accuracy)
    run_plainly(session, progress)

    start = floors.Net()
    start.load_state_dict(first_weights())
    nets = list(floors.fedavg(agents, 2, start))[-1]
    assert floors.accuracy(agents, nets) == pytest.approx(told[-1], abs=TOLERANCE)
    mine = pool._workers[0]._keeper.load(0, 3, 0).models["model"].state_dict()
    for name, weight in nets[0].state_dict().items():
        torch.testing.assert_close(mine[name], weight, atol=1e-5, rtol=0)


def test_truncation_keeps_the_energy_and_what_is_no_matrix():
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0]))  # squared: 9 + 4 + 1 = 14
    cut = floors.truncated({"weight": matrix, "bias": torch.ones(3)}, 0.9)  # 13 / 14 is above 0.9, 9 / 14 is not
    torch.testing.assert_close(cut["weight"], torch.diag(torch.tensor([3.0, 2.0, 0.0])))
    assert cut["bias"].tolist() == [1, 1, 1]


def test_tables_are_written_between_their_markers_alone(tmp_path):
    document = tmp_path / "document.md"
    document.write_text(
        "a\n<!-- measured: x -->\nold\n<!-- end: x -->\nb\n<!-- measured: y -->\nkept\n<!-- end: y -->\n"
    )
    markers.replace_between(document, "x", markers.table(["run", "s"], [["a|b", "1"]]))
    text = document.read_text()
    made = "| run | s |\n| --- | ---: |\n| a\\|b | 1 |"
    assert text == (
        f"a\n<!-- measured: x -->\n\n{made}\n\n<!-- end: x -->\nb\n<!-- measured: y -->\nkept\n<!-- end: y -->\n"
    )
    markers.replace_between(document, "x", made)
    assert document.read_text() == text
    with pytest.raises(ValueError, match="there is no <!-- measured: z -->"):
        markers.between(text, "z", "new")


def test_documents_have_the_markers_of_every_table():
    from codistill.tests.benchmarks import results, run

    for document, names in ((run.DOCUMENT, run.PARTS), (results.DOCUMENT, results.TABLES)):
        text = document.read_text(encoding="utf-8")
        for name in names:
            assert f"new {name}" in markers.between(text, name, f"new {name}")


def test_clocks_of_this_process():
    before = time.process_time()
    read = watch.cpu_seconds(os.getpid())
    assert read >= before
    assert watch.memory(os.getpid()) > 2**20
    assert watch.processes(os.getpid())[os.getpid()] is False


def test_a_round_costs_the_median_from_the_second_round():
    moments = [watch.Moment(0, cpu, 0) for cpu in (1.0, 9.0, 10.0, 12.0, 15.0)]  # rounds 8, 1, 2, 3
    assert per_round(moments, lambda moment: moment.cpu) == 2
    assert per_round(moments[:2], lambda moment: moment.cpu) == 8
