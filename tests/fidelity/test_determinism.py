"""The same spec gives the same bytes, however the work is dealt out."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from codistill.tests.fidelity.alike import same

RECIPES = {
    "fedavg": "{use: fedavg}",
    "fd": "{use: fd}",
    "fedmd": "{use: fedmd}",
    "feddf": "{use: feddf, with: {aggregate.steps: 10}}",
    "fedkd": "{use: fedkd, with: {companion: mlp}}",
}


def spec(
    recipe,
    agents="{name: m, count: 4, model: mlp}, {name: c, count: 2, model: cnn}",
    pattern="distributed",
    partition="{by: dirichlet, alpha: 0.3, min_size: 10}",
    more="",
):
    return f"""
name: same
seed: 2
rounds: 3
data: {{dataset: digits, partition: {partition}, public: {{share: 0.2}}}}
agents: [{agents}]
pattern: {pattern}
measure: {{control: none, metrics: [accuracy, cross_entropy, macro_f1]}}
recipe: {recipe}
{more}
"""


@pytest.mark.parametrize("recipe", RECIPES)
def test_lanes_change_nothing(conduct, recipe):
    said = spec(RECIPES[recipe])
    one, three = conduct(said, lanes=1), conduct(said, lanes=3)
    assert one.path != three.path
    cohorts = [set(pq.read_table(folder.table("timings"))["cohort"].to_pylist()) for folder in (one, three)]
    assert cohorts == [{"1"}, {"1", "2", "3"}]
    same(one, three)


@pytest.mark.parametrize(
    "pattern", ["{hierarchical: {tiers: [{name: edge, count: 2}, {name: top}]}}", "{decentralized: {graph: pairs}}"]
)
def test_nor_do_they_under_other_patterns_and_with_agents_that_come_and_go(conduct, pattern):
    said = spec("fedproto", pattern=pattern, more="participation: {share: 0.6}")
    same(conduct(said, lanes=1), conduct(said, lanes=3))


@pytest.mark.parametrize("recipe", RECIPES)
def test_nor_does_it_matter_what_is_kept_in_memory(conduct, recipe, monkeypatch):
    said = spec(RECIPES[recipe])
    kept = conduct(said, lanes=1)
    monkeypatch.setattr("codistill.flows.keeper.ROOM", 0)
    same(kept, conduct(said, lanes=2))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_that_is_begun_anew_each_round_ends_alike(conduct, recipe, begun_anew):
    said = spec(RECIPES[recipe])
    whole = conduct(said, lanes=1)
    begun_anew()
    same(whole, conduct(said, lanes=4))


def test_another_seed_is_another_run(conduct):
    said = spec(RECIPES["fedavg"])
    one, other = conduct(said), conduct(said.replace("seed: 2", "seed: 3"))
    assert one.table("metrics").read_bytes() != other.table("metrics").read_bytes()


def test_further_agents_change_nobody_who_learns_alone(conduct, tmp_path):
    order = np.random.default_rng(0).permutation(1100).tolist()
    held = {
        "train": [order[i : i + 100] for i in range(0, 700, 100)],
        "test": [list(range(i, i + 40)) for i in range(0, 280, 40)],
    }

    def run(agents, count):
        file = tmp_path / f"{count}.json"
        file.write_text(json.dumps({part: ids[:count] for part, ids in held.items()}))
        given = f"{{by: given, path: {file}}}"
        return conduct(spec("local", agents, partition=given).replace("public: {share: 0.2}", "take: {}"))

    few = run("{name: m, count: 3, model: mlp}, {name: c, count: 2, model: cnn}", 5)
    more = run("{name: m, count: 3, model: mlp}, {name: c, count: 2, model: cnn}, {name: n, count: 2, model: mlp}", 7)
    rows = [
        [row for row in pq.read_table(folder.table("metrics")).to_pylist() if row["group"] != "n"]
        for folder in (few, more)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 4 * 5 * 3
    for file in (few.path / "models").iterdir():
        assert file.read_bytes() == (more.path / "models" / file.name).read_bytes()
