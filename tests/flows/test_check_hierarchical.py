"""What keeps FedGKT and FedAgg from running, found before anything runs and said at the line that is to blame."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from codistill.flows.check.check import carries, check, check_with, notes
from codistill.flows.compile import compile_spec
from codistill.flows.holdings import hold
from codistill.specs.load import load_specs

TREE = "{hierarchical: {forward: own, tiers: [{name: edge, count: 2, model: mlp}, {name: cloud, model: cnn}]}}"
STAR = "{distributed: {server: {model: mlp}}}"
DATA = "{dataset: digits, partition: {by: iid}, public: {share: 0.2}}"
AGENTS = "[{name: a, count: 3, model: mlp}, {name: b, model: cnn}]"
EXTRACT = """
  use: fedagg
  with:
    extract: {knowledge: logits, from: bridge, memory: bridge, labels: true, keys: {principal: {width: 8}}}"""

DEFAULTS = "{hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}"
BARE = "{use: fedagg, with: {above: null}}"


def text_of(**sections: str) -> str:
    said = {"data": DATA, "agents": AGENTS, "pattern": TREE, "recipe": "fedagg", "rounds": "1"} | sections
    return "name: t\n" + "".join(f"{key}: {value}\n" for key, value in said.items())


def loaded(folder: Path, **sections: str):
    path = folder / "spec.yaml"
    path.write_text(text_of(**sections), encoding="utf-8")
    (one,) = load_specs(str(path))
    return one


def told(folder: Path, **sections: str) -> str:
    return "\n".join(str(problem) for problem in check(loaded(folder, **sections)))


@pytest.mark.parametrize("pattern", [TREE, STAR, "decentralized", "distributed", DEFAULTS])
@pytest.mark.parametrize("recipe", ["fedagg", EXTRACT])
def test_fedagg_runs_under_every_pattern(tmp_path: Path, pattern: str, recipe: str) -> None:
    assert told(tmp_path, pattern=pattern, recipe=recipe) == ""


@pytest.mark.parametrize("pattern", [STAR.replace("{model: mlp}", "{}"), "hierarchical", "decentralized"])
def test_fedgkt_runs_under_every_pattern(tmp_path: Path, pattern: str) -> None:
    said = {"recipe": "fedgkt", "pattern": DEFAULTS if pattern == "hierarchical" else pattern}
    assert told(tmp_path, **said) == ""


@pytest.mark.parametrize(
    ("pattern", "models"),
    [
        ("distributed", [True]),
        (STAR, ["mlp(hidden=64)"]),
        (DEFAULTS, [False, False, True]),
        (DEFAULTS.replace("{tiers", "{forward: own, tiers"), [True, True, True]),
        (TREE, ["mlp(hidden=64)", "mlp(hidden=64)", "cnn(channels=16x32,kernel=3,hidden=64)"]),
        ("decentralized", []),
    ],
)
def test_who_has_the_recipes_model(tmp_path: Path, pattern: str, models: list[str | bool]) -> None:
    spec = loaded(tmp_path, pattern=pattern)
    plan = compile_spec(spec.value, hold(spec.value, tmp_path / "cache"))
    given = {True: "mlp(hidden=256x128)", False: None}
    assert [a.architecture for a in plan.agents[4:]] == [given[m] if isinstance(m, bool) else m for m in models]


@pytest.mark.parametrize(
    ("sections", "phrase"),
    [
        (
            {"pattern": "distributed", "recipe": BARE},
            "server has no model, and parents learn bridge samples with their own",
        ),
        ({"pattern": TREE.replace("forward: own, ", "")}, "edge has a model, and with `forward: merged` it says"),
        ({"pattern": TREE.replace(", model: cnn", ""), "recipe": BARE}, "cloud has no model"),
        ({"pattern": TREE.replace(", model: mlp", ""), "recipe": BARE}, "edge has no model, and `forward: own`"),
        ({"data": "{dataset: digits, partition: {by: iid}}"}, "the keys principal needs public samples"),
        ({"recipe": EXTRACT.replace("memory: bridge", "memory: other")}, "and other is none"),
        ({"recipe": EXTRACT.replace("memory: bridge, ", "")}, "and none is named"),
        ({"recipe": EXTRACT.replace("principal", "projection")}, "principal components alone"),
        ({"recipe": EXTRACT.replace("labels: true, ", "")}, "travel with their labels"),
        ({"recipe": EXTRACT[:-1] + ", keys_when: {from: 2}}"}, "from the first round on"),
        ({"recipe": EXTRACT.replace("bridge,", "private,")}, "nobody speaks of bridge samples"),
        ({"recipe": "{use: fedagg, with: {aggregate.by: mean}}"}, "must know whose each is, and mean mixes them"),
        ({"recipe": "{use: fedagg, with: {aggregate.exclude_self: true}}"}, "no share to take out"),
        ({"recipe": "{use: fedagg, with: {absorb.who: learners}}"}, "so both must"),
        ({"recipe": "{use: fedagg, with: {memories.bridge.keys: none}}"}, "the memory bridge holds none"),
        ({"recipe": "{use: fedgkt, with: {extract.keys: null}}"}, "no features are told"),
        ({"recipe": "{use: fedgkt, with: {extract.labels: false}}"}, "no labels are told"),
        ({"recipe": "{use: fedgkt, with: {extract.keys_when: {until: 1}}}"}, "in some rounds alone"),
        ({"recipe": "{use: fedgkt, with: {extract.scale: probabilities}}"}, "takes logits, and probabilities"),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, sections: dict[str, str], phrase: str) -> None:
    if "fedgkt" in sections.get("recipe", ""):
        sections = {"pattern": "distributed", **sections}
    found = told(tmp_path, **sections)
    assert phrase in found, found


@pytest.mark.parametrize("recipe", ["fedgkt", "fedcache"])
def test_what_is_retrieved_for_the_term_sample_logits_is_used(tmp_path: Path, recipe: str) -> None:
    assert notes(loaded(tmp_path, recipe=recipe, pattern="distributed")) == []
    alone = f"{{use: {recipe}, with: {{train.losses: []}}}}"
    (note,) = notes(loaded(tmp_path, recipe=alone, pattern="distributed"))
    assert "Remembered logits are retrieved and no later step uses them" in note


def test_who_is_away_while_codes_travel_is_told_of(tmp_path: Path) -> None:
    once = "{use: fedagg, with: {extract.keys_when: {until: 1}}}"
    (note,) = notes(loaded(tmp_path, participation="{share: 0.5}", recipe=once))
    assert note.startswith("Who is away in the rounds up to 1 never tells labels and keys")
    assert notes(loaded(tmp_path, recipe=once)) == []
    each_round = "{use: fedagg, with: {extract.keys_when: null}}"
    for recipe in ("fedagg", each_round):
        assert notes(loaded(tmp_path, participation="{share: 0.5}", recipe=recipe)) == []


def test_the_term_sample_logits_needs_what_it_distils(tmp_path: Path) -> None:
    steps = "[{train: {losses: [sample_logits]}}]"
    assert "needs remembered logits, and nothing retrieves them" in told(tmp_path, recipe=steps, pattern="distributed")


def test_features_of_unequal_width_are_named_with_a_remedy(tmp_path: Path) -> None:
    agents = "[{name: a, count: 3, model: mlp}, {name: b, model: {cnn: {hidden: 32}}}]"
    spec = loaded(tmp_path, agents=agents, recipe="fedgkt", pattern="distributed")
    assert check(spec) == []
    holdings = hold(spec.value, tmp_path / "cache")
    (problem,) = check_with(spec, holdings)
    assert "the rule train_on_features needs features of equal width (a: 64, b: 32)" in str(problem)
    assert "write `cnn: {hidden: 64}`" in str(problem)
    assert "equal width" in (carries(spec, "decentralized", holdings) or "")


@pytest.mark.parametrize("recipe", ["fedgkt", "fedagg"])
def test_bytes_that_labels_and_keys_add_are_foreseen(tmp_path: Path, recipe: str, conduct) -> None:
    said = {"recipe": recipe, "pattern": "distributed" if recipe == "fedgkt" else STAR}
    spec = loaded(tmp_path, **said)
    plan = compile_spec(spec.value, hold(spec.value, tmp_path / "cache"))
    (exchange,), counts = plan.exchanges, [agent.samples for agent in plan.agents[: plan.learners]]
    assert exchange.exact  # labels and keys are counted by themselves
    folder = conduct(text_of(**said))
    links = [row for row in pq.read_table(folder.table("ledger")).to_pylist() if row["round"] == 1]
    sent = [row["bytes"] for row in links if row["from"] != "server"]
    returned = [row["bytes"] for row in links if row["from"] == "server"]
    told = [up + more for up, more in zip(exchange.up_bytes, exchange.told_bytes, strict=True)]
    for found, foreseen in ((sent, told), (returned, exchange.down_bytes)):
        assert len(found) == len(counts)
        for size, most in zip(found, foreseen, strict=True):
            assert abs(most - size) < 400
