"""What a run over a knowledge graph reached, client by client, and what one embedding of all triples does for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from codistill.flows.holdings import Holdings, hold
from codistill.flows.launch import Ready, cache_folder
from codistill.flows.report.results import Results
from codistill.graphs.embedding import Embedding
from codistill.graphs.knowledge_graph import entities_of, relations_of
from codistill.graphs.known import KnownTriples
from codistill.graphs.ranking import Quality, both_sides, rank, tails_only
from codistill.specs.schema import Spec
from safetensors.torch import load_file

METRICS = ("mrr", "hits_at_1", "hits_at_3", "hits_at_10", "mrr_tails")


@dataclass(frozen=True)
class Reached:
    """What one run reached: for each metric the value of each client, how many test triples each has, and the cost.

    ``curve`` is the weighted MRR by round; ``cpu`` are the seconds that all steps of all workers took.
    """

    values: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, int]
    curve: Mapping[int, float]
    bytes: int
    cpu: float

    def weighted(self, metric: str) -> float:
        """Return a metric over all clients, each weighing as many test triples as it has."""
        total = sum(self.weights.values())
        return sum(value * self.weights[client] for client, value in self.values[metric].items()) / total


def reached(folder: Path) -> Reached:
    """Read what a finished run reached in its last round."""
    results = Results.read(folder)
    rows = [row for row in results.metrics.to_pylist() if row["role"] == "learner"]
    last = max(row["round"] for row in rows)
    values: dict[str, dict[str, float]] = {}
    weights: dict[str, int] = {}
    for row in rows:
        if row["round"] == last:
            values.setdefault(row["metric"], {})[row["agent"]] = row["value"]
            if row["metric"] == "mrr":
                weights[row["agent"]] = row["weight"]
    curve = {at.round: at.total for at in results.accuracy_by_round() if at.round > 0}
    return Reached(values, weights, curve, sum(results.bytes_by_round().values()), _cpu(results.timings))


def _cpu(timings: pa.Table) -> float:
    return float(sum(timings.column("cpu_seconds").to_pylist()))


def collective(ready: Ready, clients: Spec, names: Sequence[str], runs: Path) -> Reached:
    """Return what the one embedding of the finished run ``ready`` does for each client of another spec's partition.

    Each client's test triples are ranked as the client ranks them: among its own entities, its own triples filtered.
    What was found is kept in the run's folder.
    """
    found = ready.folder.path / "by-client.json"
    own = reached(ready.folder.path)
    if not found.exists():
        qualities = [asdict(one) for one in _for_each(ready.folder.path, hold(clients, cache_folder(runs)), clients)]
        found.write_text(json.dumps(qualities), encoding="utf-8")
    told = json.loads(found.read_text(encoding="utf-8"))
    values = {metric: {n: one[metric] for n, one in zip(names, told, strict=True)} for metric in METRICS}
    weights = {name: one["count"] for name, one in zip(names, told, strict=True)}
    return Reached(values, weights, own.curve, own.bytes, own.cpu)


@dataclass(frozen=True)
class _Client:
    mrr: float
    hits_at_1: float
    hits_at_3: float
    hits_at_10: float
    mrr_tails: float
    count: int


def _for_each(folder: Path, holdings: Holdings, spec: Spec) -> list[_Client]:
    (path,) = (folder / "models").glob("*.safetensors")
    rows = {name.removeprefix("model/"): table for name, table in load_file(path).items()}
    model = spec.agents[0].model
    graph, dealt = holdings.data, holdings.partition
    if len(rows["entities"]) != len(graph.entities):
        raise ValueError(f"{path} has {len(rows['entities'])} entities, and the graph has {len(graph.entities)}")
    made = []
    for train, valid, test in zip(dealt.train, dealt.valid, dealt.test, strict=True):
        names = [of(graph, train, valid, test) for of in (entities_of, relations_of)]
        whole = Embedding(
            *map(len, names),
            model.parameters.dimension,
            model.name,
            torch.Generator(),
            margin=model.parameters.margin,
        )
        whole.entities.data = rows["entities"][torch.from_numpy(names[0])]
        whole.relations.data = rows["relations"][torch.from_numpy(names[1])]
        parts = [graph.x_train[train], graph.x_valid[valid], graph.x_test[test]]
        own = [_local(part, *names) for part in parts]
        ranks = rank(whole, own[2], KnownTriples(torch.cat(own), *map(len, names)))
        quality: Quality = both_sides(ranks)
        hits = (quality.hits_at_1, quality.hits_at_3, quality.hits_at_10)
        made.append(_Client(quality.mrr, *hits, tails_only(ranks).mrr, len(test)))
    return made


def _local(triples: np.ndarray, entities: np.ndarray, relations: np.ndarray) -> torch.Tensor:
    find: Callable[[np.ndarray, int], np.ndarray] = lambda names, at: np.searchsorted(names, triples[:, at])  # noqa: E731
    return torch.from_numpy(np.stack([find(entities, 0), find(relations, 1), find(entities, 2)], axis=1))
