"""The encoders' messages as they are usually written, and as dgl.md of the project's notes measured them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from codistill.graphs.dgl import load_dgl
from codistill.graphs.structure import MessageGraph
from torch import Tensor


@dataclass(frozen=True)
class Given:
    """A message graph and everything that the ways below make of it beforehand."""

    graph: MessageGraph
    sides: Tensor = field(init=False)
    side_degrees: Tensor = field(init=False)
    pair_of_edge: Tensor = field(init=False)
    by_relation: Tensor = field(init=False)
    matrices: dict[str, Tensor] = field(init=False)
    dgl: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        graph, pairs = self.graph, self.graph.pairs
        set_ = object.__setattr__
        set_(self, "sides", graph.targets * 2 + (graph.relations >= graph.relation_count))
        counts = torch.bincount(self.sides, minlength=2 * graph.entity_count)
        set_(self, "side_degrees", counts.clamp(min=1).float()[:, None])
        set_(self, "by_relation", torch.sort(pairs.relations, stable=True).indices)
        place = torch.empty_like(self.by_relation)
        place[self.by_relation] = torch.arange(len(pairs))
        set_(self, "pair_of_edge", place.repeat_interleave(pairs.degrees))
        entities, kinds, edges = graph.entity_count, 2 * graph.relation_count, len(graph)
        shares = 1 / self.side_degrees.flatten()[self.sides]
        shapes = {
            "edges": (graph.targets, graph.sources, torch.ones(edges), (entities, entities)),
            "side_sources": (self.sides, graph.sources, shares, (2 * entities, entities)),
            "side_relations": (self.sides, graph.relations, shares, (2 * entities, kinds)),
        }
        matrices = {
            name: torch.sparse_coo_tensor(torch.stack([rows, columns]), values, shape, check_invariants=False)
            .coalesce()
            .to_sparse_csr()
            for name, (rows, columns, values, shape) in shapes.items()
        }
        set_(self, "matrices", matrices)
        dgl = load_dgl()

        def bipartite(columns: Tensor, rows: Tensor, shape: tuple[int, int]) -> Any:
            names = {"column": shape[1], "row": shape[0]}
            return dgl.heterograph({("column", "of", "row"): (columns, rows)}, num_nodes_dict=names)

        made = {name: bipartite(columns, rows, shape) for name, (rows, columns, _, shape) in shapes.items()}
        made["pairs"] = bipartite(graph.sources, self.pair_of_edge, (len(pairs), entities))
        targets = pairs.targets[self.by_relation]
        made["heard"] = bipartite(torch.arange(len(pairs)), targets, (entities, len(pairs)))
        sides = targets * 2 + (pairs.relations[self.by_relation] >= graph.relation_count)
        made["side_pairs"] = bipartite(torch.arange(len(pairs)), sides, (2 * entities, len(pairs)))
        set_(self, "dgl", {"ops": dgl.ops, **made})

    @property
    def pair_relations(self) -> Tensor:
        """The relation of each pair, in the order of relations."""
        return self.graph.pairs.relations[self.by_relation]

    def zeros(self, rows: int, like: Tensor) -> Tensor:
        """Return zeros [rows, as wide as ``like``]."""
        return like.new_zeros(rows, like.shape[1])


def gcn_index_add(given: Given, x: Tensor) -> Tensor:
    """Every message is a row; rows are added by target."""
    return given.zeros(len(x), x).index_add(0, given.graph.targets, x[given.graph.sources])


def gcn_csr(given: Given, x: Tensor) -> Tensor:
    """Compressed sparse rows times the table."""
    return given.matrices["edges"] @ x


def gcn_dgl(given: Given, x: Tensor) -> Tensor:
    """DGL's copy_u_sum."""
    return given.dgl["ops"].copy_u_sum(given.dgl["edges"], x)


def _by_relation(rows: Tensor, coefficients: Tensor, bases: Tensor, relations: Tensor) -> Tensor:
    matrices = torch.einsum("rb,bio->rio", coefficients, bases)
    counts = torch.bincount(relations, minlength=len(coefficients)).tolist()
    parts = zip(rows.split(counts), matrices.unbind(0), strict=True)
    return torch.cat([part @ matrix for part, matrix in parts])


def rgcn_loop(given: Given, x: Tensor, coefficients: Tensor, bases: Tensor) -> Tensor:
    """A loop over relations: their edges' rows times their matrix, added by target."""
    graph = given.graph
    matrices = torch.einsum("rb,bio->rio", coefficients, bases).unbind(0)
    shares = (1 / graph.pairs.degrees).repeat_interleave(graph.pairs.degrees)[:, None]
    out = given.zeros(len(x), x)
    for relation, matrix in enumerate(matrices):
        edges = (graph.relations == relation).nonzero().flatten()
        out = out.index_add(0, graph.targets[edges], x[graph.sources[edges]] * shares[edges] @ matrix)
    return out


def rgcn_pairs(given: Given, x: Tensor, coefficients: Tensor, bases: Tensor) -> Tensor:
    """(target, relation) pairs, added by index_add."""
    graph, count = given.graph, len(given.graph.pairs)
    degrees = graph.pairs.degrees[given.by_relation][:, None]
    means = given.zeros(count, x).index_add(0, given.pair_of_edge, x[graph.sources]) / degrees
    rows = _by_relation(means, coefficients, bases, given.pair_relations)
    return given.zeros(len(x), x).index_add(0, graph.pairs.targets[given.by_relation], rows)


def rgcn_dgl_pairs(given: Given, x: Tensor, coefficients: Tensor, bases: Tensor) -> Tensor:
    """(target, relation) pairs by DGL, as in dgl.md."""
    means = given.dgl["ops"].copy_u_mean(given.dgl["pairs"], x)
    rows = _by_relation(means, coefficients, bases, given.pair_relations)
    return given.dgl["ops"].copy_u_sum(given.dgl["heard"], rows)


def sub_index_add(given: Given, x: Tensor, z: Tensor) -> Tensor:
    """Every message is a row, an entity minus a relation."""
    rows = x[given.graph.sources] - z[given.graph.relations]
    return given.zeros(2 * len(x), x).index_add(0, given.sides, rows) / given.side_degrees


def sub_csr(given: Given, x: Tensor, z: Tensor) -> Tensor:
    """A x - C z by compressed sparse rows, as in dgl.md."""
    return given.matrices["side_sources"] @ x - given.matrices["side_relations"] @ z


def sub_dgl(given: Given, x: Tensor, z: Tensor) -> Tensor:
    """A x - C z by DGL, as in dgl.md."""
    ops = given.dgl["ops"]
    return ops.copy_u_mean(given.dgl["side_sources"], x) - ops.copy_u_mean(given.dgl["side_relations"], z)


def mul_index_add(given: Given, x: Tensor, z: Tensor) -> Tensor:
    """Every message is a row, an entity times a relation."""
    rows = x[given.graph.sources] * z[given.graph.relations]
    return given.zeros(2 * len(x), x).index_add(0, given.sides, rows) / given.side_degrees


def mul_dgl_edges(given: Given, x: Tensor, z: Tensor) -> Tensor:
    """DGL's u_mul_e_sum."""
    return given.dgl["ops"].u_mul_e_mean(given.dgl["side_sources"], x, z[given.graph.relations])


def mul_dgl_pairs(given: Given, x: Tensor, z: Tensor) -> Tensor:
    """(target, relation) pairs by DGL, as in dgl.md."""
    ops = given.dgl["ops"]
    sums = ops.copy_u_sum(given.dgl["pairs"], x) * z[given.pair_relations]
    return ops.copy_u_sum(given.dgl["side_pairs"], sums) / given.side_degrees


def _scores(given: Given, x: Tensor, z: Tensor, targets: Tensor, by: Tensor) -> Tensor:
    graph = given.graph
    return F.leaky_relu((x @ by)[graph.sources] + (z @ by)[graph.relations] + targets[graph.targets], 0.2)


def attention_index_add(given: Given, x: Tensor, z: Tensor, targets: Tensor, by: Tensor) -> Tensor:
    """Every message is a row; the softmax is scattered."""
    graph = given.graph
    scores = _scores(given, x, z, targets, by)
    most = torch.full((len(x),), -torch.inf).scatter_reduce(0, graph.targets, scores.detach(), "amax")
    powers = (scores - most[graph.targets]).exp()
    shares = powers / torch.zeros(len(x)).index_add(0, graph.targets, powers)[graph.targets]
    rows = (x[graph.sources] + z[graph.relations]) * shares[:, None]
    return given.zeros(len(x), x).index_add(0, graph.targets, rows)


def attention_dgl(given: Given, x: Tensor, z: Tensor, targets: Tensor, by: Tensor) -> Tensor:
    """DGL's edge_softmax and u_mul_e_sum, as in dgl.md."""
    ops, edges = given.dgl["ops"], given.dgl["edges"]
    shares = ops.edge_softmax(edges, _scores(given, x, z, targets, by)[:, None])
    return ops.u_mul_e_sum(edges, x, shares) + ops.copy_e_sum(edges, z[given.graph.relations] * shares)
