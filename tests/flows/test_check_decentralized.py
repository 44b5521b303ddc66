"""Mistakes with private steps and mutual learning between agents."""

import pytest
from codistill.flows.check.check import check
from codistill.specs.load import load_specs

PROXY = """
  companion: mlp
  round:
  - train: {{losses: [mutual{losses}], private: {{{private}}}{train}}}{mark}
  - extract: {{knowledge: parameters, of: companion}}
  - aggregate: {{by: mean}}
  - absorb: {{by: replace, of: companion}}"""
MODELS = "\n  - train: {}\n  - extract: {knowledge: parameters}\n  - aggregate: {by: mean}"
MUTUAL = "\n  - absorb: {by: mutual}"
FORGET = "\n  - store: {memory: procedural}\n  - forget: {memory: procedural} # here"
ONE, MIXED = "[{name: a, count: 4, model: mlp}]", "[{name: a, count: 2, model: mlp}, {name: b, count: 2, model: cnn}]"


def proxy(losses="", private="", train="", mark="", after=""):
    return PROXY.format(losses=losses, private=private, train=train, mark=mark) + after


def written(
    folder, recipe, agents=ONE, data="{dataset: digits, partition: {by: iid}, public: {share: 0.2, labelled: true}}"
):
    path = folder / "spec.yaml"
    path.write_text(f"name: t\nrounds: 3\ndata: {data}\nagents: {agents}\nrecipe: {recipe}\n", encoding="utf-8")
    (loaded,) = load_specs(str(path))
    return loaded, path.read_text(encoding="utf-8")


CASES = {
    "public": (proxy(train=", on: public", mark=" # here"), "nobody's to keep private"),
    "no term": (
        "\n  - train: {private: {}} # here\n  - extract: {knowledge: parameters}\n  - aggregate: {by: mean}"
        "\n  - absorb: {by: replace}",
        "add the term `mutual`",
    ),
    "a term too many": (proxy(losses=", adaptive_mutual", mark=" # here"), "`adaptive_mutual` cannot be taken apart"),
    "another term of the model": (
        proxy(losses=", proximal", private="of: model", mark=" # here"), "`proximal` cannot be taken apart"),
    "plain steps beside": (
        proxy(after="\n  - train: {losses: [mutual]} # here"), "this trains the companion in plain steps"),
    "plain steps of the model": (
        proxy(private="of: model", after="\n  - train: {} # here"), "this trains the model in plain steps"),
    "mutual learning beside": (
        "\n  - train: {private: {of: model}}\n  - extract: {knowledge: parameters}\n  - aggregate: {by: mean}"
        "\n  - absorb: {by: mutual} # here",
        "mutual learning trains the model in plain steps",
    ),
    "forgotten": (proxy(after=FORGET), "forget how many"),
    "mutual of logits": (
        "\n  - train: {}\n  - extract: {knowledge: logits}\n  - aggregate: {by: mean}\n  - absorb: {by: mutual} # here",
        "mutual learning takes parameters",
    ),
    "mutual of companions": (
        "\n  companion: mlp\n  round:\n  - train: {losses: [mutual]}\n  - extract: {knowledge: parameters, of: "
        "companion} # here\n  - aggregate: {by: mean}\n  - absorb: {by: mutual}",
        "the companion is sent",
    ),
    "mutual by agents": (
        "\n  - train: {}\n  - extract: {knowledge: parameters}\n  - aggregate: {by: mean, weight: agents} # here"
        "\n  - absorb: {by: mutual}",
        "weighs models by their samples",
    ),
    "mutual by aggregators": (MODELS + "\n  - absorb: {by: mutual, who: all} # here", "hold no private samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_is_one_problem_at_its_line(tmp_path, name):
    recipe, phrase = CASES[name]
    loaded, text = written(tmp_path, recipe)
    (line,) = (number for number, said in enumerate(text.splitlines(), 1) if "# here" in said)
    problems = check(loaded)
    assert [str(problem) for problem in problems if phrase not in str(problem)] == []
    (problem,) = problems
    assert problem.mark.line == line


@pytest.mark.parametrize("of", ["model", "companion"])
def test_private_steps_beside_public_ones_are_right(tmp_path, of):
    said = f"{{losses: [mutual], private: {{of: {of}}}}}"
    recipe = proxy(private=f"of: {of}", after=f"\n  - train: {{on: public}}\n  - train: {said}")
    assert check(written(tmp_path, recipe)[0]) == []


def test_architectures_may_differ_where_they_learn_from_each_other(tmp_path):
    assert check(written(tmp_path, MODELS + MUTUAL, MIXED)[0]) == []
    (problem,) = check(written(tmp_path, MODELS + MUTUAL + "\n  - absorb: {by: replace}", MIXED)[0])
    assert "have no mean" in problem.message
