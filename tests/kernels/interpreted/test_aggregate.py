"""The kernels of aggregate_logits against the formula over all clients at once, in float64."""

import math
import os

import pytest
import torch
from codistill.kernels.aggregate import LogitAggregate, aggregate_logits
from codistill.kernels.aggregate_settings import RULES
from codistill.tests.kernels.formula_aggregate import exact
from codistill.tests.kernels.formula_kd import relative

KINDS = [(rule, "probabilities") for rule in RULES] + [(rule, "logits") for rule in ("mean", "entropy", "confidence")]


def made_up(count, rows, classes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(rows, classes, generator=generator) * 3).to(dtype) for _ in range(count)]


@pytest.mark.parametrize(("by", "space"), KINDS)
@pytest.mark.parametrize(("count", "classes"), [(1, 10), (3, 257), (5, 1000), (3, 1003), (5, 9001)])
def test_the_answer_is_that_of_the_formula(guard, by, space, count, classes):
    rows = 2 if classes > 8192 else 3
    clients = [guard(client) for client in made_up(count, rows, classes)]
    said = {"by": by, "space": space, "temperature": 2.0, "entropy_temperature": 0.5, "sharpening_temperature": 0.3}
    weights = torch.rand(rows, count) + 0.1
    for given in (None, weights) if classes == 257 else (weights,):
        found = aggregate_logits(clients, given if given is None else guard(given), backend="triton", **said)
        assert relative(found, exact(clients, given, **said)) < 1e-5


@pytest.mark.parametrize("classes", [50, 9001])
@pytest.mark.parametrize(("by", "space"), KINDS)
def test_half_precision_clients_one_at_a_time(guard, classes, by, space):
    clients = [*made_up(2, 2, classes, torch.bfloat16), *made_up(1, 2, classes, torch.float16)]
    streamed = (guard(client) for client in clients)
    found = aggregate_logits(streamed, [1.0, 2.0, 0.5], by=by, space=space, backend="triton")
    assert relative(found, exact(clients, [1.0, 2.0, 0.5], by=by, space=space)) < 1e-5


@pytest.mark.parametrize("classes", [10, 9001])
@pytest.mark.parametrize(("by", "space"), KINDS)
def test_broken_rows_and_clients_without_weight(guard, classes, by, space):
    clients = made_up(3, 4, classes)
    weights = torch.ones(4, 3)
    whole = exact(clients, weights, by=by, space=space)
    clients[1][2, 5] = math.nan
    clients[2][1] = math.inf
    weights[1, 2] = 0
    weights[3] = 0
    expected = exact([client[:2] for client in clients[:2]], by=by, space=space)
    for given in (clients, iter(clients)):
        found = aggregate_logits(given, guard(weights), by=by, space=space, backend="triton")
        assert relative(found[0], whole[0]) < 1e-5
        assert relative(found[1], expected[1]) < 1e-5
        assert found[2, 5].isnan()
        assert found[2].isnan().all() or (by, space) == ("mean", "logits")
        if by != "sharpened":
            assert not found[3].any()


@pytest.mark.parametrize("classes", [20, 9001])
def test_excluded_classes_ties_and_sharp_weights(guard, classes):
    clients = made_up(3, 2, classes)
    clients[0][:, 4:15] = -math.inf
    clients[2][:, classes // 2 :] = -math.inf
    for by in RULES:
        found = aggregate_logits([guard(client) for client in clients], by=by, backend="triton")
        assert relative(found, exact(clients, by=by)) < 1e-5
    undecided = torch.zeros(1, classes)
    undecided[0, [3, 8, classes - 1]] = 1.0
    votes = aggregate_logits([guard(undecided)], by="votes", backend="triton")
    assert votes[0].nonzero().tolist() == [[3]]
    said = {"by": "entropy", "entropy_temperature": 1e-3}
    clients = [client / 30 for client in made_up(3, 2, classes)]
    assert relative(aggregate_logits(clients, backend="triton", **said), exact(clients, **said)) < 1e-3


def test_no_rows_strides_and_a_running_answer(guard):
    assert aggregate_logits(made_up(2, 0, 10), backend="triton").shape == (0, 10)
    wide = guard(torch.randn(3, 30))
    turned = torch.randn(12, 3).t()
    clients = [wide[:, 4:16], turned]
    found = aggregate_logits(clients, backend="triton")
    assert relative(found, exact(clients)) < 1e-5
    aggregate = LogitAggregate(by="confidence", backend="triton")
    for number, client in enumerate(made_up(3, 2, 12)):
        aggregate.add(client, 1.0 + number)
        clients = made_up(3, 2, 12)[: number + 1]
        weights = [1.0 + k for k in range(number + 1)]
        assert relative(aggregate.result(), exact(clients, weights, by="confidence")) < 1e-5


def far_apart(path, classes):
    """Three rows of which the last starts beyond what 32 bits can say; the file between them takes no room."""
    apart = 1_500_000_000
    size = 2 * apart + classes
    path.touch()
    os.truncate(path, 2 * size)
    rows = torch.from_file(str(path), shared=True, size=size, dtype=torch.bfloat16).as_strided((3, classes), (apart, 1))
    rows.copy_(made_up(1, 3, classes, torch.bfloat16)[0])
    return rows


def test_rows_beyond_32_bit_offsets(tmp_path):
    rows = far_apart(tmp_path / "rows", 40)
    for space in ("probabilities", "logits"):
        found = aggregate_logits([rows], space=space, backend="triton")
        assert relative(found, exact([rows], space=space)) < 1e-5
    wide = far_apart(tmp_path / "wide", 9001)
    assert relative(aggregate_logits([wide], backend="triton"), exact([wide])) < 1e-5
