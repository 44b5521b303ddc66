"""Each valence against a formula in float64 that goes row by row, and rows that weigh by it."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from codistill.tasks.aggregate import mean_of_rows
from codistill.tasks.knowledge import Rows
from codistill.tasks.streams import torch_stream
from codistill.tasks.valence import VALENCES, ValenceChoice, valence, weighted_by_valence
from codistill.tasks.valence.shapley import ballot_of, exact_shapley, sampled_shapley
from pydantic import ValidationError


def several(values, ids, owners, names):
    values = torch.as_tensor(np.asarray(values), dtype=torch.float32)
    return Rows(
        "logits",
        torch.tensor(ids, dtype=torch.int64),
        values,
        torch.ones(len(values)).double(),
        5.0,
        contributors=tuple(names),
        owners=torch.tensor(owners, dtype=torch.int64),
    )


def drawn(seed=0, ids=15, owners=4, classes=5, scale=3.0, held=0.8):
    """Rows of contributors that follow a common answer the less the later they come; each has some of the ids."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, scale, (ids, classes))
    pairs = [(i, o) for i in range(ids) for o in range(owners) if rng.random() < held]
    values = [common[i] + rng.normal(0, 0.3 + o, classes) for i, o in pairs]
    return several(values, [2 * i + 1 for i, _ in pairs], [o for _, o in pairs], "abcdefghijklmnop"[:owners])


def ask(said, agent, rows, context, before=None):
    return valence(agent, rows, ValenceChoice.model_validate(said), context, before)


def held_by(made):
    return dict(zip(made.contributors, made.values[:, 0].double().tolist(), strict=True))


def softmax(z):
    e = np.exp(np.asarray(z, dtype=np.float64) - np.max(z, axis=-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def parts(rows):
    return rows.ids.numpy(), rows.owners.numpy(), rows.values.double().numpy()


def normal(scores):
    return np.array(scores) / np.sum(scores)


@pytest.mark.parametrize("said", list(VALENCES.names()))
@pytest.mark.parametrize("owners", [1, 2, 5])
def test_a_valence_is_knowledge_of_its_form(said, owners, agent, context):
    rows = drawn(owners=owners)
    before = rows.values.clone()
    made = ask(said, agent, rows, context)
    assert made.form == "valence" and made.contributors == rows.contributors and made.samples == rows.samples
    assert made.values.shape == (owners, 1) and made.values.dtype == torch.float32
    assert torch.equal(made.ids, torch.arange(owners)) and torch.equal(made.owners, torch.arange(owners))
    assert made.weights.dtype == torch.float64 and (made.weights == 1).all()
    assert (made.values >= 0).all() and made.values.sum().item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(rows.values, before)


@pytest.mark.parametrize("said", list(VALENCES.names()))
def test_who_says_nothing_gets_an_equal_share_where_all_say_nothing(said, agent, context):
    empty = several(np.zeros((0, 5)), [], [], "abcd")
    assert ask(said, agent, empty, context).values[:, 0].tolist() == [0.25] * 4
    nobody = several(np.zeros((0, 5)), [], [], "")
    assert ask(said, agent, nobody, context).items == 0


@pytest.mark.parametrize("said", list(VALENCES.names()))
def test_rows_must_say_whose_they_are(said, agent, context):
    with pytest.raises(ValueError, match="rows of logits say of none whose they are"):
        ask(said, agent, replace(drawn(), owners=None, contributors=()), context)


@pytest.mark.parametrize("said", list(VALENCES.names()))
def test_who_sends_no_numbers_counts_for_little_and_moves_no_other(said, agent, context):
    rows = drawn(3, held=1.0, scale=9)
    broken = replace(rows, values=rows.values.clone())
    broken.values[rows.owners == 3] = math.nan
    made, rest = held_by(ask(said, agent, broken, context)), rows.part(rows.owners != 3)
    without = held_by(ask(said, agent, replace(rest, contributors=("a", "b", "c")), context))
    assert made["d"] < 1e-6
    for name in "abc":
        assert made[name] == pytest.approx(without[name], abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_agreement_is_the_share_of_rows_that_go_with_the_majority_of_the_others(seed, agent, context):
    rows = drawn(seed, ids=30, owners=5, classes=3)
    ids, owners, values = parts(rows)
    named, scores = values.argmax(1), []
    for o in range(5):
        right = []
        for i, mine in zip(ids[owners == o], named[owners == o], strict=True):
            others = named[(ids == i) & (owners != o)].tolist()
            if others:
                most = max(others.count(c) for c in range(3))
                right.append(others.count(mine) == most)
        scores.append(np.mean(right))
    found = ask("agreement", agent, rows, context)
    np.testing.assert_allclose(found.values[:, 0], normal(scores), atol=1e-6)
    assert len(set(scores)) > 2


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_similarity_is_the_softmax_of_the_cosine_to_the_mean_of_the_others(temperature, agent, context):
    rows = drawn(5, ids=30, owners=5)
    ids, owners, values = parts(rows)
    scores = []
    for o in range(5):
        cosines = []
        for i, mine in zip(ids[owners == o], values[owners == o], strict=True):
            others = values[(ids == i) & (owners != o)]
            if len(others):
                mean = others.mean(0)
                cosines.append(mine @ mean / np.linalg.norm(mine) / np.linalg.norm(mean))
        scores.append(np.mean(cosines))
    found = ask({"similarity": {"temperature": temperature}}, agent, rows, context)
    np.testing.assert_allclose(found.values[:, 0], softmax(np.array(scores) / temperature), atol=1e-6)
    assert found.values.argmax() < found.values.argmin()


@pytest.mark.parametrize("said", ["agreement", "similarity"])
def test_who_cannot_be_compared_is_valued_as_the_others_on_average(said, agent, context):
    rows = several([[3.0, 1], [2, 1], [1, 2], [5, 1]], [0, 0, 0, 7], [0, 1, 2, 3], "abcd")
    found = held_by(ask(said, agent, rows, context))
    rest = held_by(ask(said, agent, replace(rows.part(rows.owners < 3), contributors=("a", "b", "c")), context))
    assert found["a"] / found["c"] == pytest.approx(rest["a"] / rest["c"]) if rest["c"] else found["c"] == 0
    if said == "agreement":
        assert found["d"] == pytest.approx(1 / 4)
    else:
        assert found["c"] < found["d"] < found["a"]


def vote_quality(members, ids, owners, values, gate):
    """KD3A's knowledge vote, sample by sample: the summed confidence of the winning class where any vote counts."""
    quality = 0.0
    for i in sorted(set(ids)):
        sums = {}
        for o, z in zip(owners[ids == i], values[ids == i], strict=True):
            p = softmax(z)
            if o in members and p.max() > gate:
                sums[p.argmax()] = sums.get(p.argmax(), 0.0) + p.max()
        quality += max(sums.values(), default=0.0)
    return quality


def shapley_by_permutations(rows, gate):
    ids, owners, values = parts(rows)
    count = len(rows.contributors)
    worth = {
        frozenset(members): vote_quality(members, ids, owners, values, gate)
        for size in range(count + 1)
        for members in itertools.combinations(range(count), size)
    }
    shares = np.zeros(count)
    for order in itertools.permutations(range(count)):
        for place, who in enumerate(order):
            shares[who] += worth[frozenset(order[: place + 1])] - worth[frozenset(order[:place])]
    return shares / math.factorial(count), worth[frozenset(range(count))]


@pytest.mark.parametrize(("owners", "gate"), [(1, 0.5), (2, 0.9), (4, 0.0), (5, 0.8), (6, 0.9)])
def test_shapley_is_the_mean_over_all_permutations(owners, gate, agent, context):
    rows = drawn(owners, ids=8, owners=owners)
    expected, whole = shapley_by_permutations(rows, gate)
    shares = exact_shapley(ballot_of(rows, "logits", gate), owners)
    np.testing.assert_allclose(shares.numpy(), expected, rtol=1e-5, atol=1e-9)  # float32 scores
    assert shares.sum().item() == pytest.approx(whole, rel=1e-6)
    found = ask({"shapley": {"gate": gate}}, agent, rows, context)
    np.testing.assert_allclose(found.values[:, 0], normal(expected), atol=1e-6)


def test_every_permutation_drawn_once_is_the_exact_share():
    ballot = ballot_of(drawn(6, owners=5), "logits", 0.7)
    orders = torch.tensor(list(itertools.permutations(range(5))))
    torch.testing.assert_close(sampled_shapley(ballot, orders), exact_shapley(ballot, 5), rtol=1e-12, atol=1e-12)


def test_ids_may_be_counted_in_parts(monkeypatch):
    ballot = ballot_of(drawn(7, ids=23, owners=5), "logits", 0.7)
    orders = torch.stack([torch.randperm(5, generator=torch_stream(1, "orders", i)) for i in range(9)])
    whole = exact_shapley(ballot, 5), sampled_shapley(ballot, orders)
    monkeypatch.setattr("codistill.tasks.valence.shapley.NUMBERS", 700)
    torch.testing.assert_close((exact_shapley(ballot, 5), sampled_shapley(ballot, orders)), whole, rtol=1e-12, atol=0)


def test_beyond_some_contributors_permutations_are_drawn_from_the_agents_stream(agent, context):
    rows = drawn(8, ids=12, owners=12)
    said = {"shapley": {"gate": 0.5, "permutations": 40}}
    found = ask(said, agent, rows, context)
    generator = torch_stream(7, "agent", "phone", 2, "train.0", "shapley")
    ids, owners, values = parts(rows)
    total, worth = np.zeros(12), {}
    for _ in range(40):
        members = ()
        for who in torch.randperm(12, generator=generator).tolist():
            for one in (members, (*members, who)):
                if frozenset(one) not in worth:
                    worth[frozenset(one)] = vote_quality(one, ids, owners, values, 0.5)
            total[who] += worth[frozenset((*members, who))] - worth[frozenset(members)]
            members = (*members, who)
    np.testing.assert_allclose(found.values[:, 0], normal(total), atol=1e-6)
    exact = ask({"shapley": {"gate": 0.5, "exact": 12}}, agent, rows, context)
    assert 0 < (found.values - exact.values).abs().max() < 0.03


def test_probabilities_are_voted_with_as_they_are(agent, context):
    rows = drawn(9)
    given = replace(rows, values=torch.softmax(rows.values.double(), 1).float())
    plain = ask({"shapley": {"gate": 0.6}}, agent, rows, context)
    found = ask({"shapley": {"gate": 0.6, "scale": "probabilities"}}, agent, given, context)
    torch.testing.assert_close(found.values, plain.values)


@pytest.mark.parametrize("name", list(VALENCES.names()))
@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0])
def test_momentum_blends_with_what_was_held(name, momentum, agent, context):
    rows = drawn(10, owners=3)
    now = held_by(ask(name, agent, rows, context))
    told = several([[0.1], [0.6], [0.3]], [0, 1, 2], [0, 1, 2], ("z", "c", "a"))
    found = held_by(ask({name: {"momentum": momentum}}, agent, rows, context, replace(told, form="valence")))
    mixed = {
        "a": momentum * 0.3 + (1 - momentum) * now["a"],
        "b": now["b"],  # of b nothing was held, and z is gone
        "c": momentum * 0.6 + (1 - momentum) * now["c"],
    }
    for one, value in mixed.items():
        assert found[one] == pytest.approx(value / sum(mixed.values()), abs=1e-6)


@pytest.mark.parametrize("owners", [1, 3, 7])
def test_equal_valences_change_nothing(owners, agent, context):
    rows = drawn(11, owners=owners)
    rows = replace(rows, weights=torch.rand(rows.items, generator=torch_stream(1, "weights"), dtype=torch.float64))
    uniform = ask("agreement", agent, replace(rows.part(rows.ids < 0)), context)
    found = weighted_by_valence(rows, uniform)
    for field in ("ids", "owners", "values", "weights"):
        assert torch.equal(getattr(found, field), getattr(rows, field))


def test_rows_weigh_by_their_owners_valence():
    rows = drawn(12, owners=4, held=1.0)
    rows = replace(rows, weights=torch.arange(rows.items).double() + 1)
    told = several([[0.2], [0.7], [0.1]], [0, 1, 2], [0, 1, 2], ("b", "a", "c"))
    before = rows.weights.clone()
    found = weighted_by_valence(rows, told)
    factor = np.array([2.1, 0.6, 0.3, 1.0])[rows.owners.numpy()]  # d has no valence
    np.testing.assert_allclose(found.weights.numpy(), before.numpy() * factor, rtol=1e-6)
    assert torch.equal(rows.weights, before) and torch.equal(found.values, rows.values)
    merged = mean_of_rows([replace(found.of(name), contributors=(), owners=None) for name in "abcd"])
    ids, _, values = parts(rows)
    some = ids == ids[0]
    expected = np.average(values[some], axis=0, weights=(before.numpy() * factor)[some])
    np.testing.assert_allclose(merged.values[0], expected, rtol=1e-5)


def test_who_counts_for_nothing_is_left_out():
    rows = drawn(13, owners=3)
    told = several([[0.5], [0.0], [0.5]], [0, 1, 2], [0, 1, 2], "abc")
    found = weighted_by_valence(rows, told)
    assert torch.equal(found.owners, rows.owners[rows.owners != 1]) and found.contributors == rows.contributors
    with pytest.raises(ValueError, match="say of none whose they are"):
        weighted_by_valence(replace(rows, owners=None), told)


def test_what_cannot_be_said():
    for said in ("trust", {"shapley": {"exact": 30}}, {"agreement": {"momentum": 1.1}}, {"similarity": {"gate": 1}}):
        with pytest.raises(ValidationError):
            ValenceChoice.model_validate(said)
