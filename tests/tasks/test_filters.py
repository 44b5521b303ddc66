"""Filters that look at what rows say: each against a formula in float64, and how they go one after another."""

import math

import numpy as np
import pytest
import torch
from codistill.tasks.filters import FILTERS, FilterChoice, apply_filters
from codistill.tasks.knowledge import Rows
from codistill.tasks.streams import torch_stream
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import roc_curve


def passes(name, agent, rows, context, **said):
    entry = FILTERS[name]
    found = entry.function(agent, rows, entry.parameters.model_validate(said), context)
    assert found.dtype == torch.bool and found.shape == (rows.items,)
    return found.numpy()


def several(values, ids, owners, names=("a", "b", "c", "d")):
    """Rows of several contributors."""
    values = torch.as_tensor(values, dtype=torch.float32)
    return Rows(
        "logits",
        torch.tensor(ids, dtype=torch.int64),
        values,
        torch.ones(len(values)).double(),
        5.0,
        contributors=names,
        owners=torch.tensor(owners, dtype=torch.int64),
    )


def drawn(seed=0, ids=20, owners=4, classes=5, scale=2.0, held=0.8):
    """Rows of ``owners`` contributors, each of which has about ``held`` of the ids."""
    rng = np.random.default_rng(seed)
    pairs = [(i, o) for i in range(ids) for o in range(owners) if rng.random() < held]
    values = rng.normal(0, scale, (len(pairs), classes))
    return several(values, [3 * i for i, _ in pairs], [o for _, o in pairs], tuple("abcdefgh"[:owners]))


def softmax(z):
    z = np.asarray(z, dtype=np.float64)
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


EVERY = [
    ("finite", {}),
    ("magnitude", {"times": 3}),
    ("confidence", {"least": 0.5}),
    ("confidence", {"quantile": 0.4}),
    ("entropy", {}),
    ("in_distribution", {}),
    ("in_distribution", {"threshold": "roc"}),
    ("density_ratio", {}),
    ("agreement", {}),
]


def test_every_filter_is_in_the_list():
    assert {name for name, _ in EVERY} == set(FILTERS.names())


@pytest.mark.parametrize(("name", "said"), EVERY)
def test_no_rows_are_no_rows(name, said, agent, context):
    empty = several(torch.empty(0, 5), [], [])
    assert len(passes(name, agent, empty, context, **said)) == 0
    chosen = FilterChoice.model_validate({name: said})
    found = apply_filters(agent, empty, [chosen], context)
    assert found.rows is empty and found.dropped == {name: 0}


@pytest.mark.parametrize(("name", "said"), EVERY)
def test_one_row_gets_the_verdict_that_it_gets_among_others(name, said, agent, context):
    values = [[9.0, 0, 0, 0, 0]]
    assert passes(name, agent, several(values, [3], [0]), context, **said).shape == (1,)
    if name not in ("density_ratio",):
        assert passes(name, agent, several(values, [3], [0]), context, **said)[0]


@pytest.mark.parametrize(("name", "said"), [one for one in EVERY if one[0] != "density_ratio"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_passes_nowhere_and_moves_no_other_verdict(name, said, bad, agent, context):
    rows = drawn(1)
    clean = passes(name, agent, rows, context, **said)
    worse = torch.cat([rows.values, rows.values[:2]])
    worse[-2:, 1] = bad
    more = several(worse, [*rows.ids, 900, 901], [*rows.owners, 0, 1])
    found = passes(name, agent, more, context, **said)
    assert not found[-2:].any()
    np.testing.assert_array_equal(found[:-2], clean)


def test_finite_looks_at_values_weights_and_keys(agent, context):
    rows = drawn(2, ids=4, held=1.0)
    rows.values[1, 2], rows.values[3, 0], rows.weights[5] = math.nan, -math.inf, math.nan
    keyed = Rows(rows.form, rows.ids, rows.values, rows.weights, keys=torch.zeros(rows.items, 2))
    keyed.keys[7, 1] = math.inf
    assert np.flatnonzero(~passes("finite", agent, rows, context)).tolist() == [1, 3, 5]
    assert np.flatnonzero(~passes("finite", agent, keyed, context)).tolist() == [1, 3, 5, 7]


def test_magnitude_has_a_limit_and_a_measure_by_contributor(agent, context):
    rows = drawn(3)
    rows.values[rows.owners == 2] *= 1e6
    largest = np.abs(rows.values.double().numpy()).max(1)
    owners = rows.owners.numpy()
    np.testing.assert_array_equal(passes("magnitude", agent, rows, context), largest <= 1e4)
    np.testing.assert_array_equal(passes("magnitude", agent, rows, context, limit=2.5), largest <= 2.5)
    assert passes("magnitude", agent, rows, context, limit=None).all()
    each = sorted(sorted(largest[owners == o])[(np.sum(owners == o) - 1) // 2] for o in range(4))
    found = passes("magnitude", agent, rows, context, limit=None, times=1.5)
    np.testing.assert_array_equal(found, largest <= 1.5 * each[1])
    assert not found[owners == 2].any() and found[owners != 2].any() and not found[owners != 2].all()


def test_one_poisoned_contributor_of_two_sets_no_measure(agent, context):
    rows = several([[1.0, 2], [3e3, 1], [2, 1], [1, 5e3]], [0, 0, 1, 1], [0, 1, 0, 1], ("a", "b"))
    assert passes("magnitude", agent, rows, context, times=10).tolist() == [True, False, True, False]


def test_magnitude_of_rows_that_nobody_owns(agent, context, rows):
    given = rows(list(range(9)))
    given.values[4] *= 500
    found = passes("magnitude", agent, given, context, times=20)
    assert np.flatnonzero(~found).tolist() == [4]


@pytest.mark.parametrize("scale", ["logits", "probabilities"])
def test_confidence_is_the_largest_probability(scale, agent, context):
    rows = drawn(4)
    p = softmax(rows.values)
    if scale == "probabilities":
        rows.values[:] = torch.tensor(p)
    sure = p.max(1)
    found = passes("confidence", agent, rows, context, least=0.7, scale=scale)
    np.testing.assert_array_equal(found, sure >= 0.7)
    assert 0 < found.sum() < len(found)
    found = passes("confidence", agent, rows, context, quantile=0.3, scale=scale)
    assert found.sum() == math.ceil(0.3 * len(sure))
    assert sure[found].min() > sure[~found].max()
    both = passes("confidence", agent, rows, context, quantile=0.9, least=0.7, scale=scale)
    np.testing.assert_array_equal(both, sure >= 0.7)


def test_of_equally_confident_rows_the_first_are_kept(agent, context):
    rows = several(torch.ones(7, 3), range(7), [0] * 7)
    assert passes("confidence", agent, rows, context, quantile=0.5).tolist() == [True] * 4 + [False] * 3


def test_probabilities_that_an_encoding_moved_are_set_right(agent, context):
    rows = several([[0.98, 0.03, -0.01], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], [0, 1, 2], [0, 0, 0])
    sure = passes("confidence", agent, rows, context, least=0.98 / 1.01 - 1e-6, scale="probabilities")
    assert sure.tolist() == [True, False, False]
    assert passes("entropy", agent, rows, context, share=0.99, scale="probabilities").tolist() == [True, True, False]


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_entropy_is_a_share_of_the_most_there_can_be(share, agent, context):
    rows = drawn(5)
    p = softmax(rows.values)
    found = passes("entropy", agent, rows, context, share=share)
    np.testing.assert_array_equal(found, -(p * np.log(p)).sum(1) <= share * np.log(5))
    assert found.all() if share == 1 else 0 < found.sum() < len(found)


def own_confidence(agent, world, ids, temperature):
    agent.models["model"].eval()
    with torch.no_grad():
        return softmax(agent.models["model"](world.x_train[ids]).double().numpy() / temperature).max(1)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_idkd_lets_in_what_is_as_sure_as_a_share_of_the_agents_own(share, temperature, agent, world, context):
    rows = drawn(6, scale=0.2 if temperature == 1 else 0.1)
    private = np.sort(own_confidence(agent, world, agent.train_ids, temperature))[::-1]
    threshold = private[math.ceil(share * len(private)) - 1]
    assert (private >= threshold).mean() >= share > (private > threshold).mean()
    found = passes("in_distribution", agent, rows, context, share=share, temperature=temperature)
    sure = softmax(rows.values.numpy() / temperature).max(1)
    np.testing.assert_array_equal(found, sure >= threshold)
    assert 0 < found.sum() < len(found)


def test_idkd_by_the_roc_is_youdens_index(agent, world, context):
    for w in agent.models["model"].parameters():
        w.data *= 4
    rows = drawn(7, scale=1.0)
    scores = [own_confidence(agent, world, ids, 1.0) for ids in (agent.train_ids, world.public)]
    inside = np.repeat([1, 0], [len(s) for s in scores])
    false, true, thresholds = roc_curve(inside, np.concatenate(scores), drop_intermediate=False)
    best = thresholds[np.argmax(true - false)]
    assert np.isfinite(best)
    found = passes("in_distribution", agent, rows, context, threshold="roc")
    sure = softmax(rows.values).max(1)
    np.testing.assert_array_equal(found, sure >= best - 1e-9)
    assert 0 < found.sum() < len(found)


def test_idkd_draws_its_calibration_from_the_agents_stream(agent, world, context):
    rows = drawn(8, scale=0.2)
    generator = torch_stream(7, "agent", "phone", 2, "train.0", "in_distribution", "private")
    few = agent.train_ids[torch.randperm(30, generator=generator)[:3]]
    threshold = own_confidence(agent, world, few, 1.0).min()
    found = passes("in_distribution", agent, rows, context, share=1.0, calibration=3)
    np.testing.assert_array_equal(found, softmax(rows.values).max(1) >= threshold)
    assert not np.array_equal(found, passes("in_distribution", agent, rows, context, share=1.0))


def test_idkd_needs_samples_and_a_model(agent, another, context):
    bare = another("server", torch.empty(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="server: the filter in_distribution"):
        passes("in_distribution", bare, drawn(), context)
    del agent.models["model"]
    with pytest.raises(ValueError, match="phone: the filter in_distribution"):
        passes("in_distribution", agent, drawn(), context)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.5, 1.0])
def test_agreement_asks_the_other_owners_of_the_id(share, agent, context):
    rows = drawn(9, ids=40, owners=6, classes=3)
    ids, owners, named = rows.ids.numpy(), rows.owners.numpy(), rows.values.numpy().argmax(1)
    expected = []
    for i, o, c in zip(ids, owners, named, strict=True):
        others = named[(ids == i) & (owners != o)]
        expected.append(len(others) == 0 or (others == c).mean() >= share)
    found = passes("agreement", agent, rows, context, share=share)
    np.testing.assert_array_equal(found, expected)
    assert found.all() == (share == 0)


def test_nobody_contradicts_a_row_that_stands_alone(agent, context, rows):
    assert passes("agreement", agent, rows([1, 5, 9]), context, share=1.0).all()


def test_filters_go_one_after_another_and_count_what_they_turn_away(agent, context):
    rows = drawn(10)
    rows.values[3, 1], rows.values[8] = math.nan, 1e7
    before = rows.values.clone()
    said = ["finite", "magnitude", {"confidence": {"quantile": 0.5}}, "agreement", {"confidence": {"least": 0.7}}]
    chosen = TypeAdapter(list[FilterChoice]).validate_python(said)
    found = apply_filters(agent, rows, chosen, context)
    assert list(found.dropped) == ["finite", "magnitude", "confidence", "agreement"]
    assert found.dropped["finite"] == 1 and found.dropped["magnitude"] == 1
    left, dropped = rows, dict.fromkeys(found.dropped, 0)
    for one in chosen:
        mask = FILTERS[one.name].function(agent, left, one.parameters, context)
        dropped[one.name] += int((~mask).sum())
        left = left.part(mask)
    assert found.dropped == dropped and found.dropped["confidence"] > (rows.items - 2) // 2
    assert torch.equal(found.rows.ids, left.ids) and torch.equal(found.rows.owners, left.owners)
    assert found.rows.items == rows.items - sum(dropped.values()) > 0
    assert found.rows.contributors == rows.contributors and found.rows.samples == rows.samples
    assert torch.equal(rows.values.nan_to_num(-7), before.nan_to_num(-7))


def test_all_may_be_turned_away_and_none(agent, context):
    rows = drawn(11)
    chosen = [FilterChoice.model_validate(one) for one in ({"magnitude": {"limit": 1e-6}}, "agreement")]
    found = apply_filters(agent, rows, chosen, context)
    assert found.rows.items == 0 and found.rows.values.shape == (0, 5)
    assert found.dropped == {"magnitude": rows.items, "agreement": 0}
    assert apply_filters(agent, rows, [FilterChoice.model_validate("finite")], context).rows is rows
    assert apply_filters(agent, rows, [], context).dropped == {}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("confidence", "no_threshold"),
        ({"confidence": {"least": 2}}, "less_than_equal"),
        ({"confidence": {"quantile": 0}}, "greater_than"),
        ({"entropy": {"share": 0}}, "greater_than"),
        ({"density_ratio": {"regularization": 0.1}}, "extra_forbidden"),
        ("confidences", "unknown_name"),
    ],
)
def test_what_cannot_be_said(said, kind):
    with pytest.raises(ValidationError) as caught:
        FilterChoice.model_validate(said)
    assert kind in {error["type"] for error in caught.value.errors()}
