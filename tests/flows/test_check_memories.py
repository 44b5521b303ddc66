"""What is said of memories, and cannot be, is found before anything runs: one sentence for each, at its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from codistill.flows.check.check import carries, check, check_with, notes
from codistill.flows.holdings import hold

from .test_check import DISTIL, LOGITS, MEAN, MODELS, REPLACE, STORE, TRAIN, TREE, text_of, the_one, written

OWN = TRAIN + "\n  - extract: {knowledge: logits, from: private, labels: true, keys: {projection: {}}}"
COLLECT = "\n  - aggregate: {by: collect}"
PUT = "\n  - store: {memory: cache, who: top}"
ASK = "\n  - retrieve: {memory: cache, knowledge: logits, who: top, for: received, by: {nearest: {same_class: true}}}"
CACHE = "{cache: {kind: episodic, holds: logits, keys: float32}}"

SENSORY = CACHE.replace("}}", "}, own: {kind: sensory, holds: samples}}")


def memories(steps: str, declared: str = CACHE, **sections: str) -> dict[str, str]:
    return {"recipe": f"\n  memories: {declared}\n  round:{steps}", **sections}


def facts(holds: str, more: str = "") -> str:
    return CACHE.replace("}}", f"}}, facts: {{kind: semantic, holds: {holds}{more}}}}}")


WHOLE = OWN + COLLECT + PUT + ASK
LABELS = "{labels: {kind: episodic, holds: logits}}"
LOGITS_AFTER = "logits, scale: probabilities, from"
PSEUDO = """
  - retrieve: {{memory: labels, knowledge: logits}}
  - train:
      losses:
        - {}
  - extract: {{knowledge: logits, from: public, scale: {}}}
  - aggregate: {{by: mean}}
  - store: {{memory: labels}}"""
PUBLIC = "\n  - train: {}\n  - extract: {knowledge: logits}"

CASES = {
    "no such memory": (
        memories(OWN + COLLECT + "\n  - store: {memory: cash, who: top} # here" + PUT + ASK), "did you mean 'cache'"),
    "no such memory to consolidate into": (
        memories(WHOLE + "\n  - consolidate: {memory: cache, into: semantc, who: top} # here"), "'semantic'"),
    "a form that it does not hold": (
        memories(LOGITS + MEAN + "\n  - store: {memory: facts} # here" + DISTIL,
                 "{facts: {kind: semantic, holds: prototypes}}"), "holds prototypes, and logits"),
    "parameters in a store": (
        memories(MODELS + MEAN + REPLACE + "\n  - store: {memory: cache} # here"), "parameters are stored"),
    "keys that are never told": (
        memories(OWN.replace(", keys: {projection: {}}", "") + COLLECT + PUT + " # here" + ASK), "never tells any"),
    "keys that a mean loses": (
        memories(PUBLIC.replace("logits", "logits, labels: true, keys: {projection: {}}") + MEAN
                 + "\n  - store: {memory: cache} # here" + DISTIL), "never tells any"),
    "nearest without keys": (
        memories(OWN + COLLECT + PUT + ASK + " # here", "{cache: {kind: episodic, holds: logits}}"), "have no keys"),
    "nearest to one's own without keys": (
        memories(WHOLE + "\n  - retrieve: {memory: own, knowledge: logits, by: {nearest: {}}} # here"
                 "\n  - store: {memory: own, what: made}", CACHE.replace("}}", "}, own: {kind: episodic, "
                 "holds: logits, keys: float32}}")), "how it finds their keys"),
    "nearest in an undeclared memory": (
        memories(LOGITS + MEAN + STORE + DISTIL
                 + "\n  - retrieve: {memory: semantic, knowledge: logits, by: {nearest: {}}} # here", "{}"),
        "knows `by: all` alone"),
    "same class without labels": (
        memories(OWN.replace("labels: true, ", "") + COLLECT + PUT + ASK + " # here"), "nothing tells the labels"),
    "by class without labels": (
        memories(LOGITS + MEAN + "\n  - store: {memory: cache}" + DISTIL
                 + "\n  - retrieve: {memory: cache, knowledge: class_logits, by: class} # here",
                 "{cache: {kind: episodic, holds: logits}}"), "nothing tells the labels"),
    "another form than it holds": (
        memories(OWN + COLLECT + PUT + ASK.replace("knowledge: logits", "knowledge: prototypes") + " # here"),
        "prototypes are retrieved"),
    "asking before anything came": (
        memories(ASK.replace("who: top", "who: learners") + " # here" + OWN + COLLECT
                 + "\n  - store: {memory: cache, who: all}" + ASK), "nothing has been received yet"),
    "consolidate the undeclared": (
        memories(OWN + COLLECT + "\n  - store: {memory: episodic, who: top}" + PUT + ASK
                 + "\n  - consolidate: {memory: episodic, into: facts, who: top} # here", facts("class_logits")),
        "episodic memory is not declared"),
    "consolidate into another form": (
        memories(WHOLE + "\n  - consolidate: {memory: cache, into: facts, who: top} # here", facts("logits")),
        "are class_logits"),
    "consolidate into keys": (
        memories(WHOLE + "\n  - consolidate: {memory: cache, into: facts, who: top} # here",
                 facts("class_logits", ", keys: int8")), "have no keys"),
    "decay of the undeclared": (
        memories(LOGITS + MEAN + STORE + DISTIL + "\n  - decay: {memory: semantic} # here", "{}"), "not declared"),
    "decay of nothing": (
        memories(WHOLE + "\n  - decay: {memory: cache} # here"), "nothing to decay"),
    "the top has no model": (
        memories(LOGITS + MEAN + DISTIL + "\n  - absorb: {by: distil, who: top} # here", "{}"), "the top, has no"),
    "the top does not extract": (
        memories(TRAIN + "\n  - extract: {knowledge: logits, who: top} # here" + MEAN + DISTIL, "{}"),
        "extracted by learners"),
    "the top makes nothing": (
        memories(WHOLE + "\n  - store: {memory: cache, who: top, what: made} # here"), "only what they received"),
    "made before it is": (
        memories("\n  - store: {memory: cache, what: made} # here" + WHOLE), "nothing has been made"),
    "rounds that are not there": (
        memories(MODELS + MEAN + REPLACE.replace("replace", "replace, when: {from: 3, until: 2}") + " # here", "{}"),
        "there are none"),
    "labels of unlabelled samples": (
        memories(PUBLIC.replace("logits", "logits, labels: true") + MEAN + DISTIL, "{}",
                 data="{dataset: digits, partition: {by: iid}, public: {share: 0.2}} # here"), "needs the labels"),
    "one's own share of what was collected": (
        memories(OWN + "\n  - aggregate: {by: collect, exclude_self: true} # here" + PUT + ASK), "out of a mean"),
    "one's own share of what was filtered": (
        memories(LOGITS + "\n  - aggregate: {by: mean, exclude_self: true, filters: [finite]} # here" + DISTIL, "{}"),
        "filters let through"),
    "one's own share of what was weighted": (
        memories(LOGITS + "\n  - aggregate: {by: mean, exclude_self: true, valence: agreement} # here" + DISTIL, "{}"),
        "valence let through"),
    "filters of parameters": (
        memories(MODELS + "\n  - aggregate: {by: mean, filters: [finite]} # here" + REPLACE, "{}"), "looks at rows"),
    "parameters collected": (
        memories(MODELS + COLLECT + " # here" + REPLACE + "\n  - retrieve: {memory: procedural, knowledge: parameters, "
                 "who: top}\n  - store: {memory: procedural, who: all}", "{}"), "the rule collect takes logits"),
    "collected and sent back": (
        memories(OWN + COLLECT + " # here" + PUT), "sent back to everybody"),
    "a mean of one's own samples": (
        memories(OWN + MEAN + " # here" + "\n  - store: {memory: episodic}", "{}"), "so mean merges nothing"),
    "distil of one's own samples": (
        memories(WHOLE + "\n  - absorb: {by: distil} # here"), "logits of private ones"),
    "a term without logits": (
        memories("\n  - train: {losses: [sample_logits]} # here" + WHOLE[len(TRAIN):]), "nothing retrieves them"),
    "pseudo labels without logits": (
        memories("\n  - train: {losses: [pseudo_labels]} # here" + WHOLE[len(TRAIN):]), "memory: episodic"),
    "keys of public samples": (
        memories(OWN.replace("projection", "principal") + " # here" + COLLECT + PUT + ASK,
                 data="{dataset: digits, partition: {by: iid}}"), "the keys principal needs public samples"),
    "a filter that needs samples": (
        memories(LOGITS + "\n  - aggregate: {by: mean, filters: [in_distribution]} # here" + DISTIL, "{}"),
        "aggregators have none"),
    "the top's own samples": (
        memories(OWN + COLLECT + PUT + ASK.replace("received", "private").replace("{same", "{keys: projection, same")
                 + " # here"), "no samples of their own"),
    "nobody to forget": (
        memories(WHOLE + "\n  - forget: {contributor: a-9, who: all} # here"), "no agent is called 'a-9'"),
    "labels before the softmax": (
        memories(PSEUDO.format("pseudo_labels # here", "logits"), LABELS), "takes probabilities, and logits before"),
    "labels after it": (
        memories(PSEUDO.format("pseudo_labels: {scale: logits} # here", "probabilities"), LABELS),
        "or `pseudo_labels: {scale: probabilities}`"),
    "answers after the softmax": (
        memories(
            "\n  - retrieve: {memory: answers, knowledge: logits}"
            "\n  - train:\n      losses:\n        - sample_logits # here"
            + (WHOLE + "\n  - store: {memory: answers}").replace(TRAIN, "").replace("logits, from", LOGITS_AFTER),
            CACHE.replace("}}", "}, answers: {kind: episodic, holds: logits}}")),
        "takes logits before the softmax, and probabilities are stored in answers"),
    "samples that are shared": (
        memories(WHOLE + "\n  - store: {memory: own, what: made} # here", SENSORY), "which never leave it"),
    "samples that are called to mind": (
        memories(WHOLE + "\n  - retrieve: {memory: own, knowledge: logits} # here", SENSORY), "no step may touch it"),
    "samples that are consolidated": (
        memories(WHOLE + "\n  - consolidate: {memory: cache, into: own, who: top} # here", SENSORY), "own samples"),
    "samples that are forgotten": (
        memories(WHOLE + "\n  - forget: {memory: own} # here", SENSORY), "own is sensory memory"),
    "samples of another kind": (
        memories(WHOLE, SENSORY.replace("sensory", "episodic").replace("samples}}", "samples}} # here")),
        "write `kind: sensory`"),
    "sensory memory of logits": (
        memories(WHOLE, SENSORY.replace("samples}}", "logits}} # here")), "not logits"),
    "sensory memory with a bound": (
        memories(WHOLE, SENSORY.replace("samples}}", "samples, capacity: {items: 5}}} # here")), "has no capacity"),
    "working memory before it is filled": (
        memories("\n  - retrieve: {memory: inbox, knowledge: logits} # here" + WHOLE + "\n  - store: {memory: inbox}",
                 CACHE.replace("}}", "}, inbox: {kind: working, holds: logits}}")), "emptied at a round's end"),
    "somebody misspelt to forget": (
        memories(WHOLE + "\n  - forget: {contributor: a_3, memory: cache, who: top} # here"), "did you mean 'a-3'"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_mistake_is_one_problem_at_its_line(tmp_path: Path, name: str) -> None:
    sections, phrase = CASES[name]
    text = text_of(**sections)
    the_one(check(written(tmp_path, text)), text, phrase)


RIGHT = {
    "labels as they are": memories(PSEUDO.format("pseudo_labels: {scale: logits}", "logits"), LABELS),
    "labels as probabilities": memories(PSEUDO.format("pseudo_labels", "probabilities"), LABELS),
    "samples that are told of": memories(WHOLE, SENSORY),
    "an inbox": memories(
        WHOLE + "\n  - store: {memory: inbox}\n  - retrieve: {memory: inbox, knowledge: logits}",
        CACHE.replace("}}", "}, inbox: {kind: working, holds: logits, capacity: {items: 9}}}")),
    "a cache": memories(WHOLE),
    "a forgotten cache": memories(WHOLE + "\n  - forget: {contributor: a-2, who: all}"),
    "a forgotten server": memories(WHOLE + "\n  - forget: {contributor: server, who: all}"),
    "keys at first alone": memories(WHOLE.replace("{projection: {}}", "{projection: {}}, keys_when: {until: 1}")),
    "facts": memories(WHOLE + "\n  - consolidate: {memory: cache, into: facts, who: top}", facts("class_logits")),
    "features among prototypes": memories(
        "\n  - train: {}\n  - extract: {knowledge: prototypes}" + MEAN + "\n  - store: {memory: facts}\n"
        "  - retrieve: {memory: facts, knowledge: prototypes, by: {nearest: {keys: features}}}",
        "{facts: {kind: semantic, holds: prototypes}}"),
    "what was made": memories(
        PUBLIC + "\n  - store: {memory: own, what: made}" + MEAN + DISTIL
        + "\n  - retrieve: {memory: own, knowledge: logits, by: id}", "{own: {kind: episodic, holds: logits}}"),
    "two exchanges, one of them rare": memories(
        MODELS + MEAN + REPLACE + "\n  - extract: {knowledge: logits}\n  - aggregate: {by: mean, when: {from: 2}}"
        + DISTIL, "{}"),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_let_through(tmp_path: Path, name: str) -> None:
    sections = RIGHT[name]
    if name == "a forgotten server":
        sections |= {"pattern": "distributed"}
    assert [str(problem) for problem in check(written(tmp_path, text_of(**sections)))] == []


def test_peers_keep_what_they_collect_and_ask_for_their_own_samples(tmp_path: Path) -> None:
    put, ask = PUT.replace(", who: top", ""), ASK.replace("who: top, for: received", "for: private")
    steps = OWN + COLLECT + put + ask.replace("{same", "{keys: projection, same")
    loaded = written(tmp_path, text_of(**memories(steps)))
    assert carries(loaded, "decentralized") is None
    assert "sent back to everybody" in (carries(loaded, "distributed") or "")
    assert "sent back to everybody" in (carries(loaded, "hierarchical") or "")


def test_a_top_with_a_model_learns(tmp_path: Path) -> None:
    steps = LOGITS + MEAN + DISTIL + "\n  - absorb: {by: distil, who: top}"
    assert check(written(tmp_path, text_of(recipe=steps), TREE.replace("cloud", "cloud, model: mlp"))) == []
    (problem,) = check(written(tmp_path, text_of(recipe=steps), TREE.replace("3}", "3, model: mlp}")))
    assert "cloud, the top, has no model" in str(problem)


NOTES = {
    "never stored": (memories(WHOLE, CACHE.replace("}}", "}, more: {kind: episodic, holds: logits}}")), "more stays"),
    "never used": (
        memories(WHOLE + "\n  - store: {memory: more}",
                 CACHE.replace("}}", "}, more: {kind: episodic, holds: logits}}")), "Nothing ever retrieves"),
    "too late": (
        memories(MODELS + MEAN + REPLACE.replace("replace", "replace, when: {from: 4}"), "{}"),
        "recipe.round[3].absorb.when begins in round 4, and the run has 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTES)
def test_each_remark(tmp_path: Path, name: str) -> None:
    sections, phrase = NOTES[name]
    loaded = written(tmp_path, text_of(**sections))
    assert check(loaded) == []
    (note,) = notes(loaded)
    assert phrase in note


def test_what_the_top_retrieves_is_used_by_those_that_it_is_sent_to(tmp_path: Path) -> None:
    assert notes(written(tmp_path, text_of(**memories(WHOLE)))) == []


def test_keys_of_unequal_width(tmp_path: Path) -> None:
    agents = "\n  - {name: a, model: mlp}\n  - {name: b, model: {cnn: {hidden: 32}}} # here"
    text = text_of(**memories(WHOLE.replace("{projection: {}}", "features"), agents=agents))
    loaded = written(tmp_path, text)
    assert check(loaded) == []
    the_one(check_with(loaded, hold(loaded.value, tmp_path / "cache")), text, "unequal width (a: 64, b: 32)")
    loaded = written(tmp_path, text.replace("features", "projection"))
    assert check_with(loaded, hold(loaded.value, tmp_path / "cache")) == []
