"""Whole runs whose agents remember: what is unlearned, what is spoiled, and what is broken on disk."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from codistill.flows.drive import run_plainly
from codistill.flows.finish import finish
from codistill.flows.plan import Plan
from codistill.flows.pool import Here
from codistill.flows.progress import SilentProgress
from codistill.flows.session import open_session
from codistill.tasks.extract import EXTRACTS
from codistill.tasks.stores import Store, StoreError

ROUNDS = 4
TREE = "{hierarchical: {tiers: [{name: edge, count: 2}, {name: cloud}]}}"
PATTERNS = {"star": "distributed", "tree": TREE}
SPEC = """
name: remembering
seed: 5
rounds: 4
data: {{dataset: digits, partition: {{by: dirichlet, alpha: 0.5, min_size: 12}}, take: {{train: 300, test: 100}}}}
agents:
  - {{name: m, count: 3, model: mlp}}
  - {{name: gone, model: mlp, joins: {joins}, leaves: {leaves}}}
  - {{name: c, count: 2, model: cnn}}
pattern: {pattern}
measure: {{control: none}}
recipe:
  memories:
    cache: {{kind: episodic, holds: logits, keys: float32}}
    facts: {{kind: semantic, holds: class_logits}}
    answers: {{kind: episodic, holds: logits}}
  round:
    - retrieve: {{memory: answers, knowledge: logits}}
    - train: {{optimizer: {{sgd: {{lr: 0.1}}}}, losses: [{{sample_logits: {{kd_weight: {weight}}}}}]}}
    - extract: {{knowledge: logits, from: private, labels: true, keys: {{projection: {{width: 8}}}}}}
    - aggregate: {{by: collect, weight: agents}}
    - store: {{memory: cache, who: top}}
    - forget: {{contributor: gone, who: all, when: {{from: {when}, until: {when}}}}}
    - consolidate: {{memory: cache, into: facts, who: top}}
    - retrieve:
        memory: cache
        knowledge: logits
        who: top
        for: received
        by: {{nearest: {{k: 4, same_class: true, not_mine: true}}}}
    - store: {{memory: answers}}
"""


def spec(joins=1, leaves=9, weight=1.5, when=9, pattern="star"):
    return SPEC.format(joins=joins, leaves=leaves, weight=weight, when=when, pattern=PATTERNS[pattern])


def table(folder, name):
    return pq.read_table(folder.table(name)).to_pylist()


def others(folder, name, but=("gone",)):
    """The rows of a table that are about other agents."""
    return [row for row in table(folder, name) if not set(but) & {row.get("agent"), row.get("from"), row.get("to")}]


def place_of(folder, name):
    return [agent.name for agent in Plan.read(folder.plan).agents].index(name)


def held(folder, agent, memory):
    """What a store holds at the end, with names in the place of numbers."""
    found = Store.open(folder.state(ROUNDS, place_of(folder, agent)).with_name(_manifest(folder, agent, memory))).all()
    whose = [found.contributors[place] for place in found.owners]
    return found, whose


def _manifest(folder, agent, memory):
    return f"{place_of(folder, agent)}.store.{memory}.json"


def same_entries(one, other, agent, memory, by=None):
    (found, whose), (also, theirs) = held(one, agent, memory), held(other, agent, memory)
    assert len(found) and whose == theirs and "gone" not in found.contributors
    for column in ("ids", "values", "classes", "rounds", "weights", "confidence", "keys"):
        here, there = getattr(found, column), getattr(also, column)
        assert (here is None) == (there is None), column
        assert here is None or here.tobytes() == there.tobytes(), column


def same_models(one, other, but=("gone",)):
    names = sorted(file.name for file in (one.path / "models").iterdir() if file.stem not in but)
    assert len(names) >= 5
    for name in names:
        assert (one.path / "models" / name).read_bytes() == (other.path / "models" / name).read_bytes(), name


@pytest.mark.parametrize("pattern", PATTERNS)
def test_who_is_forgotten_before_anybody_heard_of_it_was_never_there(conduct, pattern):
    forgotten = conduct(spec(leaves=1, when=1, pattern=pattern))
    never = conduct(spec(joins=9, leaves=9, pattern=pattern))
    top = "server" if pattern == "star" else "cloud"
    for memory in ("cache", "facts"):
        same_entries(forgotten, never, top, memory)
    for agent in ("m-1", "c-2"):
        same_entries(forgotten, never, agent, "answers")
    same_models(forgotten, never)
    assert others(forgotten, "metrics") == others(never, "metrics")
    samples = Plan.read(forgotten.plan).agents[3].samples
    gone = [row for row in table(forgotten, "events") if row["what"] == "forgotten"]
    assert [(row["agent"], row["about"], row["count"], row["round"]) for row in gone] == [(top, "cache", samples, 1)]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_cache_and_what_was_made_of_it_lose_who_contributed_for_rounds(conduct, pattern):
    """Others do not depend on what they recall here, so all but their weights can be compared, and these too."""
    forgotten = conduct(spec(leaves=2, when=3, weight=0, pattern=pattern))
    never = conduct(spec(joins=9, leaves=9, weight=0, pattern=pattern))
    kept = conduct(spec(leaves=2, weight=0, pattern=pattern))
    top = "server" if pattern == "star" else "cloud"
    for memory in ("cache", "facts"):
        same_entries(forgotten, never, top, memory)
        assert "gone" in held(kept, top, memory)[0].contributors
    for agent in ("m-1", "m-2", "m-3", "c-1", "c-2"):
        same_entries(forgotten, never, agent, "answers")
    assert held(kept, "m-1", "answers")[0].values.tobytes() != held(never, "m-1", "answers")[0].values.tobytes()
    same_models(forgotten, never)
    text = b"".join(file.read_bytes() for file in (forgotten.path / "state").rglob(f"{place_of(forgotten, top)}.*"))
    assert b"gone" not in text


def test_what_cannot_be_unlearned_exactly_is_told(conduct):
    folder = conduct(spec(leaves=2, when=3))
    told = {(row["agent"], row["about"]): row for row in table(folder, "events") if row["what"] == "kept"}
    learners = ("m-1", "m-2", "m-3", "c-1", "c-2")
    samples = {agent.name: agent.samples for agent in Plan.read(folder.plan).agents}
    for name in learners:
        answers, weights = told[name, "answers"], told[name, "procedural"]
        assert answers["count"] == samples[name] and answers["round"] == 3
        assert answers["sentence"] == (
            "answers holds what server made of what several agents said; gone may stay in it"
        )
        assert weights["sentence"] == (f"the weights of {name} may have learned from gone; train it anew to be sure")
    assert not {about for agent, about in told if agent == "server"} & {"cache", "facts"}


def spoil(monkeypatch, how, name="gone"):
    """Let an agent's extracts be spoiled."""
    entry = EXTRACTS["logits"]

    def spoiled(agent, said, context):
        made = entry.function(agent, said, context)
        return how(made, context) if agent.name == name else made

    monkeypatch.setitem(EXTRACTS._entries, "logits", replace(entry, function=spoiled))


def silent(rows, context):
    """Nothing at all."""
    return rows.part(torch.zeros(rows.items, dtype=torch.bool))


def nan(rows, context):
    """Some rows are not numbers, others infinite."""
    values = rows.values.clone()
    values[::2, 3], values[1::2, 0] = torch.nan, torch.inf
    return replace(rows, values=values)


def huge(rows, context):
    """Scores that drown all others."""
    return replace(rows, values=rows.values * 1e6)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_knowledge_that_is_not_finite_changes_nothing_and_is_counted(conduct, monkeypatch, pattern):
    with monkeypatch.context() as patch:
        spoil(patch, nan)
        bad = conduct(spec(pattern=pattern))
    spoil(monkeypatch, silent)
    without = conduct(spec(pattern=pattern))
    same_models(bad, without, but=())
    assert table(bad, "metrics") == table(without, "metrics")
    assert others(bad, "stores", ()) == others(without, "stores", ())
    top = "server" if pattern == "star" else "cloud"
    for memory in ("cache", "facts"):
        same_entries(bad, without, top, memory)
    assert table(without, "events") == []
    samples = Plan.read(bad.plan).agents[3].samples
    found = [(row["what"], row["about"], row["count"], row["sentence"]) for row in table(bad, "events")]
    assert found == [("filtered", "finite", samples, "rows of gone are not finite")] * ROUNDS


MEAN = """
name: poisoned
seed: 5
rounds: 3
data:
  dataset: digits
  partition: {by: dirichlet, alpha: 0.5, min_size: 10}
  take: {train: 300, test: 100}
  public: {share: 0.3}
agents: [{name: m, count: 3, model: mlp}, {name: gone, model: mlp}, {name: c, count: 2, model: cnn}]
pattern: PATTERN
measure: {control: none}
recipe:
  use: fedmd
  with: {aggregate.filters: [{magnitude: {limit: null, times: 50}}], aggregate.weight: agents}
"""
PEERS = {"star": "distributed", "peers": "{decentralized: {graph: complete}}"}


@pytest.mark.parametrize("pattern", PEERS)
def test_a_poisoned_contributor_is_filtered_and_counted(conduct, monkeypatch, pattern):
    said = MEAN.replace("PATTERN", PEERS[pattern])
    if pattern == "star":
        honest = conduct(said)
    with monkeypatch.context() as patch:
        spoil(patch, huge)
        poisoned = conduct(said)
        unfiltered = conduct(said.replace("times: 50", "times: 1e12"))
    spoil(monkeypatch, silent)
    without = conduct(said)
    same_models(poisoned, without)
    assert others(poisoned, "metrics") == others(without, "metrics")
    assert others(unfiltered, "metrics") != others(without, "metrics")
    told = [row for row in table(poisoned, "events") if row["agent"] != "gone"]
    public = Plan.read(poisoned.plan).public
    assert {(row["what"], row["about"], row["count"]) for row in told} == {("filtered", "magnitude", public)}
    assert len(told) == 3 * (1 if pattern == "star" else 5)
    assert pattern != "star" or table(honest, "events") == []


def advance(folder, rounds=None):
    """Go on with a run, to its end or so far, with nothing of before in memory."""
    session = open_session(folder, Here(1))
    if rounds is None:
        run_plainly(session, SilentProgress())
        return session.plan
    for number in range(session.next_round, rounds + 1):
        session.begin(number)
        for index, stage in session.stages(number):
            for lane, cohort in enumerate(session.cohorts(number, stage)):
                session.perform(number, index, lane, cohort)
        session.commit(number)
    return session.plan


def segment(folder):
    (manifest,) = folder.path.glob(f"state/0000002/{place_of(folder, 'server')}.store.cache.json")
    return manifest, manifest.parent / json.loads(manifest.read_text())["segments"][-1]["path"]


def truncated(manifest, file):
    file.write_bytes(file.read_bytes()[:-100])
    return file, "truncated, or another; restore it"


def missing(manifest, file):
    file.unlink()
    return file, "it is missing; restore it"


def another(manifest, file):
    said = json.loads(manifest.read_text())
    said["width"] += 1
    manifest.write_text(json.dumps(said))
    return file, "restore it"


def half(manifest, file):
    manifest.write_text(manifest.read_text()[:50])
    return manifest, "is no manifest of a store"


@pytest.mark.parametrize("breaking", [truncated, missing, another, half], ids=lambda f: f.__name__)
def test_a_broken_store_is_named_nothing_is_half_written_and_a_restored_one_goes_on(
    conduct, launched, monkeypatch, breaking
):
    monkeypatch.setattr("codistill.flows.report.write.write_report", lambda *anything: None)
    whole = conduct(spec())
    folder = launched(spec()).folder
    advance(folder, 2)
    manifest, file = segment(folder)
    before = {path: path.read_bytes() for path in (manifest, file)}
    state = sorted(path.name for path in (folder.path / "state" / "0000002").iterdir())
    blamed, words = breaking(manifest, file)
    with pytest.raises(StoreError) as caught:
        advance(folder)
    assert str(blamed.resolve()) in str(caught.value) and words in str(caught.value)
    assert folder.committed() == 2
    for path, content in before.items():
        path.write_bytes(content)
    assert sorted(path.name for path in (folder.path / "state" / "0000002").iterdir()) == state
    finish(folder, advance(folder), None)
    for name in ("metrics", "ledger", "memory", "stores", "events"):
        assert folder.table(name).read_bytes() == whole.table(name).read_bytes(), name
    same_models(folder, whole, but=())


def test_what_is_asked_for_and_not_held_is_left_out(conduct, monkeypatch):
    """An agent that remembers nothing of a sample learns from its label there."""

    def first_half(rows, context):
        return rows.part(torch.arange(rows.items) < rows.items // 2)

    spoil(monkeypatch, first_half)
    folder = conduct(spec())
    found, _ = held(folder, "gone", "answers")
    samples = Plan.read(folder.plan).agents[3].samples
    assert len(found) == samples // 2 and np.unique(found.ids).size == len(found)
    assert {row["items"] for row in table(folder, "stores") if row["agent"] == "gone" and row["round"]} == {
        samples // 2
    }


IDKD = """
name: labelling
seed: 5
rounds: 4
data:
  dataset: digits
  partition: {by: dirichlet, alpha: 0.5, min_size: 10}
  take: {train: 500, test: 100}
  public: {share: 0.3}
agents: [{name: m, count: 5, model: mlp}]
pattern: PATTERN
measure: {control: none}
recipe:
  use: idkd
  with:
    extract[1].filters: [{confidence: {least: 0.35, scale: probabilities}}]
    aggregate[1].when: {from: 2, every: 2}
    forget.when: {from: 2, every: 2}
    train.epochs: 3
"""


@pytest.mark.parametrize("pattern", [*PATTERNS.values(), "{decentralized: {graph: ring}}"])
def test_labels_of_public_samples_pass_in_their_rounds_and_are_learned(conduct, pattern):
    said = IDKD.replace("PATTERN", pattern)
    folder = conduct(said)
    labels = [row for row in table(folder, "ledger") if row["exchange"] == 1]
    assert {row["round"] for row in labels} == {2, 4} and {row["form"] for row in labels} == {"logits"}
    assert {row["round"] for row in table(folder, "ledger") if row["exchange"] == 0} == {1, 2, 3, 4}
    public = Plan.read(folder.plan).public
    dropped = {(e["agent"], e["round"]): e["count"] for e in table(folder, "events") if e["what"] == "filtered"}
    own = [row for row in labels if row["from"].startswith("m-") and row["round"] == 2]
    assert own and {(row["from"], row["items"]) for row in own} == {
        (row["from"], public - dropped[row["from"], 2]) for row in own
    }
    items = {row["round"]: row["items"] for row in table(folder, "stores") if row["agent"] == "m-1"}
    assert items.get(1, 0) == 0 and 0 < items[2] == items[3] < public, items
    plain = conduct(said.replace("train.epochs: 3", "train.epochs: 3\n    train.losses: []"))
    assert others(plain, "metrics")[:15] == others(folder, "metrics")[:15]
    assert (plain.path / "models" / "m-1.safetensors").read_bytes() != (
        folder.path / "models" / "m-1.safetensors"
    ).read_bytes()
