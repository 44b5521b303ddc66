"""aggregate_logits against its formula in float64, its invariants, and what it does in memory and under torch."""

import math
import weakref

import pytest
import torch
from codistill.kernels import watch
from codistill.kernels.aggregate import LogitAggregate, aggregate_logits
from codistill.kernels.aggregate_settings import RULES
from codistill.tests.kernels.formula_aggregate import exact
from codistill.tests.kernels.formula_kd import relative
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.utils import counters

BACKENDS = ["reference", "cpu"]
KINDS = [(rule, "probabilities") for rule in RULES] + [(rule, "logits") for rule in ("mean", "entropy", "confidence")]


def made_up(count, rows, classes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(rows, classes, generator=generator) * 3).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("by", "space"), KINDS)
@pytest.mark.parametrize("count", [1, 3, 5, 9])
@pytest.mark.parametrize("classes", [1, 10, 257])
def test_the_answer_is_that_of_the_formula(backend, by, space, count, classes):
    clients = made_up(count, 5, classes)
    said = {"by": by, "space": space, "temperature": 2.0, "entropy_temperature": 0.5, "sharpening_temperature": 0.3}
    for weights in (None, [0.5 + k for k in range(count)], torch.rand(count) + 0.1, torch.rand(5, count) + 0.1):
        found = aggregate_logits(clients, weights, backend=backend, **said)
        assert found.dtype == torch.float32
        assert relative(found, exact(clients, weights, **said)) < 1e-5


@pytest.mark.parametrize("classes", [1000, 1003, 9001])
@pytest.mark.parametrize(("by", "space"), KINDS)
def test_many_classes(classes, by, space):
    clients = made_up(3, 4, classes)
    assert relative(aggregate_logits(clients, by=by, space=space), exact(clients, by=by, space=space)) < 1e-5


@pytest.mark.parametrize(("by", "space"), KINDS)
def test_other_dtypes(by, space):
    mixed = [*made_up(2, 4, 30, torch.bfloat16), *made_up(2, 4, 30, torch.float16), *made_up(1, 4, 30)]
    assert relative(aggregate_logits(mixed, by=by, space=space), exact(mixed, by=by, space=space)) < 1e-5
    doubles = made_up(5, 4, 30, torch.float64)
    found = aggregate_logits(doubles, [1, 2, 3, 4, 5], by=by, space=space)
    assert found.dtype == torch.float64
    assert relative(found, exact(doubles, [1, 2, 3, 4, 5], by=by, space=space)) < 1e-12


# Invariants


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_order_and_grouping_matter_only_to_rounding(data):
    by, space = data.draw(st.sampled_from(KINDS))
    count, seed = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 10**6))
    clients = made_up(count, 3, data.draw(st.integers(2, 20)), seed=seed)
    weights = data.draw(st.lists(st.floats(0.01, 1e4), min_size=count, max_size=count))
    order = data.draw(st.permutations(range(count)))
    together = aggregate_logits(clients, weights, by=by, space=space)
    streamed = (clients[k] for k in order)
    one_by_one = aggregate_logits(streamed, [weights[k] for k in order], by=by, space=space)
    torch.testing.assert_close(one_by_one, together, rtol=1e-4, atol=1e-5)
    if space == "probabilities":
        torch.testing.assert_close(together.sum(1), torch.ones(3))


@pytest.mark.parametrize("weights", [None, [0.3], torch.tensor([[7.0], [1e-3], [1e6], [2.0]])])
def test_one_client_is_the_answer(weights):
    (client,) = clients = made_up(1, 4, 10)
    p = torch.softmax(client / 2, 1)
    said = {"temperature": 2.0}
    for by in ("mean", "entropy", "confidence"):
        torch.testing.assert_close(aggregate_logits(clients, weights, by=by, **said), p)
        torch.testing.assert_close(aggregate_logits(clients, weights, by=by, space="logits", **said), client)
    sharp = aggregate_logits(clients, weights, by="sharpened", sharpening_temperature=0.2, **said)
    torch.testing.assert_close(sharp, torch.softmax(p / 0.2, 1))
    votes = torch.nn.functional.one_hot(client.argmax(1), 10).float()
    torch.testing.assert_close(aggregate_logits(clients, weights, by="votes", **said), votes)


def test_a_client_of_weight_two_is_two_clients():
    clients = made_up(3, 4, 10)
    for by, space in KINDS:
        twice = aggregate_logits([*clients, clients[0]], by=by, space=space)
        torch.testing.assert_close(aggregate_logits(clients, [2, 1, 1], by=by, space=space), twice)


def test_an_undecided_client_votes_for_its_lowest_class():
    votes = aggregate_logits([torch.tensor([[1.0, 3.0, 3.0]]), torch.tensor([[0.0, 0.0, 5.0]])], by="votes")
    torch.testing.assert_close(votes, torch.tensor([[0.0, 0.5, 0.5]]))


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_entropy_weights_at_any_temperature(temperature):
    # exp(-H / 0.001) is zero for all clients in float32: only their ratios count
    clients = [client / 30 for client in made_up(3, 4, 1000)]
    found = aggregate_logits(clients, by="entropy", entropy_temperature=temperature)
    assert relative(found, exact(clients, by="entropy", entropy_temperature=temperature)) < 1e-3


def test_weights_of_any_size():
    clients = made_up(3, 4, 10)
    for scale in (1e-30, 1e30):
        found = aggregate_logits(clients, [scale, 2 * scale, scale])
        assert relative(found, exact(clients, [1, 2, 1])) < 1e-4


# Rows and clients that are odd or broken


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("by", "space"), KINDS)
def test_no_rows(backend, by, space):
    assert aggregate_logits(made_up(3, 0, 10), by=by, space=space, backend=backend).shape == (0, 10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("by", "space"), KINDS)
@pytest.mark.parametrize("number", [0, 2])
def test_nan_stays_in_its_row(backend, by, space, number):
    clients = made_up(3, 4, 10)
    whole = aggregate_logits(clients, by=by, space=space, backend=backend)
    clients[number][2, 5] = math.nan
    found = aggregate_logits(clients, by=by, space=space, backend=backend)
    assert found[2, 5].isnan()
    if space == "probabilities" or by != "mean":
        assert found[2].isnan().all()
    rest = [0, 1, 3]
    assert torch.equal(found[rest], whole[rest])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("by", "space"), KINDS)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_who_has_no_weight_counts_for_nothing_whatever_it_says(backend, by, space, number):
    clients = made_up(3, 4, 10)
    others = [client for k, client in enumerate(clients) if k != number]
    expected = aggregate_logits(others, by=by, space=space)
    for broken in (math.nan, math.inf, -math.inf):
        clients[number] = torch.full((4, 10), broken)
        weights = torch.ones(4, 3)
        weights[:, number] = 0
        for streamed in (clients, iter(clients)):
            found = aggregate_logits(streamed, weights, by=by, space=space, backend=backend)
            torch.testing.assert_close(found, expected)


def test_a_row_that_nobody_speaks_for_is_zero():
    weights = torch.ones(4, 3)
    weights[1] = 0
    for by in ("mean", "entropy", "confidence", "votes"):
        found = aggregate_logits(made_up(3, 4, 10), weights, by=by)
        assert not found[1].any()
        torch.testing.assert_close(found.sum(1), torch.tensor([1.0, 0.0, 1.0, 1.0]))


@pytest.mark.parametrize(("by", "space"), KINDS)
def test_excluded_classes(by, space):
    clients = made_up(3, 4, 10)
    clients[0][:, 8:] = -math.inf
    clients[2][:, 9] = -math.inf
    found = aggregate_logits(clients, [1, 2, 3], by=by, space=space)
    if space == "logits":
        assert (found[:, 8:] == -math.inf).all()
        trimmed = [client[:, :8] for client in clients]
        if by == "mean":
            assert relative(found[:, :8], exact(trimmed, [1, 2, 3], by=by, space=space)) < 1e-5
    else:
        assert relative(found, exact(clients, [1, 2, 3], by=by)) < 1e-5


def test_leading_dimensions():
    clients = made_up(3, 12, 10)
    apart = [client.view(3, 4, 10) for client in clients]
    weights = torch.rand(12, 3)
    for by, space in KINDS:
        flat = aggregate_logits(clients, weights, by=by, space=space)
        found = aggregate_logits(apart, weights.view(3, 4, 3), by=by, space=space)
        assert torch.equal(found, flat.view(3, 4, 10))
    single = aggregate_logits([client[0] for client in clients], [1, 2, 3])
    torch.testing.assert_close(single, aggregate_logits([client[:1] for client in clients], [1, 2, 3])[0])


# Streaming


def test_a_generator_is_consumed_one_at_a_time():
    alive = []

    def clients():
        for k in range(20):
            assert all(one() is None for one in alive)
            made = made_up(1, 4, 10, seed=k)[0]
            alive.append(weakref.ref(made))
            yield made
            del made

    found = aggregate_logits(clients(), by="entropy")
    assert relative(found, exact([made_up(1, 4, 10, seed=k)[0] for k in range(20)], by="entropy")) < 1e-5


@pytest.mark.parametrize(("by", "space"), KINDS)
def test_the_answer_can_be_had_at_any_time(by, space):
    clients, weights = made_up(4, 5, 10), [1.0, torch.rand(5), 0.0, 2.5]
    aggregate = LogitAggregate(by=by, space=space, sharpening_temperature=0.4)
    results = []
    for client, weight in zip(clients, weights, strict=True):
        aggregate.add(client, weight)
        results.append(aggregate.result())
    table = torch.stack([torch.as_tensor(weight).expand(5) for weight in weights], 1)
    for k, result in enumerate(results):
        expected = exact(clients[: k + 1], table[:, : k + 1], by=by, space=space, sharpening_temperature=0.4)
        assert relative(result, expected) < 1e-5


def test_inputs_are_left_alone():
    clients = made_up(5, 4, 10)
    copies = [client.clone() for client in clients]
    aggregate_logits(clients, by="confidence", space="logits")
    assert all(torch.equal(client, copy) for client, copy in zip(clients, copies, strict=True))


# As torch sees it


OPERATOR = torch.ops.codistill.aggregate_step_.default


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("by_row", [True, False])
def test_the_operator_is_registered_as_torch_wants_it(first, by_row):
    clients = made_up(2, 4, 10)
    weights = torch.rand(4, 2) if by_row else torch.rand(2)
    arguments = (torch.rand(4, 10), torch.rand(4), clients, weights, "entropy", "probabilities", 2.0, 1.0, first, "")
    torch.library.opcheck(OPERATOR, arguments)


def test_there_is_no_gradient():
    clients = [client.requires_grad_() for client in made_up(3, 4, 10)]
    weights = torch.ones(3, requires_grad=True)
    assert not aggregate_logits(clients, weights).requires_grad


class Ensemble(torch.nn.Module):
    """What a server does."""

    def forward(self, first, second):
        return aggregate_logits([first, second], [1.0, 2.0], by="entropy").argmax(1)


def test_inside_a_compiled_graph():
    clients = made_up(2, 4, 10)
    with watch() as ran:
        found = torch.compile(Ensemble(), fullgraph=True)(*clients)
    assert torch.equal(found, Ensemble()(*clients))
    assert ran[0].operation == "aggregate_logits"


def test_exported_with_a_dynamic_batch():
    rows = torch.export.Dim("rows")
    program = torch.export.export(Ensemble(), tuple(made_up(2, 4, 10)), dynamic_shapes=[{0: rows}] * 2)
    assert "codistill.aggregate_step_" in str(program.graph)
    clients = made_up(2, 9, 10)
    assert torch.equal(program.module()(*clients), Ensemble()(*clients))


def test_vmap_is_refused():
    with pytest.raises(NotImplementedError, match=r"aggregate_logits: torch.func.vmap is not supported"):
        torch.func.vmap(lambda client: aggregate_logits([client]))(torch.randn(3, 4, 10))


def test_the_compiled_graph_is_made_once_for_any_number_of_rows_clients_and_any_numbers(monkeypatch):
    monkeypatch.setattr("codistill.kernels.cpu.compiled.PAYS_FROM", 1)
    counters.clear()
    torch._dynamo.reset()
    for rows, count, temperature in [(6, 2, 2.0), (9, 5, 1.0), (33, 3, 0.5)]:
        clients, weights = made_up(count, rows, 40), torch.rand(rows, count)
        said = {"by": "entropy", "temperature": temperature, "entropy_temperature": temperature}
        with watch() as ran:
            found = aggregate_logits(clients, weights, **said)
        assert (ran[0].backend, ran[0].detail) == ("cpu", "one graph, compiled")
        assert relative(found, exact(clients, weights, **said)) < 1e-5
    assert counters["stats"]["unique_graphs"] == 1


# What is refused


@pytest.mark.parametrize(
    ("arguments", "said", "sentence"),
    [
        (([],), {}, "there are no clients"),
        ((iter([]),), {}, "there are no clients"),
        ((torch.zeros(3, 4, 10),), {}, r"clients is one tensor of shape \(3, 4, 10\).*clients.unbind"),
        ((made_up(2, 4, 10), [1.0]), {}, "weights are for 1 clients and there are 2 or more"),
        ((made_up(2, 4, 10), [1.0, 2.0, 3.0]), {}, "weights are for 3 clients and there are 2"),
        ((iter(made_up(2, 4, 10)), torch.ones(1)), {}, "weights are for 1 clients and there are 2 or more"),
        ((made_up(2, 4, 10), [1.0, -1.0]), {}, r"weights are \[1.0, -1.0\]; expected none below 0"),
        ((made_up(2, 4, 10), [0.0, 0.0]), {}, r"weights are \[0.0, 0.0\].*some above"),
        ((made_up(2, 4, 10), torch.ones(3, 2)), {}, r"weights have shape \(3, 2\)"),
        (([torch.zeros(4, 10), torch.zeros(4, 9)],), {}, "a client's logits have shape .* map classes"),
        (([torch.zeros(4, 10), torch.zeros(4, 10, device="meta")],), {}, "a client is on meta, those before on cpu"),
        (([torch.zeros(4, 10, dtype=torch.int64)],), {}, "a client's tensor has shape"),
        ((made_up(1, 4, 10),), {"by": "median"}, "by is 'median'; expected one of mean, sharpened"),
        ((made_up(1, 4, 10),), {"by": "votes", "space": "logits"}, "by 'votes' averages probabilities"),
        ((made_up(1, 4, 10),), {"space": "ranks"}, "space is 'ranks'"),
        ((made_up(1, 4, 10),), {"temperature": 0}, "temperature is 0"),
        ((made_up(1, 4, 10),), {"entropy_temperature": -1.0}, "entropy_temperature is -1"),
        ((made_up(1, 4, 10),), {"sharpening_temperature": 0.0}, "sharpening_temperature is 0"),
    ],
)
def test_refusals(arguments, said, sentence):
    with pytest.raises(ValueError, match=f"aggregate_logits: {sentence}"):
        aggregate_logits(*arguments, **said)


def test_refusals_of_a_running_ensemble():
    aggregate = LogitAggregate()
    with pytest.raises(ValueError, match="aggregate_logits: there are no clients"):
        aggregate.result()
    with pytest.raises(ValueError, match="aggregate_logits: weight is -1"):
        aggregate.add(torch.zeros(4, 10), -1)
    with pytest.raises(ValueError, match=r"aggregate_logits: weight has shape \(3,\)"):
        aggregate.add(torch.zeros(4, 10), torch.ones(3))
    with pytest.raises(ValueError, match="aggregate_logits: there are no clients"):
        aggregate.result()
    aggregate.add(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="aggregate_logits: a client's logits have shape"):
        aggregate.add(torch.zeros(2, 6))
    torch.testing.assert_close(aggregate.result(), torch.full((2, 5), 0.2))
