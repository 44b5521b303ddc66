"""What ``codistill list`` and ``codistill plan`` say of memories."""

import io

import pytest
from codistill.flows.check.holdings import checked_holdings
from codistill.flows.commands.list import list_command
from codistill.flows.commands.plan import show_plan
from codistill.specs.load import load_specs
from codistill.tasks.memory import KINDS
from rich.console import Console

SPEC = """
name: planned
rounds: 2
data: {dataset: digits, partition: {by: iid}, take: {train: 200, test: 50}}
agents: [{name: a, count: 4, model: linear}]
recipe: RECIPE
"""
MEMORIES = """
  memories:
    events: {kind: episodic, holds: logits, capacity: {bytes: 64MiB}, eviction: lru, encoding: {top-k: {k: 3}}}
    facts: {kind: semantic, holds: class_logits, keep: 0.5}
    unused: {kind: semantic, holds: class_logits, capacity: {items: 1500}, keys: int8}
  round:
    - train: {}
    - extract: {knowledge: logits, from: private, labels: true}
    - aggregate: {by: collect, weight: agents}
    - store: {memory: events, who: top}
    - consolidate: {memory: events, into: facts, who: top}
    - retrieve: {memory: events, knowledge: logits, who: top, for: received, by: id}
    - store: {memory: semantic}
"""


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("memories", KINDS),
        ("filters", ("confidence", "entropy", "agreement", "in_distribution", "density_ratio", "finite", "magnitude")),
        ("valences", ("agreement", "similarity", "shapley")),
        ("keys", ("features", "projection", "principal")),
        ("retrievals", ("all", "id", "class", "nearest")),
        ("evictions", ("fifo", "lru", "reservoir", "herding", "oldest", "lowest-confidence")),
        ("operations", ("store", "retrieve", "consolidate", "decay", "forget")),
    ],
)
def test_what_memories_can_do_is_listed(capsys, what, names):
    list_command(what)
    lines = capsys.readouterr().out.splitlines()
    assert set(names) <= {line.split()[0] for line in lines}
    assert all(len(line.split()) >= 4 for line in lines)


def planned(write, tmp_path, recipe):
    (loaded,) = load_specs(str(write(SPEC.replace("RECIPE", recipe))))
    console = Console(width=160, record=True, file=io.StringIO())
    show_plan(console, loaded, checked_holdings([loaded], tmp_path)[0])
    return console.export_text()


def test_a_plan_shows_the_declared_memories(write, tmp_path):
    lines = planned(write, tmp_path, MEMORIES).splitlines()
    first = next(index for index, line in enumerate(lines) if line.startswith("memories"))
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[first : first + 4]]
    assert cells[0] == ["memories", "kind", "holds", "capacity", "eviction", "encoding", "filled by"]
    assert cells[1] == ["events", "episodic", "logits", "64MiB", "lru", "top-k k 3", "store, top"]
    assert cells[2] == [
        "facts", "semantic", "class_logits", "no bound, keeps 50.0 %", "float32", "consolidate, top"
    ]  # fmt: skip
    assert cells[3] == [
        "unused", "semantic", "class_logits", "1\u202f500 items", "fifo", "float32, int8 keys", "nothing"
    ]  # fmt: skip


def test_a_plan_without_memories_has_no_table_of_them(write, tmp_path):
    assert "filled by" not in planned(write, tmp_path, "fedavg")
