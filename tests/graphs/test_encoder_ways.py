"""What the benchmark of the encoders measures beside each other makes the same rows and the same gradients."""

import time
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from codistill.graphs.encoders.products import BACKENDS
from codistill.graphs.encoders.propagation import Propagation
from codistill.graphs.structure import message_graph

pytestmark = pytest.mark.skipif(find_spec("dgl") is None, reason="DGL is not installed (the extra is called graphs)")
NAMES = ["GCN", "R-GCN, 3 bases", "CompGCN sub", "CompGCN mul", "attention, 1 head"]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("name", NAMES)
def test_all_ways_make_the_same(name):
    from codistill.tests.benchmarks import encoders, encoders_plain

    source = torch.Generator().manual_seed(0)
    triples = torch.stack([torch.randint(most, (150,), generator=source) for most in (30, 4, 30)], 1)
    graph = message_graph(triples, 32, 4)
    measured = encoders.cases(32, 4, 6, 3)
    assert list(measured) == NAMES
    case = measured[name]
    leaves = [torch.randn(shape, generator=source).requires_grad_() for shape in case.takes]
    ways = {backend: partial(case.ours, Propagation(graph, backend)) for backend in BACKENDS}
    ways |= {called: partial(other, encoders_plain.Given(graph)) for called, other in case.others.items()}
    encoders.compare(ways, leaves)
    with pytest.raises(AssertionError):
        encoders.compare({**ways, "another": lambda *rows: case.ours(Propagation(graph), *rows) * 1.01}, leaves)


def test_ways_take_turns_and_the_first_turn_is_not_counted():
    from codistill.tests.benchmarks import encoders

    called = []

    def work(name):
        called.append(name)
        until = time.process_time() + 0.002
        while time.process_time() < until:
            pass

    taken = encoders.turns({name: lambda name=name: work(name) for name in "ab"}, 2)
    assert called == list("ababab")
    assert [len(taken[name]) for name in "ab"] == [2, 2]
    assert min(taken["a"] + taken["b"]) >= 0.002
