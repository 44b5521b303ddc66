"""What comes in at an aggregation, and what goes out."""

from dataclasses import replace

import pytest
import torch
from codistill.tasks.aggregate import Aggregate, aggregate
from codistill.tasks.aggregate.door import Merge, admitted, selected
from codistill.tasks.knowledge import marked
from pydantic import TypeAdapter


def from_all(rows, names=("a", "b", "c"), ids=(1, 2, 3)):
    return [marked(rows(list(ids), form="logits", seed=seed), name) for seed, name in enumerate(names)]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("final", [True, False])
def test_rows_that_are_not_finite_never_come_in(agent, context, rows, broken, final):
    packets = from_all(rows)
    packets[1].values[2, 0] = broken
    found = admitted(agent, packets, Merge(), replace(context, final=final))
    assert [one.ids.tolist() for one in found] == [[1, 2, 3], [1, 2], [1, 2, 3]]
    assert found[0] is packets[0]
    (event,) = agent.memory.told()
    assert (event.what, event.about, event.count) == ("filtered", "finite", 1)
    assert event.sentence == "rows of b are not finite"


def test_a_packet_of_nothing_else_is_left_out_whole(agent, context, rows):
    packets = from_all(rows)
    packets[1].values[:] = torch.nan
    said = TypeAdapter(Aggregate).validate_python({"by": "mean"})
    merged = aggregate(agent, packets, said, context)
    alone = aggregate(agent, [packets[0], packets[2]], said, context)
    assert torch.equal(merged.values, alone.values) and torch.equal(merged.weights, alone.weights)
    for packet in packets:
        packet.values[:] = torch.nan
    assert aggregate(agent, packets, said, context) is None


def test_a_model_that_is_not_finite_is_left_out(agent, context, models):
    packets = [models(10, seed=1), models(20, seed=2)]
    packets[0].tensors["a"]["b"][1] = torch.nan
    said = TypeAdapter(Aggregate).validate_python({"by": "mean"})
    merged = aggregate(agent, packets, said, context)
    assert torch.equal(merged.tensors["a"]["w"], packets[1].tensors["a"]["w"]) and merged.samples == 20
    (event,) = agent.memory.told()
    assert (event.what, event.count, event.sentence) == ("filtered", 1, "a model is not finite")


def test_filters_stand_at_the_top_alone(agent, context, rows):
    packets = from_all(rows)
    packets[2].values[:] *= 1e6
    said = Merge.model_validate({"filters": [{"magnitude": {"limit": None, "times": 10}}]})
    assert admitted(agent, packets, said, replace(context, final=False)) == packets
    assert agent.memory.told() == []
    (found,) = admitted(agent, packets, said, context)
    assert [found.contributors[place] for place in found.owners] == ["a", "b"] * 3
    (event,) = agent.memory.told()
    assert (event.what, event.about, event.count) == ("filtered", "magnitude", 3)


def test_a_valence_is_remembered_and_weighs(agent, context, rows):
    packets = from_all(rows)
    packets[1] = replace(packets[1], values=packets[0].values.clone())
    packets[2] = replace(packets[2], values=-packets[0].values)
    (found,) = admitted(agent, packets, Merge.model_validate({"valence": "agreement"}), context)
    made = agent.memory.recall("emotional", "valence")
    shares = dict(zip(made.contributors, made.values[:, 0].tolist(), strict=True))
    assert shares["a"] == shares["b"] > shares["c"]
    weights = {name: found.weights[found.owners == place].sum().item() for place, name in enumerate(found.contributors)}
    assert weights["a"] == pytest.approx(weights["b"]) and weights["a"] > weights.get("c", 0.0)


def test_what_is_merged_is_selected_at_the_top_alone(agent, context, rows):
    merged = rows([1, 2, 3], form="logits")
    merged.values[0] = torch.tensor([50.0, 0, 0, 0, 0])
    said = Merge.model_validate({"select": [{"confidence": {"least": 0.99}}]})
    assert selected(agent, merged, said, context).ids.tolist() == [1]
    assert selected(agent, merged, said, replace(context, final=False)) is merged
    assert [(event.what, event.count) for event in agent.memory.told()] == [("filtered", 2)]
