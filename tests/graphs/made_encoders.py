"""Graphs of published clients, and encoders of them that tests make and take apart."""

import copy
from importlib.util import find_spec

import pytest
import torch
from codistill.graphs.encoders import ENCODERS, Sizes, Widths
from codistill.tests.benchmarks.encoders import SHARED, read_client

needs_dgl = pytest.mark.skipif(find_spec("dgl") is None, reason="DGL is not installed (the extra is called graphs)")
INSTALLED = ["torch", "dgl"] if find_spec("dgl") else ["torch"]
BACKENDS = ["torch", pytest.param("dgl", marks=needs_dgl)]
KINDS = [
    ("rgcn", {"bases": 3}),
    ("rgcn", {"bases": 2, "layers": 2}),
    ("compgcn", {"composition": "sub"}),
    ("compgcn", {"composition": "mul", "layers": 2}),
    ("compgcn", {"composition": "corr"}),
    ("attention", {"heads": 1}),
    ("attention", {"heads": 2, "layers": 2}),
]
ALL = pytest.mark.parametrize(("name", "parameters"), KINDS, ids=lambda value: str(value))


def make(name, parameters, relations, inside=(4, 4), outside=(4, 4), seed=0):
    entry = ENCODERS[name]
    sizes = Sizes(relations, Widths(*inside), Widths(*outside))
    return entry.function(entry.parameters(**parameters), sizes, torch.Generator().manual_seed(seed))


def tables(entities, relations, widths=(4, 4), seed=1):
    generator = torch.Generator().manual_seed(seed)
    counts = zip((entities, relations), widths, strict=True)
    return tuple(torch.randn(count, width, generator=generator, dtype=torch.float64) for count, width in counts)


def values_and_gradients(encoder, encode, rows, dtype, seed=2):
    """Rows of entities and relations, and the gradients of a weighted sum of them by both tables and all weights."""
    encoder = copy.deepcopy(encoder).to(dtype)
    leaves = [one.detach().to(dtype, copy=True).requires_grad_() for one in rows]
    made = encode(encoder, *leaves)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one) for one in made]
    total = sum((one * weight).sum() for one, weight in zip(made, weights, strict=True))
    wanted = [*leaves, *encoder.parameters()]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    zeros = [
        torch.zeros_like(one) if gradient is None else gradient for one, gradient in zip(wanted, gradients, strict=True)
    ]
    return [one.detach() for one in made] + zeros


def difference(found, expected):
    """The largest difference, relative to the largest number of each tensor (or to 1)."""
    assert [one.shape for one in found] == [one.shape for one in expected]
    pairs = zip(found, expected, strict=True)
    return max(
        ((one.double() - other.double()).abs().max() / other.abs().max().clamp(min=1)).item()
        for one, other in pairs
        if one.numel()
    )


def by(propagation, encoder, rows, dtype):
    return values_and_gradients(encoder, lambda made, x, z: made(propagation, x, z), rows, dtype)


def published(client):
    """The training triples of a client of FB15k-237-R10, or a made-up graph of its kind where the data are not here."""
    if SHARED.is_dir():
        return read_client(SHARED, client)
    source = torch.Generator().manual_seed(client)
    ids = [torch.rand(20_000, generator=source).pow(2).mul(most).long() for most in (6000, 20, 6000)]
    return torch.stack(ids, 1), 6000, 20
