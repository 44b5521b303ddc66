"""The back ends of the encoders agree, on clients' graphs too, and neither leaves its process."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from codistill.graphs.encoders.incidence import Incidence
from codistill.graphs.encoders.products import product_of
from codistill.graphs.encoders.propagation import Propagation
from codistill.graphs.structure import message_graph
from codistill.tests.graphs.made_encoders import (
    ALL,
    BACKENDS,
    INSTALLED,
    by,
    difference,
    make,
    needs_dgl,
    published,
    tables,
)


@needs_dgl
@pytest.mark.parametrize("client", [2, 8])
@ALL
def test_the_back_ends_agree_on_a_clients_graph(name, parameters, client):
    triples, entities, relations = published(client)
    graph = message_graph(triples, entities, relations)
    widths = (32, 32)
    encoder, rows = make(name, parameters, relations, widths, widths), tables(entities, relations, widths)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        ours, theirs = (by(Propagation(graph, backend), encoder, rows, dtype) for backend in ("torch", "dgl"))
        assert difference(ours, theirs) < tolerance


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@ALL
def test_the_twin_on_a_gpu_agrees_with_the_cpu(name, parameters):
    triples, entities, relations = published(2)
    graph = message_graph(triples, entities, relations)
    encoder, rows = make(name, parameters, relations, (32, 32), (32, 32)), tables(entities, relations, (32, 32))
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        expected = by(Propagation(graph), encoder, rows, dtype)
        there = by(Propagation(graph.to("cuda")), encoder.to("cuda"), [one.cuda() for one in rows], dtype)
        encoder.to("cpu")
        assert difference([one.cpu() for one in there], expected) < tolerance


@pytest.mark.parametrize("backend", BACKENDS)
@ALL
def test_equal_generators_make_equal_encoders_and_a_second_call_the_same_rows(backend, name, parameters):
    triples, entities, relations = published(8)
    propagation = Propagation(message_graph(triples, entities, relations), backend)
    rows = tables(entities, relations)
    first, again, other = (make(name, parameters, relations, seed=seed) for seed in (3, 3, 4))
    once, twice, third, different = (
        by(propagation, encoder, rows, torch.float32) for encoder in (first, first, again, other)
    )
    assert all(
        torch.equal(one, two) and torch.equal(one, three) for one, two, three in zip(once, twice, third, strict=True)
    )
    assert not torch.equal(once[0], different[0])


def test_the_number_of_threads_changes_nothing():
    made = [run_with_threads(count) for count in ("1", "2")]
    assert {(one.returncode, one.stderr) for one in made} == {(0, "")}
    assert len({one.stdout for one in made}) == 1
    assert len(made[0].stdout.split()) == 3 * len(INSTALLED)


def run_with_threads(count):
    """Digests of sums and their gradients by every back end, in a process with ``count`` threads."""
    program = """
import hashlib, sys, torch
from codistill.tests.graphs.made_encoders import published, tables
from codistill.graphs.encoders.propagation import Propagation
from codistill.graphs.structure import message_graph
torch.set_num_threads(int(sys.argv[1]))  # MKL would not take more than there are physical cores
assert torch.get_num_threads() == int(sys.argv[1])
triples, entities, relations = published(8)
x, z = (one.float().requires_grad_() for one in tables(entities, 2 * relations, (32, 32)))
for backend in sys.argv[2:]:
    way = Propagation(message_graph(triples, entities, relations), backend)
    weights = torch.rand(len(way.graph), 1, generator=torch.Generator().manual_seed(5)).requires_grad_()
    for made, leaves in (
        (way.bundle_means.sum(x), [x]),
        (way.side_relations.sum(z), [z]),
        (way.edges.weighted_sum(x[:, None], way.edges.softmax(weights)), [x, weights]),
    ):
        tensors = [made, *torch.autograd.grad(made.pow(2).sum(), leaves)]
        print(hashlib.sha256(b"".join(one.detach().numpy().tobytes() for one in tensors)).hexdigest())
"""
    # The environment too: DGL has an OpenMP of its own, which only that reaches.
    return subprocess.run(
        [sys.executable, "-c", program, count, *INSTALLED],
        env={**os.environ, "OMP_NUM_THREADS": count},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_back_end_made_never_crosses_a_process_border(backend):
    propagation = Propagation(message_graph(torch.tensor([[0, 0, 1]]), 2, 1), backend)
    propagation.edges.sum(torch.ones(2, 1))
    with pytest.raises(TypeError, match="stays in the process that made it; send its MessageGraph"):
        pickle.dumps(propagation)
    with pytest.raises(TypeError, match="stays in the process that made it"):
        copy.deepcopy(propagation)


@needs_dgl
def test_dgl_refuses_another_device_in_a_sentence():
    graph = message_graph(torch.tensor([[0, 0, 1]]), 2, 1).to("meta")
    with pytest.raises(ValueError, match="DGL works on a CPU, and the graph is on meta"):
        product_of("dgl")(Incidence(graph.sources, graph.sources, 2))


def test_without_dgl_the_encoders_run_by_torch(tmp_path):
    program = """
import sys, torch
sys.modules["dgl"] = None
from codistill.tests.graphs.made_encoders import make, tables
from codistill.graphs.encoders.incidence import Incidence
from codistill.graphs.encoders.products import product_of
from codistill.graphs.encoders.propagation import Propagation
from codistill.graphs.structure import message_graph
graph = message_graph(torch.tensor([[0, 0, 1]]), 2, 1)
rows, _ = make("attention", {}, 1)(Propagation(graph), *[one.float() for one in tables(2, 1)])
print(tuple(rows.shape))
try:
    Propagation(graph, "dgl").edges
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shape, message = done.stdout.splitlines()
    assert shape == "(2, 4)"
    assert message.startswith("DGL is not installed: pip install 'codistill[graphs]'")
