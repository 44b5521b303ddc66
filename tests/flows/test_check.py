from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from codistill.flows.check.check import carries, check, check_with, notes, problems_of_holding
from codistill.flows.holdings import Holdings, hold
from codistill.specs.document import Loaded
from codistill.specs.library import spec_names
from codistill.specs.load import load_specs
from codistill.specs.problems import Problem
from codistill.specs.schema import Spec

TREE = "pattern={hierarchical: {tiers: [{name: edge, count: 3}, {name: cloud}]}}"
MARK = "# here"
SECTIONS = {
    "data": "{dataset: digits, partition: {by: iid}, public: {share: 0.2, labelled: true}}",
    "agents": "[{name: a, count: 4, model: mlp}]",
    "recipe": "fedavg",
    "rounds": "3",
}
TRAIN = "\n  - train: {}"
MODELS = TRAIN + "\n  - extract: {knowledge: parameters}"
LOGITS = TRAIN + "\n  - extract: {knowledge: logits}"
MEAN = "\n  - aggregate: {by: mean}"
REPLACE = "\n  - absorb: {by: replace}"
DISTIL = "\n  - absorb: {by: distil}"
STORE = "\n  - store: {memory: semantic}"
MIXED = "[{name: a, count: 2, model: mlp}, {name: b, count: 2, model: cnn}]"


def text_of(**sections: str) -> str:
    return "name: t\n" + "".join(f"{key}: {value}\n" for key, value in {**SECTIONS, **sections}.items())


def written(folder: Path, text: str, *overrides: str) -> Loaded[Spec]:
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    (loaded,) = load_specs(str(path), overrides)
    return loaded


def line_of(text: str) -> int:
    (line,) = (number for number, said in enumerate(text.splitlines(), 1) if MARK in said)
    return line


def the_one(problems: list[Problem], text: str, phrase: str) -> None:
    assert [str(problem) for problem in problems if phrase not in str(problem)] == []
    (problem,) = problems
    assert problem.mark is not None
    assert problem.mark.file.endswith("spec.yaml")
    assert problem.mark.line == line_of(text), problem


def recipe(steps: str, **sections: str) -> dict[str, str]:
    return {"recipe": steps, **sections}


ORDER = {
    "aggregate without extract": (
        recipe(TRAIN + "\n  - aggregate: {by: mean} # here" + REPLACE), "no `extract` since"),
    "aggregate twice": (
        recipe(MODELS + MEAN + REPLACE + "\n  - aggregate: {by: mean} # here" + REPLACE), "no `extract` since"),
    "two extracts": (
        recipe(MODELS + "\n  - extract: {knowledge: parameters} # here" + MEAN + REPLACE), "a second `extract`"),
    "two shares": (
        recipe(MODELS + "\n  - share: {}\n  - share: {} # here" + MEAN + REPLACE), "a second `share`"),
    "share first": (
        recipe("\n  - share: {} # here" + MODELS + MEAN + REPLACE), "nothing to share yet"),
    "extract for nothing": (
        recipe(MODELS + MEAN + REPLACE + "\n  - extract: {knowledge: parameters} # here"), "no `aggregate` follows"),
    "aggregate for nothing": (
        recipe(MODELS + "\n  - aggregate: {by: mean} # here"), "never used"),
    "absorb first": (
        recipe("\n  - absorb: {by: replace} # here" + MODELS + MEAN + REPLACE), "nothing to absorb yet"),
    "store first": (
        recipe("\n  - store: {memory: semantic} # here" + MODELS + MEAN + REPLACE), "nothing to store yet"),
    "extract at the start": (
        recipe(f"\n  start:\n  - extract: {{knowledge: parameters}} # here\n  round:{TRAIN}"), "no place here"),
    "recall at the start": (
        recipe(f"\n  start:\n  - train: {{losses: [prototypes]}} # here\n  round:{TRAIN}"), "nothing to recall"),
    "aggregators at the start": (
        recipe(f"\n  start:\n  - train: {{who: all}} # here\n  round:{TRAIN}"), "before the first round"),
}  # fmt: skip

WHO = {
    "aggregators extract": (
        recipe(TRAIN + "\n  - extract: {knowledge: parameters, who: all} # here" + MEAN + REPLACE),
        "extracted by learners"),
    "aggregators too early": (
        recipe("\n  - train: {on: public, who: all} # here" + MODELS + MEAN + REPLACE), "none comes before"),
    "aggregators have no data": (
        recipe(MODELS + MEAN + REPLACE + "\n  - train: {who: all} # here"), "no private samples"),
    "aggregators have no companion": (
        recipe("\n  companion: mlp\n  round:" + TRAIN + "\n  - extract: {knowledge: parameters, of: companion}" + MEAN
               + "\n  - absorb: {by: replace, of: companion, who: all} # here"), "have no companion"),
    "aggregators have no model": (
        recipe(LOGITS + MEAN + DISTIL + "\n  - absorb: {by: distil, who: aggregators} # here"), "none has one"),
    "peers": (
        recipe(LOGITS + MEAN + DISTIL + "\n  - absorb: {by: distil, who: aggregators} # here", pattern="decentralized"),
        "no aggregators"),
    "a model of no use": (
        {"pattern": "{distributed: {server: {model: mlp}}} # here"}, "no step of the recipe uses"),
    "a model that never learns": (
        recipe(MODELS + MEAN + "\n  - absorb: {by: replace, who: all}",
               pattern="{distributed: {server: {model: cnn}}} # here"), "never receives parameters"),
}  # fmt: skip

MEMORY = {
    "extract from training": (
        recipe("\n  - train: {on: public}\n  - extract: {knowledge: prototypes} # here" + MEAN + STORE),
        "gathered while"),
    "extract of the companion from training": (
        recipe("\n  companion: mlp\n  round:\n  - train: {losses: [mutual]}\n  - extract: {knowledge: class_logits, "
               "of: companion} # here" + MEAN + STORE), "not what its companion says"),
    "term without retrieve": (
        recipe("\n  - train: {losses: [prototypes]} # here\n  - extract: {knowledge: prototypes}" + MEAN + STORE),
        "nothing retrieves them"),
    "retrieve what nobody stores": (
        recipe("\n  - retrieve: {memory: semantic, knowledge: logits} # here" + LOGITS + MEAN + DISTIL),
        "nothing ever stores"),
    "retrieve from another memory": (
        recipe("\n  - retrieve: {memory: episodic, knowledge: prototypes} # here\n  - train: {losses: [prototypes]}\n"
               "  - extract: {knowledge: prototypes}" + MEAN + STORE), "stored in semantic memory"),
    "forget nothing": (
        recipe(MODELS + MEAN + REPLACE + "\n  - forget: {memory: episodic} # here"), "nothing to forget"),
    "not-true on public": (
        recipe("\n  - train: {on: public, losses: [not_true]} # here" + MODELS + MEAN + REPLACE),
        "private samples alone"),
    "mutual without companion": (
        recipe("\n  - train: {losses: [mutual]} # here" + MODELS + MEAN + REPLACE), "needs a companion"),
    "extract without companion": (
        recipe(TRAIN + "\n  - extract: {knowledge: logits, of: companion} # here" + MEAN + DISTIL), "no companion"),
}  # fmt: skip

EXCHANGE = {
    "distilled logits": (
        recipe(LOGITS + "\n  - aggregate: {by: distilled} # here" + DISTIL), "takes parameters"),
    "sharpened parameters": (
        recipe(MODELS + "\n  - aggregate: {by: sharpened_mean} # here" + REPLACE), "takes logits"),
    "sharpened logits": (
        recipe(TRAIN + "\n  - extract: {knowledge: logits, scale: logits} # here\n  - aggregate: {by: sharpened_mean}"
               "\n  - absorb: {by: distil, loss: soft_cross_entropy}"), "takes probabilities"),
    "exclude_self": (
        recipe(MODELS + "\n  - aggregate: {by: distilled, exclude_self: true} # here" + REPLACE),
        "taken out of a mean"),
    "int8 parameters": (
        recipe(MODELS + "\n  - share: {up: int8} # here" + MEAN + REPLACE), "not sent as int8"),
    "svd rows": (
        recipe(LOGITS + "\n  - share: {down: svd} # here" + MEAN + DISTIL), "not sent as svd"),
    "bits of prototypes": (
        recipe("\n  - train: {}\n  - extract: {knowledge: prototypes}\n  - share: {up: bits} # here" + MEAN + STORE),
        "bits are for probabilities"),
    "bits of logits": (
        recipe(LOGITS + "\n  - share: {up: bits} # here" + MEAN + DISTIL), "bits are for probabilities"),
    "replace by logits": (
        recipe(LOGITS + MEAN + "\n  - absorb: {by: replace} # here"), "absorb by distil"),
    "distil prototypes": (
        recipe(TRAIN + "\n  - extract: {knowledge: prototypes}" + MEAN + STORE + "\n  - absorb: {by: distil} # here"),
        "with the term `prototypes`"),
    "replace the wrong model": (
        recipe("\n  companion: mlp\n  round:\n  - train: {losses: [mutual]}\n  - extract: {knowledge: parameters, of: "
               "companion}" + MEAN + "\n  - absorb: {by: replace, of: model} # here"), "cannot replace"),
    "soft cross entropy of logits": (
        recipe(LOGITS + MEAN + "\n  - absorb: {by: distil, loss: soft_cross_entropy} # here"), "takes probabilities"),
    "kl of probabilities": (
        recipe(TRAIN + "\n  - extract: {knowledge: logits, scale: probabilities}" + MEAN
               + "\n  - absorb: {by: distil, loss: kl} # here"), "takes logits"),
    "architectures": (
        recipe(TRAIN + "\n  - extract: {knowledge: parameters} # here" + MEAN + REPLACE, agents=MIXED),
        "a: mlp and b: cnn"),
    "architectures in a shipped recipe": (
        {"agents": MIXED.replace("cnn", "{mlp: {hidden: [32]}}"), "recipe": "fedavg # here"}, "b: mlp(hidden=[32])"),
    "no public samples": (
        recipe("fedmd # here", data="{dataset: digits, partition: {by: iid}}"), "sets none aside"),
    "no public samples for fusion": (
        recipe("feddf # here", data="{dataset: digits, partition: {by: iid}}"), "the rule distilled needs"),
    "no public labels": (
        recipe("\n  - train: {on: public}" + MODELS + MEAN + REPLACE,
               data="{dataset: digits, partition: {by: iid}, public: {share: 0.2}} # here"), "needs the labels"),
}  # fmt: skip


def tree(tiers: str, forward: str = "merged") -> str:
    return f"\n  hierarchical:\n    forward: {forward}\n    tiers:\n{tiers}"


CLOUD = "    - {name: cloud}"
EDGE = "    - {name: edge, count: 2, model: mlp}\n"
ALL = "\n  - absorb: {by: distil, who: all}"
PATTERN = {
    "two agents of one name": (
        {"agents": "\n  - {name: a, count: 2, model: mlp}\n  - {name: a-2, model: mlp} # here"}, "called 'a-2'"),
    "an agent called server": (
        {"agents": "\n  - {name: a, count: 2, model: mlp}\n  - {name: server, model: mlp} # here"}, "called 'server'"),
    "a tier called learner": (
        {"pattern": tree("    - {name: learner} # here")}, "agents with data"),
    "too many edges": (
        {"pattern": tree("    - {name: edge, count: 9} # here\n" + CLOUD)}, "9 agents for 4 learners"),
    "alone": (
        {"pattern": "decentralized # here", "agents": "[{name: a, model: mlp}]"}, "at least two agents"),
    "no regular graph": (
        {"pattern": "{decentralized: {graph: {k-regular: {degree: 4}}}} # here"}, "does not exist"),
    "no connected graph": (
        {"pattern": "{decentralized: {graph: {k-regular: {degree: 1}}}} # here"}, "no connected graph"),
    "no random graph": (
        {"pattern": "{decentralized: {graph: {erdos-renyi: {probability: 0.001}}}} # here"}, "ask for more links"),
    "no large random graph": (
        {"pattern": "{decentralized: {graph: {erdos-renyi: {probability: 0.001}}}} # here",
         "agents": "[{name: a, count: 2000, model: mlp}]"}, "raise the probability"),
    "a link to nobody": (
        {"pattern": "\n  decentralized:\n    graph:\n      edges:\n        links:\n        - [a-1, a-2]\n"
                    "        - [a-1, a9] # here"}, "the agents are a-1 to a-4"),
    "a link to itself": (
        {"pattern": "{decentralized: {graph: {edges: {links: [[a-1, a-1]]}}}} # here"}, "linked with itself"),
    "own without a model": (
        recipe(LOGITS + MEAN + ALL,
               pattern=tree("    - {name: edge, count: 2} # here\n    - {name: cloud, model: mlp}", "own")),
        "edge has no model"),
    "own prototypes": (
        recipe("fedproto", pattern=tree(EDGE + CLOUD, "own # here")), "forward: own"),
    "own of the companion": (
        recipe("fml", pattern=tree(EDGE + CLOUD, "own # here")), "forward: own"),
    "own without learning": (
        recipe("fedmd", pattern=tree(EDGE + CLOUD, "own # here")), "must learn first"),
    "own without oneself": (
        recipe(LOGITS + "\n  - aggregate: {by: mean, exclude_self: true}" + ALL,
               pattern=tree(EDGE + CLOUD, "own # here")),
        "no longer be taken out"),
    "own of two architectures": (
        recipe(MODELS + "\n  - aggregate: {by: distilled}\n  - absorb: {by: replace, who: all}", agents=MIXED,
               pattern=tree(EDGE + CLOUD, "own # here")), "sends on one architecture"),
}  # fmt: skip

REST = {
    "no data": (
        {"data": "\n  dataset: {table: {path: nowhere.csv, label: y}} # here\n  partition: {by: iid}"}, "no file at"),
    "too many at least": (
        {"participation": "{minimum: 5} # here"}, "there are 4"),
    "leaves before it joins": (
        {"agents": "\n  - name: a\n    model: mlp\n    joins: 3\n    leaves: 2 # here"}, "joins in round 3"),
    "a metric twice": (
        {"measure": "\n  metrics:\n  - accuracy\n  - accuracy # here"}, "here twice"),
    "predict with nothing": (
        {"measure": "{predict: prototypes} # here"}, "stores prototypes"),
    "a control that learns nothing": (
        recipe("\n  start:\n  - train: {}\n  round:\n  - extract: {knowledge: parameters}" + MEAN + REPLACE,
               measure="{control: local} # here"), "control: none"),
}  # fmt: skip

CASES = {**ORDER, **WHO, **MEMORY, **EXCHANGE, **PATTERN, **REST}


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_is_one_problem_at_its_line(tmp_path: Path, name: str) -> None:
    sections, phrase = CASES[name]
    text = text_of(**sections)
    problems = check(written(tmp_path, text))
    if name in ("own prototypes", "own of the companion"):
        problems = [problem for problem in problems if "a tier extracts" in problem.message]
    the_one(problems, text, phrase)


@pytest.mark.parametrize("pattern", ["pattern=distributed", TREE, "pattern=decentralized"])
@pytest.mark.parametrize("name", [name for name in spec_names() if not name.startswith("fkge/")])
def test_what_ships_is_right_under_every_pattern(name: str, pattern: str) -> None:
    for loaded in load_specs(name, [pattern]):
        assert check(loaded) == []
        assert notes(loaded) == []


def test_all_mistakes_come_at_once_in_order(tmp_path: Path) -> None:
    text = text_of(participation="{minimum: 9}", measure="{metrics: [accuracy, accuracy]}", agents=MIXED)
    lines = [problem.mark.line for problem in check(written(tmp_path, text)) if problem.mark]
    assert lines == [4, 6, 7]


def test_column_is_that_of_the_key(tmp_path: Path) -> None:
    (problem,) = check(written(tmp_path, text_of(participation="{minimum: 5}")))
    assert problem.mark is not None and problem.mark.column == len("participation: {") + 1
    assert problem.where == "participation.minimum"


def test_a_step_of_a_shipped_recipe_is_found_at_its_override(tmp_path: Path) -> None:
    text = text_of(recipe="fedmd")
    (problem,) = check(written(tmp_path, text, "recipe.absorb.loss=soft_cross_entropy"))
    assert problem.mark is not None and problem.mark.file.startswith("--set recipe.")
    (problem,) = check(written(tmp_path, text, "recipe.extract.scale=probabilities"))
    assert problem.where == "recipe.round[0].extract.scale"
    (problem,) = check(written(tmp_path, text, "data.public=null"))
    assert problem.where == "data.public" and problem.mark is not None and problem.mark.file == "--set data.public=null"
    (problem,) = check(written(tmp_path, text_of(recipe="local"), "recipe=fedavg", "agents=" + MIXED))
    assert problem.mark is not None and problem.mark.file == "--set recipe=fedavg"


def test_a_step_of_a_shipped_recipe_is_found_at_its_change(tmp_path: Path) -> None:
    text = text_of(recipe="\n  use: fedmd\n  with:\n    train.epochs: 1\n    absorb.loss: soft_cross_entropy # here")
    the_one(check(written(tmp_path, text)), text, "takes probabilities")


def test_a_recipe_of_ones_own_is_answered_in_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("round:\n- train: {}\n- share: {}\n- aggregate: {by: mean}\n", encoding="utf-8")
    problems = check(written(tmp_path, text_of(recipe="own.yaml")))
    assert {problem.mark.file.rsplit("/", 1)[-1] for problem in problems if problem.mark} == {"own.yaml"}


def test_distilled_mixes_architectures(tmp_path: Path) -> None:
    assert check(written(tmp_path, text_of(recipe="feddf", agents=MIXED))) == []


def holdings_of(loaded: Loaded[Spec], folder: Path) -> Holdings:
    return hold(loaded.value, folder / "cache")


def test_a_model_that_does_not_fit(tmp_path: Path) -> None:
    text = text_of(agents="\n  - name: a\n    count: 4\n    model: fedavg-cnn # here")
    loaded = written(tmp_path, text)
    assert check(loaded) == []
    the_one(check_with(loaded, holdings_of(loaded, tmp_path)), text, "does not fit samples of [1, 8, 8]")


def test_prototypes_of_unequal_width(tmp_path: Path) -> None:
    agents = "\n  - {name: a, model: mlp}\n  - {name: b, model: {cnn: {hidden: 32}}} # here\n  - {name: c, model: mlp}"
    text = text_of(agents=agents, recipe="fedproto")
    loaded = written(tmp_path, text)
    holdings = holdings_of(loaded, tmp_path)
    the_one(check_with(loaded, holdings), text, "a: 64, b: 32, c: 64")
    assert "write `cnn: {hidden: 64}`" in str(check_with(loaded, holdings)[0])
    assert "equal width" in (carries(loaded, "decentralized", holdings) or "")


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        ("\n  dataset: digits\n  partition: {by: dirichlet, alpha: 1, min_size: 999} # here", "lower"),
        ("\n  dataset: digits\n  take: {train: 9999} # here\n  partition: {by: iid}", "were asked for"),
        (
            "\n  dataset: digits\n  take: {train: 1}\n  partition: {by: iid}\n  public: {share: 0.5} # here",
            "public share",
        ),
    ],
)
def test_data_that_cannot_be_dealt_out(tmp_path: Path, data: str, phrase: str) -> None:
    text = text_of(data=data)
    loaded = written(tmp_path, text)
    with pytest.raises(ValueError) as caught:
        holdings_of(loaded, tmp_path)
    the_one(problems_of_holding(loaded, caught.value), text, phrase)


def test_which_pattern_carries_a_recipe(tmp_path: Path) -> None:
    loaded = written(tmp_path, text_of(recipe="fedmd"))
    assert [carries(loaded, name) for name in ("distributed", "hierarchical", "decentralized")] == [None] * 3
    alone = written(tmp_path, text_of(agents="[{name: a, model: mlp}]"))
    assert carries(alone, "hierarchical") is None
    assert "at least two agents" in (carries(alone, "decentralized") or "")
    mixed = written(tmp_path, text_of(agents=MIXED))
    assert "feddf" in (carries(mixed, "distributed") or "")


def linked(links: str) -> str:
    return f"{{decentralized: {{graph: {{edges: {{links: {links}}}}}}}}}"


NOTES = {
    "cut off": ({"pattern": linked("[[a-1, a-2], [a-1, a-4]]")}, "from a-3 to"),
    "odd pairs": (
        {"pattern": "{decentralized: {graph: pairs}}", "agents": "[{name: a, count: 3, model: mlp}]"},
        "no partner"),
    "torus": (
        {"pattern": "{decentralized: {graph: torus}}", "agents": "[{name: a, count: 7, model: mlp}]"},
        "is a ring"),
    "deadline": ({"participation": "{deadline: 2}"}, "Nobody misses"),
    "late": ({"participation": "{late: next}"}, "without a deadline"),
    "rows": ({"rounds": "1000000", "agents": "[{name: a, count: 6, model: mlp}]"}, "6,000,000"),
    "joins": ({"agents": "[{name: a, model: mlp}, {name: b, joins: 9, model: mlp}]"}, "b is never there"),
    "nobody": ({"agents": "[{name: a, leaves: 1, model: mlp}, {name: b, joins: 3, model: mlp}]"}, "in round 2"),
    "retrieve": (
        recipe(f"\n  - retrieve: {{memory: semantic, knowledge: logits}}{LOGITS}{MEAN}{STORE}"), "no later step uses"),
    "companion": (recipe(f"\n  companion: mlp\n  round:{TRAIN}"), "never learns"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_each_remark(tmp_path: Path, name: str) -> None:
    sections, phrase = NOTES[name]
    loaded = written(tmp_path, text_of(**sections))
    assert check(loaded) == []
    (note,) = notes(loaded)
    assert phrase in note


def test_remarks_on_the_data(tmp_path: Path) -> None:
    (tmp_path / "given.json").write_text('{"train": [[0, 1], []], "test": [[0], []]}', encoding="utf-8")
    data = f"\n  dataset: digits\n  partition: {{by: given, path: {tmp_path / 'given.json'}}}"
    loaded = written(tmp_path, text_of(data=data, agents="[{name: a, count: 2, model: mlp}]"))
    with pytest.raises(ValueError, match="no train samples"):
        holdings_of(loaded, tmp_path)
    (tmp_path / "given.json").write_text('{"train": [[0, 1], [2]], "test": [[0], []]}', encoding="utf-8")
    found = notes(loaded, holdings_of(loaded, tmp_path))
    assert any("a-2 are not measured" in note for note in found)
    assert any("No agent holds 1,434" in note for note in found)


def test_checking_does_not_wait_for_torch() -> None:
    code = (
        "import sys; from codistill.flows.check.check import check; from codistill.specs.load import load_specs; "
        "assert check(load_specs('fl/fedmd')[0]) == []; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
