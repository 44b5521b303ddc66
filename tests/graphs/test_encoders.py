"""Every encoder, by either back end, is its formula edge by edge; values and gradients, in float64 and float32."""

import pickle

import pytest
import torch
from codistill.graphs.encoders.propagation import Propagation, bundles_of
from codistill.graphs.structure import message_graph
from codistill.tests.graphs import formula_encoders
from codistill.tests.graphs.drawn import graphs
from codistill.tests.graphs.made_encoders import ALL, BACKENDS, by, difference, make, tables, values_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st


def by_formula(encoder, name, parameters, triples, rows):
    composition = parameters.get("composition", "sub")
    return values_and_gradients(
        encoder, lambda made, x, z: formula_encoders.encode(made, name, triples, x, z, composition), rows, torch.float64
    )


@pytest.mark.parametrize("backend", BACKENDS)
@ALL
@given(given_graph=graphs(), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_an_encoder_is_its_formula(backend, name, parameters, given_graph, seed):
    triples, entities, relations = given_graph
    encoder, rows = make(name, parameters, relations, seed=seed), tables(entities, relations, seed=seed)
    expected = by_formula(encoder, name, parameters, triples, rows)
    propagation = Propagation(message_graph(triples, entities, relations), backend)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        found = by(propagation, encoder, rows, dtype)
        assert {one.dtype for one in found} == {dtype}
        assert difference(found, expected) < tolerance


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "parameters", "inside", "outside"),
    [
        ("rgcn", {"layers": 2}, (4, 2), (6, 2)),
        ("compgcn", {"composition": "mul", "layers": 2}, (4, 2), (4, 2)),
        ("compgcn", {"composition": "sub"}, (3, 5), (6, 3)),
        ("attention", {"heads": 3, "layers": 2}, (4, 2), (6, 3)),
    ],
)
def test_rows_come_out_as_wide_as_the_decoder_needs_them(backend, name, parameters, inside, outside):
    """RotatE's relations are half as wide as its entities, and an embedding need not have the decoder's width."""
    triples = torch.tensor([[0, 0, 1], [2, 1, 0], [2, 1, 2], [3, 0, 2]])
    encoder, rows = make(name, parameters, 2, inside, outside), tables(5, 2, inside)
    found = by(Propagation(message_graph(triples, 5, 2), backend), encoder, rows, torch.float64)
    assert [one.shape for one in found[:2]] == [(5, outside[0]), (2, outside[1])]
    assert difference(found, by_formula(encoder, name, parameters, triples, rows)) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
@ALL
def test_gradients_are_those_of_finite_differences(backend, name, parameters):
    triples = torch.tensor([[0, 0, 1], [2, 1, 0], [2, 1, 2], [3, 0, 2], [0, 1, 2], [1, 0, 2]])
    encoder, rows = make(name, parameters, 2).double(), tables(5, 2)
    propagation = Propagation(message_graph(triples, 5, 2), backend)
    weights = dict(encoder.named_parameters())

    def encode(x, z, *given_weights):
        return torch.func.functional_call(encoder, dict(zip(weights, given_weights, strict=True)), (propagation, x, z))

    leaves = [one.detach().clone().requires_grad_() for one in (*rows, *weights.values())]
    assert torch.autograd.gradcheck(encode, leaves, atol=1e-7)
    if backend == "torch" and name != "attention":
        assert torch.autograd.gradgradcheck(encode, leaves, atol=1e-7)


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_pairs_that_hear_the_same_single_source_share_a_bundle_and_no_others(given_graph):
    triples, entities, relations = given_graph
    graph = message_graph(triples, entities, relations)
    made = bundles_of(graph)
    pointers = made.sources.pointers.tolist()
    inside = [
        tuple(made.sources.columns[begin:end].tolist()) for begin, end in zip(pointers[:-1], pointers[1:], strict=True)
    ]
    contents = list(zip(made.relations.tolist(), inside, strict=True))
    assert made.relations.diff().ge(0).all()
    heard = []
    for pair in range(len(graph.pairs)):
        begin, end = graph.pairs.pointers[pair : pair + 2].tolist()
        heard.append((graph.pairs.relations[pair].item(), tuple(graph.sources[begin:end].tolist())))
    assert [contents[bundle] for bundle in made.of_pairs.tolist()] == heard
    single = {one for one in heard if len(one[1]) == 1}
    assert len(contents) == len(single) + sum(len(one[1]) > 1 for one in heard)


def test_an_encoder_holds_nothing_but_its_weights():
    encoder = make("rgcn", {}, 1)
    encoder(Propagation(message_graph(torch.tensor([[0, 0, 1]]), 2, 1)), *[one.float() for one in tables(2, 1)])
    again = pickle.loads(pickle.dumps(encoder))
    assert {name for name, _ in again.named_parameters()} == {
        f"layers.0.{name}" for name in ("bases", "coefficients", "loop", "bias")
    }


@ALL
def test_an_entity_without_a_neighbour_has_a_row_and_gradients_of_its_own(name, parameters):
    encoder, rows = make(name, parameters, 1), tables(3, 1)
    found = by(Propagation(message_graph(torch.tensor([[0, 0, 1]]), 3, 1)), encoder, rows, torch.float64)
    assert all(one.isfinite().all() for one in found)
    assert found[0][2].abs().sum() > 0
    assert found[2][2].abs().sum() > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make("attention", {"heads": 3}, 1), "rows of 4 numbers cannot be shared by 3 heads"),
        (lambda: make("rgcn", {}, 1, (4, 4), (4, 2)), "rgcn does not change rows of relations"),
        (lambda: Propagation(message_graph(torch.tensor([[0, 0, 1]]), 2, 1), "dlg"), "no back end 'dlg'.* torch, dgl"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("relations", "shapes", "message"),
    [
        (2, [(3, 4), (2, 4)], "made for 2 relations and the graph has 1"),
        (1, [(2, 4), (1, 4)], r"rows of entities are \[2, 4\]; the encoder expects \[3, 4\]"),
        (1, [(3, 4), (1, 5)], r"rows of relations are \[1, 5\]; the encoder expects \[1, 4\]"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_a_sentence(relations, shapes, message):
    propagation = Propagation(message_graph(torch.tensor([[0, 0, 1]]), 3, 1))
    with pytest.raises(ValueError, match=message):
        make("compgcn", {}, relations)(propagation, *[torch.zeros(shape) for shape in shapes])
