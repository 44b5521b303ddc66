"""What agents keep as pieces says in every row who contributed it and when; what passes through disk knows it still."""

from collections import defaultdict

import pyarrow as pa
import pytest
from codistill.flows import keeper
from codistill.flows.plan import Plan
from codistill.tasks.provenance import COLUMNS

SPEC = """
name: provenance
seed: 5
rounds: 3
data: {{dataset: digits, partition: {{by: dirichlet, alpha: 0.5, min_size: 12}}, take: {{train: 300, test: 100}}}}
agents: [{{name: m, count: 4, model: mlp}}]
pattern: {pattern}
measure: {{control: none}}
recipe: {recipe}
"""
VALENCE = "recipe.aggregate.valence=agreement"
COLLECTED = """
  round:
    - train: {}
    - extract: {knowledge: logits, from: private}
    - aggregate: {by: collect, weight: agents}
    - store: {memory: episodic, who: top}
    - retrieve: {memory: episodic, knowledge: logits, who: top}
    - store: {memory: episodic}
"""
TREE = "{hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}"


def kept(folder):
    """By piece, such as "m-1 semantic class_logits": whose rows, of which rounds and forms, it holds."""
    plan = [agent.name for agent in Plan.read(folder.plan).agents]
    found = defaultdict(set)
    for file in sorted((folder.path / "state").glob("*/*.arrow")):
        place, kind, key, *_ = file.name.split(".")
        if kind in ("store", "waiting"):
            continue
        with pa.memory_map(str(file)) as source:
            table = pa.ipc.open_stream(source).read_all()
        assert {*COLUMNS} <= {*table.column_names}
        found[f"{plan[int(place)]} {kind} {key}"] |= set(
            zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True)
        )
    return found


@pytest.mark.parametrize("room", [keeper.ROOM, 1], ids=["agents stay in memory", "agents wait on disk"])
def test_what_came_from_above_is_the_aggregators_and_what_it_merged_is_its_own(conduct, monkeypatch, room):
    monkeypatch.setattr(keeper, "ROOM", room)
    folder = conduct(SPEC.format(pattern=TREE, recipe="fd"))
    found = kept(folder)
    assert found["m-1 semantic class_logits"] == {("edge-1", 3, "class_logits", "float32")}
    assert found["m-4 semantic class_logits"] == {("edge-2", 3, "class_logits", "float32")}
    assert found["edge-1 semantic delivered%200"] == {("cloud", 3, "class_logits", "float32")}
    assert found["cloud semantic delivered%200"] == {("cloud", 3, "class_logits", "float32")}


def test_peers_merge_what_they_keep_and_rate_others_themselves(conduct):
    """Peers have nobody above: the mean is their own. Rows of emotional memory are one agent's view of the others."""
    found = kept(conduct(SPEC.format(pattern="{decentralized: {graph: ring}}", recipe="fd")))
    assert found["m-2 semantic class_logits"] == {("m-2", 3, "class_logits", "float32")}
    found = kept(conduct(SPEC.format(pattern="{decentralized: {graph: ring}}", recipe="fedproto"), VALENCE))
    assert found["m-2 emotional valence"] == {("m-2", 3, "valence", "float32")}


def test_rows_of_several_lie_side_by_side_under_their_names(conduct):
    found = kept(conduct(SPEC.format(pattern="distributed", recipe=COLLECTED)))
    names = {f"m-{place}" for place in range(1, 5)}
    assert found["server episodic logits"] == {(name, 3, "logits", "float32") for name in names}
