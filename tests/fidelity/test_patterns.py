"""One recipe under every pattern: where the arithmetic says that they must agree, they do."""

import pyarrow.parquet as pq
import pytest
import torch
from codistill.tests.fidelity.alike import apart
from codistill.tests.fidelity.plain import TREE
from safetensors.torch import load_file

RECIPES = {
    "fedavg": """
    - train: {epochs: 1, batch: 32, optimizer: {sgd: {lr: 0.1}}}
    - extract: {knowledge: parameters}
    - aggregate: {by: mean, weight: samples}
    - absorb: {by: replace}""",
    "fd": """
    - retrieve: {memory: semantic, knowledge: class_logits}
    - train: {epochs: 1, batch: 32, optimizer: {sgd: {lr: 0.1}}, losses: [class_logits]}
    - extract: {knowledge: class_logits, from: training}
    - aggregate: {by: mean, weight: agents, exclude_self: true}
    - store: {memory: semantic}""",
    "ds-fl": """
    - train: {epochs: 1, batch: 32, optimizer: {sgd: {lr: 0.1}}}
    - extract: {knowledge: logits, from: public, scale: probabilities}
    - aggregate: {by: sharpened_mean, weight: agents, temperature: 0.2}
    - absorb: {by: distil, loss: soft_cross_entropy, on: public, optimizer: {sgd: {lr: 0.1}}}""",
}
DEEP = "{hierarchical: {tiers: [{name: edge, count: 3}, {name: region, count: 2}, {name: cloud}]}}"
PEERS = "{decentralized: {graph: complete}}"
AGENTS = "{name: m, count: 4, model: mlp}, {name: c, model: cnn}"
NAMES = ["m-1", "m-2", "m-3", "m-4", "c"]


def spec(recipe, pattern):
    return f"""
name: fidelity
seed: 5
rounds: 3
data:
  dataset: digits
  partition: {{by: shards, classes_per_agent: 3}}
  public: {{share: 0.2}}
agents: [{AGENTS}]
pattern: {pattern}
measure: {{control: none, metrics: [accuracy, cross_entropy]}}
recipe:
  round:{RECIPES.get(recipe, recipe)}
"""


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("pattern", [TREE, DEEP, PEERS], ids=["tree", "deep tree", "complete graph"])
def test_it_does_not_matter_by_whom_a_mean_is_taken(conduct, recipe, pattern):
    star, other = conduct(spec(recipe, "distributed")), conduct(spec(recipe, pattern))
    assert apart(star, other, NAMES) < 1e-6
    to = set(pq.read_table(other.table("ledger"))["to"].to_pylist())
    assert to == (set(NAMES) if pattern == PEERS else {*NAMES, "cloud"} | {n for n in to if n[:4] in ("edge", "regi")})


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_matters_who_is_heard(conduct, recipe):
    star, ring = conduct(spec(recipe, "distributed")), conduct(spec(recipe, "decentralized"))
    assert apart(star, ring, NAMES) > 1e-4


def test_learning_alone_is_what_no_exchange_gives(conduct):
    alone = conduct(spec("\n    - train: {epochs: 1, batch: 32, optimizer: {sgd: {lr: 0.1}}}", "distributed"))
    assert pq.read_table(alone.table("ledger")).num_rows == 0
    assert apart(alone, conduct(spec("fedavg", "distributed")), NAMES) > 1e-3


def test_fedavgs_agents_of_one_architecture_end_alike(conduct):
    models = [load_file(conduct(spec("fedavg", "distributed")).model(name)) for name in NAMES]
    for other in models[1:4]:
        assert all(torch.equal(other[key], value) for key, value in models[0].items())
    assert models[4].keys() != models[0].keys()
