"""Measures the messages of the structure encoders on a client's graph: ours by both back ends, beside the usual ways.

    python -m codistill.tests.benchmarks.encoders

Client 2 of FB15k-237-R10 (29,174 triples, 8,897 entities, 23 relations), 128 numbers a row, float32, one thread,
forward and backward. All ways take turns, and what they make is compared before anything is measured. Milliseconds are
of the process's CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tarfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from codistill.graphs.encoders.attention import attended
from codistill.graphs.encoders.compositions import COMPOSITIONS
from codistill.graphs.encoders.products import BACKENDS
from codistill.graphs.encoders.propagation import Propagation
from codistill.graphs.encoders.rgcn import messages
from codistill.graphs.structure import message_graph
from torch import Tensor

from . import encoders_plain as plain

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
Way = Callable[..., Tensor]


class Case(NamedTuple):
    """One kind of messages: what it takes besides the graph, ours, and the others by what they are called."""

    takes: tuple[tuple[int, ...], ...]
    ours: Way
    others: dict[str, Way]


def read_client(shared: Path, *clients: int) -> tuple[Tensor, int, int]:
    """Return the training triples of clients of FB15k-237-R10FL, and how many entities and relations they have."""
    rows: list[list[str]] = []
    with tarfile.open(shared / "kg_fb15k237_r10fl" / "R10FL.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(tuple(f"/{client}/train.txt" for client in clients)):
                file = archive.extractfile(member)
                assert file is not None
                rows += [line.split("\t") for line in file.read().decode().splitlines()]
    entities = {name: one for one, name in enumerate(sorted({name for row in rows for name in (row[0], row[2])}))}
    relations = {name: one for one, name in enumerate(sorted({row[1] for row in rows}))}
    triples = [(entities[head], relations[relation], entities[tail]) for head, relation, tail in rows]
    return torch.tensor(triples), len(entities), len(relations)


def cases(entities: int, relations: int, width: int, bases: int) -> dict[str, Case]:
    """Return what is measured, by name."""
    x, z = (entities, width), (2 * relations, width)
    return {
        "GCN": Case(
            (x,),
            lambda way, x: way.edges.sum(x),
            {"index_add": plain.gcn_index_add, "torch CSR": plain.gcn_csr, "DGL copy_u": plain.gcn_dgl},
        ),
        f"R-GCN, {bases} bases": Case(
            (x, (2 * relations, bases), (bases, width, width)),
            lambda way, x, coefficients, bases: messages(way, x, bases, coefficients),
            {
                "loop over relations": plain.rgcn_loop,
                "pairs, index_add": plain.rgcn_pairs,
                "pairs, DGL": plain.rgcn_dgl_pairs,
            },
        ),
        "CompGCN sub": Case(
            (x, z),
            COMPOSITIONS["sub"].mean,
            {"index_add": plain.sub_index_add, "factored, torch CSR": plain.sub_csr, "factored, DGL": plain.sub_dgl},
        ),
        "CompGCN mul": Case(
            (x, z),
            COMPOSITIONS["mul"].mean,
            {
                "index_add": plain.mul_index_add,
                "DGL u_mul_e": plain.mul_dgl_edges,
                "pairs, DGL": plain.mul_dgl_pairs,
            },
        ),
        "attention, 1 head": Case(
            (x, z, (entities,), (width,)),
            lambda way, x, z, targets, by: attended(way, x[:, None], z[:, None], targets[:, None], by[None])[:, 0],
            {"index_add": plain.attention_index_add, "DGL edge_softmax": plain.attention_dgl},
        ),
    }


def turns(ways: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each call of each way, in turns; one call of each comes before and is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeat + 1):
        for name, call in ways.items():
            since = time.process_time()
            call()
            if turn:
                taken[name].append(time.process_time() - since)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[2], help="of 0 to 9; several are put together")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--bases", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--shared", type=Path, default=SHARED)
    said = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    triples, entities, relations = read_client(said.shared, *said.clients)
    graph = message_graph(triples, entities, relations)
    print(f"clients {said.clients}: {len(triples):,} triples, {entities:,} entities, {relations} relations;")
    bundles = len(Propagation(graph).bundles.relations)
    print(f"{len(graph):,} edges, {len(graph.pairs):,} (target, relation) pairs, {bundles:,} bundles\n")
    given = plain.Given(graph)
    source = torch.Generator().manual_seed(1)
    for name, case in cases(entities, relations, said.width, said.bases).items():
        leaves = [(torch.randn(shape, generator=source) * shape[-1] ** -0.5).requires_grad_() for shape in case.takes]
        ways = {f"ours, {backend}": partial(case.ours, Propagation(graph, backend)) for backend in BACKENDS}
        ways |= {called: partial(other, given) for called, other in case.others.items()}
        measure(name, ways, leaves, said.repeat)


def made_by(way: Way, leaves: list[Tensor]) -> list[Tensor]:
    """Return what ``way`` makes of ``leaves`` and, of a sum of it with changing signs, the gradients."""
    made = way(*leaves)
    weights = torch.ones_like(made)
    weights.view(-1)[::3] = -1
    return [made.detach(), *torch.autograd.grad(made, leaves, weights)]


def compare(ways: dict[str, Way], leaves: list[Tensor]) -> None:
    """Raise ``AssertionError`` if two of ``ways`` make something else of ``leaves``."""
    expected = made_by(next(iter(ways.values())), leaves)
    for way in ways.values():
        for one, other in zip(made_by(way, leaves), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def measure(name: str, ways: dict[str, Way], leaves: list[Tensor], repeat: int) -> None:
    """Compare what ``ways`` make, measure them, and print milliseconds and ratios to the first."""
    compare(ways, leaves)
    taken = turns({called: partial(made_by, way, leaves) for called, way in ways.items()}, repeat)
    first = next(iter(taken.values()))
    print(f"{name:28} {'minimum':>9} {'median':>9}   times ours by torch (minima, medians)")
    for called, seconds in taken.items():
        least, middle = 1000 * min(seconds), 1000 * statistics.median(seconds)
        ratios = f"{min(seconds) / min(first):6.2f} {statistics.median(seconds) / statistics.median(first):6.2f}"
        print(f"  {called:26} {least:9.2f} {middle:9.2f}   {ratios}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
