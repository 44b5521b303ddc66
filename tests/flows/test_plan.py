"""What a spec compiles into, and that it is what then happens."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from codistill.flows.plan import Plan
from codistill.specs.library import recipe_names, spec_names
from codistill.tasks.parameters import When, due

SPEC = """
name: planned
seed: 3
rounds: {rounds}
data:
  dataset: digits
  partition: {{by: dirichlet, alpha: 0.5, min_size: 12}}
  take: {{train: 400, test: 100}}
  public: {{share: 0.25}}
agents: [{agents}]
pattern: {pattern}
measure: {{control: none}}
recipe: {recipe}
"""
STAR = "distributed"
TREE = "{hierarchical: {tiers: [{name: edge, count: 2}, {name: top}]}}"
DEEP = "{hierarchical: {tiers: [{name: edge, count: 4}, {name: region, count: 2}, {name: top}]}}"
RING = "{decentralized: {graph: ring}}"
COMPLETE = "{decentralized: {graph: complete}}"
PAIRS = "{decentralized: {graph: pairs}}"
PATTERNS = {"star": STAR, "tree": TREE, "deep": DEEP, "ring": RING, "complete": COMPLETE, "pairs": PAIRS}
ONE = "{name: m, count: 5, model: mlp}"
MIXED = "{name: m, count: 3, model: mlp}, {name: c, count: 2, model: cnn}"
RECIPES = {
    "fedavg": "fedavg",
    "fedprox": "fedprox",
    "fedntd": "fedntd",
    "fd": "fd",
    "fedproto": "fedproto",
    "fedmd": "fedmd",
    "ds-fl": "ds-fl",
    "feddf": "{use: feddf, with: {aggregate.steps: 2}}",
    "fml": "{use: fml, with: {companion: mlp}}",
    "fedkd": "{use: fedkd, with: {companion: mlp}}",
    "def-kt": "def-kt",
    "proxyfl": "{use: proxyfl, with: {companion: mlp}}",
    "dfml": "dfml",
    "fedcache": "{use: fedcache, with: {extract.keys: {principal: {width: 20}}}}",
    "idkd": "idkd",
    "fedtgp": "{use: fedtgp, with: {aggregate.epochs: 2}}",
    "kt-pfl": "kt-pfl",
    "fedal": "fedal",
    "selective-fd": "selective-fd",
    "fedgen": "{use: fedgen, with: {aggregate.steps: 2}}",
    "dense": "{use: dense, with: {train.epochs: 1, aggregate.epochs: 1, aggregate.generator_steps: 1}}",
    "fedgkt": "{use: fedgkt, with: {aggregate.epochs: 1}}",
}
NOT_FORETOLD = {"fedkd", "idkd", "fedal", "selective-fd", "fedgen"}
"""Recipes of whose packets some weigh what only the run can tell."""


RECIPES_OF_TRIPLES = {"fede", "fedec", "fedr", "feds", "fedlu", "fedlu-unlearning", "fedkd-kge", "fkge"}


def spec(recipe, pattern=STAR, agents=MIXED, rounds=2):
    return SPEC.format(recipe=recipe, pattern=pattern, agents=agents, rounds=rounds)


def table(folder, name):
    return pq.read_table(folder.table(name)).to_pylist()


def test_no_shipped_recipe_is_left_out():
    of_triples = {*RECIPES_OF_TRIPLES, "local-kge"}  # see test_fkge
    assert set(RECIPES) | {"local", "fedagg"} == set(recipe_names()) - of_triples


@pytest.mark.parametrize("recipe", [*RECIPES, "local"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_plan_is_the_same_after_it_was_written_and_read(launched, recipe, pattern):
    said = "agents[1].availability=0.5 participation.share=0.6 participation.deadline=0.5 participation.late=next"
    more = ["agents[0].speed=0.01", *said.split()]
    if (recipe, pattern) == ("feddf", "tree") or (recipe, pattern[:4]) == ("feddf", "deep"):
        more = []
    ready = launched(spec(RECIPES.get(recipe, recipe), PATTERNS[pattern], rounds=6), *more)
    assert Plan.read(ready.folder.plan) == ready.plan
    assert json.loads(ready.folder.plan.read_text())["digest"] == ready.plan.digest
    assert not more or recipe == "local" or any(r.late or r.absent for r in ready.plan.schedule)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("pattern", ["star", "tree", "ring", "complete"])
def test_predicted_bytes_are_what_is_sent(conduct, recipe, pattern):
    agents = ONE if recipe == "idkd" else MIXED
    folder = conduct(spec(RECIPES[recipe], PATTERNS[pattern], agents))
    plan, rows = Plan.read(folder.plan), table(folder, "ledger")
    place = {agent.name: index for index, agent in enumerate(plan.agents)}
    # What helps those below to learn comes from an aggregator, and peers have none.
    foretold = recipe not in NOT_FORETOLD or (recipe in ("fedal", "fedgen") and pattern in ("ring", "complete"))
    assert plan.exchanges[-1].exact == foretold
    told = When.model_validate({"until": 1})
    checked = Counter()
    for row in rows:
        one, other, exchange = place[row["from"]], place[row["to"]], plan.exchanges[row["exchange"]]
        if one < plan.learners:
            predicted, way = exchange.up_bytes[one], "up"
            if recipe == "fedgkt" or (recipe == "fedcache" and told.holds(row["round"])):
                assert exchange.told_bytes[one] > 20 * 4 * plan.agents[one].samples
                predicted += exchange.told_bytes[one]
        elif other < plan.learners:
            predicted, way = exchange.down_bytes[other], "down"
        else:
            continue  # between tiers nothing is predicted
        checked[way] += 1
        most = max(0.03 * predicted, 400)
        assert row["bytes"] <= predicted + most, row
        if exchange.exact:
            assert row["bytes"] >= predicted - most, row
    links = {"star": (5, 5), "tree": (5, 5), "ring": (10, 0), "complete": (20, 0)}[pattern]
    times = 2 * sum(due(When.model_validate(e.rule["when"] or {}), 1) for e in plan.exchanges)
    if recipe != "selective-fd":  # of which a server may pass on nothing
        assert (checked["up"], checked["down"]) == (times * links[0], times * links[1])
    assert sum(exchange.down_bytes) == 0 or links[1]


STAGES = {
    "star": [("local", -1), ("merge", 0), ("local", -1)],
    "tree": [("local", -1), ("merge", 0), ("merge", 1), ("relay", 0), ("local", -1)],
    "deep": [("local", -1), ("merge", 0), ("merge", 1), ("merge", 2), ("relay", 1), ("relay", 0), ("local", -1)],
    "ring": [("local", -1), ("local", -1)],
}
RUNS = {"star": 2 + 1 + 2, "tree": 2 + 2 + 1 + 2 + 2, "deep": 2 + 2 + 2 + 1 + 2 + 2 + 2, "ring": 2 + 2}


@pytest.mark.parametrize("pattern", STAGES)
def test_stages_and_the_number_of_task_runs(conduct, pattern):
    folder = conduct(spec("fd", PATTERNS[pattern]), lanes=2)
    plan = Plan.read(folder.plan)
    assert [(stage.kind, stage.tier) for stage in plan.stages] == STAGES[pattern]
    assert plan.stages[0].name == "retrieve + train + extract" and plan.stages[-1].name == "store"
    assert [stage.last for stage in plan.stages if stage.tier < 0] == [False, True]
    assert plan.task_runs(2) == 2 + 2 * RUNS[pattern] and plan.task_runs(2, 2) == RUNS[pattern]
    assert len(table(folder, "timings")) == plan.task_runs(2)
    assert plan.task_runs(1) == 1 + 2 * len(plan.stages)


def test_two_exchanges_and_none(launched):
    twice = """
  round:
    - train: {}
    - extract: {knowledge: prototypes}
    - aggregate: {by: mean}
    - store: {memory: semantic}
    - extract: {knowledge: parameters}
    - aggregate: {by: mean}
    - absorb: {by: replace}"""
    stages = launched(spec(twice, TREE)).plan.stages
    assert [(stage.kind, stage.receives, stage.sends) for stage in stages] == [
        ("local", None, 0), ("merge", 0, 0), ("merge", 0, 0), ("relay", 0, 0),
        ("local", 0, 1), ("merge", 1, 1), ("merge", 1, 1), ("relay", 1, 1), ("local", 1, None),
    ]  # fmt: skip
    assert [stage.last for stage in stages] == [False] * 6 + [True] * 3
    (alone,) = launched(spec("local", TREE)).plan.stages
    assert alone.last and alone.sends is alone.receives is None


def test_the_digest_is_of_what_can_change_a_number(launched):
    digest = launched(spec("fd")).plan.digest
    for same in ("engine.workers=7", "name=other", "cite=somebody"):
        assert launched(spec("fd"), same).plan.digest == digest
    for other in (
        "seed=4",
        "rounds=3",
        "recipe.train.epochs=2",
        "agents[0].count=4",
        "measure.every=2",
        "pattern=decentralized",
    ):
        assert launched(spec("fd"), other).plan.digest != digest


# --- what is measured


def measured(folder, metric="accuracy"):
    return {(row["round"], row["agent"]): row for row in table(folder, "metrics") if row["metric"] == metric}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_learner_is_measured_in_each_measured_round(conduct, pattern):
    for every, expected in ((1, list(range(8))), (3, [0, 3, 6, 7])):
        more = [f"measure.every={every}", "participation.share=0.4", "agents[1].joins=3"]
        folder = conduct(spec("fd", PATTERNS[pattern], rounds=7), *more)
        plan, found = Plan.read(folder.plan), measured(folder)
        learners = [agent.name for agent in plan.agents[: plan.learners]]
        assert set(found) == {(number, name) for number in expected for name in learners}
        tests = {agent.name: agent.test_samples for agent in plan.agents}
        assert all(row["weight"] == tests[name] > 0 for (_, name), row in found.items())


OWN = "{hierarchical: {forward: own, tiers: [{name: edge, count: 2, model: linear}, {name: top, model: mlp}]}}"
SERVED = "{distributed: {server: {name: boss, model: mlp}}}"


def test_tiers_with_models_are_measured_under_their_role(conduct):
    folder = conduct(
        spec("{use: ds-fl, with: {absorb.epochs: 10, absorb.batch: 8, train.epochs: 5, train.batch: 8}}", OWN, rounds=5)
    )
    found = table(folder, "metrics")
    assert {(row["agent"], row["role"], row["group"]) for row in found if row["role"] != "learner"} == {
        ("edge-1", "edge", "edge"), ("edge-2", "edge", "edge"), ("top", "top", "top"),
    }  # fmt: skip
    plan, accuracy = Plan.read(folder.plan), measured(folder)
    tests = sum(agent.test_samples for agent in plan.agents[: plan.learners])
    for name in ("edge-1", "edge-2", "top"):
        assert [number for number, agent in accuracy if agent == name] == [1, 2, 3, 4, 5]
        assert (
            accuracy[5, name]["value"] > max(0.3, accuracy[1, name]["value"]) and accuracy[5, name]["weight"] == tests
        )
    learners = [
        row["value"] * row["weight"]
        for (number, _), row in accuracy.items()
        if number == 5 and row["role"] == "learner"
    ]
    said = json.loads(folder.summary.read_text())["accuracy"]
    assert said == pytest.approx(sum(learners) / tests)  # of learners alone
    assert {file.stem for file in (folder.path / "models").iterdir()} >= {"edge-1", "edge-2", "top", "m-1"}


def test_what_a_tier_forwards_is_what_its_own_model_says(conduct):
    """Only then do an edge's own model and what it distils with change what others learn."""
    merged = OWN.replace("forward: own", "forward: merged")
    values = {}
    for name, tree in (("own", OWN), ("merged", merged)):
        for model in ("linear", "mlp"):
            folder = conduct(spec("ds-fl", tree.replace("model: linear", f"model: {model}"), rounds=2))
            values[name, model] = {
                key: row["value"] for key, row in measured(folder).items() if row["role"] == "learner"
            }
    assert values["merged", "linear"] == values["merged", "mlp"]
    assert values["own", "linear"] != values["own", "mlp"] and values["own", "mlp"] != values["merged", "mlp"]


@pytest.mark.parametrize("pattern", [SERVED, OWN], ids=["star", "tree"])
def test_a_server_with_a_model_and_agents_that_rest(conduct, pattern):
    folder = conduct(spec("ds-fl", pattern, rounds=6), "participation.share=0.4", "agents[0].availability=0.5")
    plan, found = Plan.read(folder.plan), measured(folder)
    assert any(round.absent for round in plan.schedule) and any(round.returning for round in plan.schedule)
    top = plan.agents[-1].name
    first = next(number for number in range(1, 7) if plan.taking_part(number))
    assert [number for number, name in found if name == top] == list(range(first, 7))


# --- what a person is shown


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_plan_command_shows_every_pattern(codistill, write, tmp_path, pattern):
    path = write(spec("fedmd", PATTERNS[pattern], rounds=20))
    done = codistill("plan", path, "--runs", tmp_path, "--set", "engine.workers=2", COLUMNS="160")
    assert (done.returncode, done.stderr) == (0, "")
    names = {"star": ["server"], "tree": ["edge", "top"], "deep": ["edge", "region", "top"]}.get(pattern, [])
    for word in ["planned: fedmd", "3 x m", "2 x c", "logits", "5 agents", *(f"aggregate at {name}" for name in names)]:
        assert word in done.stdout, done.stdout
    stages = STAGES.get(pattern, STAGES["ring"])
    sizes = {-1: 2, 0: {"star": 1, "tree": 2, "deep": 2}.get(pattern, 0), 1: 2 if pattern == "deep" else 1, 2: 1}
    total = sum(sizes[tier] for _, tier in stages)
    assert f"{total} a round, {20 * total + 2} in all" in done.stdout
    assert not [path for path in tmp_path.iterdir() if path.name != ".prepared"]


def test_the_plan_command_tells_that_rounds_are_merged(codistill, write, tmp_path):
    path = write(spec("fd", rounds=2000))
    done = codistill("plan", path, "--runs", tmp_path, "--set", "engine.workers=2", COLUMNS="160")
    assert "5 a round, merged into 182 segments" in done.stdout, done.stdout  # of 11 rounds, from round 0


def test_segments_are_all_rounds_once(launched):
    plan = replace(launched(spec("fd")).plan, rounds=1003)
    for first in (0, 3):
        segments = plan.segments(2, first)
        assert [n for begin, end in segments for n in range(begin, end + 1)] == list(range(first, 1004))
        assert len(segments) <= 200
    assert plan.segments(2, 900) == []


def test_the_bytes_shown_are_those_of_the_plan(codistill, write, tmp_path, launched):
    path = write(spec("fd"))
    (exchange,) = launched(spec("fd")).plan.exchanges
    done = codistill("plan", path, "--runs", tmp_path, COLUMNS="160")
    total = (sum(exchange.up_bytes) + sum(exchange.down_bytes)) / 1000
    assert f"{total:.1f} kB" in done.stdout


@pytest.mark.parametrize("name", [name for name in spec_names() if not name.startswith("fkge/")])
def test_shipped_specs_compile(launched, name):
    from codistill.specs.library import find_spec

    plan = launched(find_spec(name).read_text()).plan
    one_shot = name == "fl/dense"  # whose agents need more samples each than twenty would have
    assert (plan.learners, plan.rounds) == ((10, 1) if one_shot else (20, 20))
    assert replace(plan, name="x").digest == plan.digest


def test_an_exchange_costs_time_only_in_its_rounds_and_keys_in_theirs(launched):
    slow = "agents[0].bandwidth=1.0"
    usual = spec("fedcache", agents=ONE, rounds=4)
    plan = launched(usual, slow).plan
    (exchange,), times = plan.exchanges, np.diff([0.0, *(r.ends for r in plan.schedule)])
    up, down, told = (np.array(of) for of in (exchange.up_bytes, exchange.down_bytes, exchange.told_bytes))
    assert times[0] == pytest.approx((up + down + told).max() * 8 / 1e6)
    assert times[1:] == pytest.approx([(up + down).max() * 8 / 1e6] * 3)
    rare = launched(usual, slow, "recipe.aggregate.when={from: 2, every: 2}").plan
    times = np.diff([0.0, *(r.ends for r in rare.schedule)])
    assert times[[0, 2]].tolist() == [0, 0] and times[[1, 3]] == pytest.approx([(up + down).max() * 8 / 1e6] * 2)
