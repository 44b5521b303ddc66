"""A made-up run folder that follows docs/run-folder.md, for tests of what reads one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

TYPES: dict[str, dict[str, pa.DataType]] = {
    "metrics": {
        "round": pa.int32(), "agent": pa.string(), "group": pa.string(), "role": pa.string(),
        "metric": pa.string(), "value": pa.float64(), "weight": pa.int64(),
    },
    "ledger": {
        "round": pa.int32(), "exchange": pa.int32(), "from": pa.string(), "to": pa.string(), "form": pa.string(),
        "encoding": pa.string(), "items": pa.int64(), "bytes": pa.int64(), "raw_bytes": pa.int64(),
        "status": pa.string(),
    },
    "memory": {
        "round": pa.int32(), "agent": pa.string(), "role": pa.string(), "kind": pa.string(), "items": pa.int64(),
        "bytes": pa.int64(),
    },
    "stores": {
        "round": pa.int32(), "agent": pa.string(), "role": pa.string(), "store": pa.string(), "kind": pa.string(),
        "items": pa.int64(), "bytes": pa.int64(), "hits": pa.int64(), "misses": pa.int64(),
        "mean_age": pa.float64(), "refused": pa.int64(), "evicted": pa.int64(),
    },
    "events": {
        "round": pa.int32(), "agent": pa.string(), "step": pa.string(), "what": pa.string(), "about": pa.string(),
        "count": pa.int64(), "sentence": pa.string(),
    },
    "partition": {"agent": pa.string(), "split": pa.string(), "label": pa.string(), "count": pa.int64()},
    "clock": {
        "round": pa.int32(), "agent": pa.string(), "compute_seconds": pa.float64(), "transfer_seconds": pa.float64(),
        "status": pa.string(), "round_end": pa.float64(),
    },
    "timings": {
        "round": pa.int32(), "stage": pa.string(), "cohort": pa.string(), "started": pa.float64(),
        "seconds": pa.float64(), "cpu_seconds": pa.float64(),
    },
    "embeddings": {
        "round": pa.int32(), "agent": pa.string(), "entity": pa.string(), "values": pa.list_(pa.float32()),
    },
}  # fmt: skip
TYPES["control"] = TYPES["metrics"]


def table_of(name: str, rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Give a table of the contract from its rows."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(TYPES[name])
    return pa.table(
        {
            column: pa.array(list(values), kind)
            for (column, kind), values in zip(TYPES[name].items(), columns, strict=True)
        }
    )


def write_table(folder: Path, name: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write one of the contract's tables."""
    parquet.write_table(table_of(name, rows), folder / f"{name}.parquet")


def noise(*parts: object) -> float:
    """Give a number in [-1, 1] that depends on its arguments only."""
    number = 0
    for character in repr(parts):
        number = (number * 131 + ord(character)) % 1_000_003
    return math.sin(number * 12.9898)


def links_of(pattern: str, learners: Sequence[str]) -> list[tuple[str, str]]:
    """Give who sends to whom in one round."""
    if pattern == "distributed":
        return [link for name in learners for link in ((name, "server"), ("server", name))]
    if pattern == "hierarchical":
        edges = [f"edge-{index}" for index in range(max(2, len(learners) // 5))]
        pairs = [(name, edges[index % len(edges)]) for index, name in enumerate(learners)]
        pairs += [(edge, "cloud") for edge in edges]
        return pairs + [(parent, child) for child, parent in pairs]
    pairs = [(name, learners[(index + 1) % len(learners)]) for index, name in enumerate(learners)]
    return pairs + [(second, first) for first, second in pairs]


def write_run(
    folder: Path,
    agents: int = 20,
    rounds: int = 12,
    labels: int = 10,
    seed: int = 1,
    pattern: str = "distributed",
    names: Sequence[str] | None = None,
    groups: Sequence[str] = ("phone", "laptop"),
    exchange: bool = True,
    control: bool = True,
    clock: bool = True,
    lift: float = 0.08,
    spec: Mapping[str, Any] | None = None,
    status: str = "finished",
    cite: str = "Li and Wang 2019, arXiv:1910.03581",
) -> Path:
    """Write a whole made-up run folder and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    learners = (
        list(names) if names is not None else [f"{groups[i % len(groups)]}-{i // len(groups)}" for i in range(agents)]
    )
    group = {name: groups[index % len(groups)] for index, name in enumerate(learners)}
    links = links_of(pattern, learners) if exchange else []
    others = [name for name in dict.fromkeys(end for link in links for end in link) if name not in group]
    others = others or (["server"] if pattern == "distributed" else [])
    metrics, alone, ledger, memory, partition, times, timings = [], [], [], [], [], [], []
    size = {name: int(90 + 60 * noise(name, "size")) for name in learners}
    for place, name in enumerate(learners):
        for label in range(labels):
            closeness = math.exp(-((place % labels - label) ** 2) / 4) + 0.05
            partition.append((name, "train", str(label), int(size[name] * closeness / 2)))
            partition.append((name, "test", str(label), int(size[name] * closeness / 8)))
    partition += [("everyone", "public", str(label), 36) for label in range(labels)]
    now = 0.0
    for number in range(rounds + 1):
        now += 40 + 9 * noise(seed, number) if number else 0
        for name in learners:
            talent = 0.62 + 0.12 * noise(name, "talent")
            wobble = 0.01 * noise(seed, number, name)
            grown = 1 - math.exp(-number / (rounds / 4))
            metrics.append((number, name, group[name], "learner", "accuracy", 0.1 + (talent + lift - 0.1) * grown
                            + wobble + 0.11 * grown * noise(name), size[name] // 4))  # fmt: skip
            metrics.append((number, name, group[name], "learner", "loss", 2.3 - 1.5 * grown, size[name] // 4))
            alone.append((number, name, group[name], "learner", "accuracy", 0.1 + (talent - 0.1) * grown - wobble,
                          size[name] // 4))  # fmt: skip
            memory.append((number, name, "learner", "sensory", size[name], 260 * size[name]))
            memory.append((number, name, "learner", "procedural", 1, 48_000 if group[name] == groups[0] else 210_000))
            if exchange:
                memory.append((number, name, "learner", "episodic", 300, 24_000 + 900 * number))
                memory.append((number, name, "learner", "working", 300, 12_000))
            if number and clock:
                transfer = 4 + noise(name)
                times.append((number, name, 20 + 5 * noise(name, number), transfer, "took part", now))
        for name in others:
            role = name.split("-")[0]
            memory.append((number, name, role, "semantic", 10, 4_000 + 400 * number))
        if number == 0:
            continue
        for sender, receiver in links:
            form = "logits" if sender in group else "class_logits"
            heavy = int(12_400 + 3_000 * noise(sender) + 500 * noise(number, receiver))
            state = "lost" if noise(sender, receiver, number) > 0.998 else "delivered"
            ledger.append((number, 0, sender, receiver, form, "float16", 300, heavy, 2 * heavy, state))
            if sender in group and number % 3 == 0:
                ledger.append((number, 1, sender, receiver, "prototypes", "float32", 10, 2_700, 2_560, "delivered"))
        timings.append((number, "train", "0", 3.0 * number, 2.5, 2.4))
    tables = {"metrics": metrics, "ledger": ledger, "memory": memory, "partition": partition, "timings": timings}
    if control:
        tables["control"] = alone
    tables["clock"] = times
    for name, rows in tables.items():
        write_table(folder, name, rows)
    resolved: dict[str, Any] = {
        "name": "fedmd-digits", "cite": cite, "setting": "fl", "seed": seed, "rounds": rounds,
        "data": {"dataset": "digits", "partition": {"by": "dirichlet", "alpha": 0.3}, "public": {"share": 0.2}},
        "agents": [{"name": each, "count": sum(g == each for g in group.values()), "model": "mlp"} for each in groups],
        "pattern": pattern,
        "recipe": [{"train": {"epochs": 1}}, {"extract": {"knowledge": "logits"}}, {"aggregate": {"by": "mean"}},
                   {"absorb": {"loss": "kl", "temperature": 2}}],
    }  # fmt: skip
    resolved.update(spec or {})
    # JSON is YAML, and a hostile name cannot break it.
    (folder / "spec.yaml").write_text(json.dumps(resolved, indent=2), encoding="utf-8")
    last = {row[1]: row[5] for row in metrics if row[4] == "accuracy"}
    left = {row[1]: row[5] for row in alone}
    gains = [last[name] - left[name] for name in last]
    total = sum(last[name] * (size[name] // 4) for name in last) / sum(size[name] // 4 for name in last)
    summary = {
        "name": "fedmd-digits", "recipe": "fedmd", "pattern": pattern, "dataset": "digits", "seed": seed,
        "rounds": rounds, "agents": len(learners), "accuracy": total, "accuracy_mean": sum(last.values()) / len(last),
        "accuracy_worst": min(last.values()), "control_accuracy": 0.6 if control else None,
        "gain_mean": sum(gains) / len(gains) if control else None, "gain_worst": min(gains) if control else None,
        "agents_below_control": sum(gain < 0 for gain in gains) if control else None,
        "bytes": sum(row[7] for row in ledger), "raw_bytes": sum(row[8] for row in ledger), "packets": len(ledger),
        "bytes_held": {"procedural": 1}, "simulated_seconds": now if clock else 0.0,
    }  # fmt: skip
    run = {
        "digest": "3f9a1c0b77" + "0" * 54, "status": status, "seed": seed, "workers": 2, "cite": cite,
        "versions": {"codistill": "0.1.0", "python": "3.11.7", "torch": "2.11.0", "prefect": "3.8.8"},
        "data": {"digits": "sha256:" + "ab" * 32}, "started": "2026-01-02T03:04:05Z",
        "finished": "2026-01-02T03:05:47Z", "seconds": 102.4,
    }  # fmt: skip
    plan = {
        "rounds": rounds,
        "agents": [{"name": name, "group": group[name], "role": "learner", "model": "mlp"} for name in learners]
        + [{"name": name, "role": name.split("-")[0]} for name in others],
    }
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    if status == "finished":
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder
