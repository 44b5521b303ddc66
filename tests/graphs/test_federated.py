"""What passes between agents over knowledge graphs: each rule and term against its formula in float64."""

import numpy as np
import pytest
import torch
from codistill.graphs.absorbs import BlendRows, ReplaceRows, blend_rows, replace_rows
from codistill.graphs.aggregates import OthersMean, SecureMean, others_mean, secure_mean
from codistill.graphs.contrast import Batch, Drawn
from codistill.graphs.datasets import put_together
from codistill.graphs.extracts import Changed, ExtractEntityRows, embeddings
from codistill.graphs.knowledge_graph import KnowledgeGraph
from codistill.graphs.partition import GRAPH_PARTITIONERS
from codistill.graphs.settings import Fit
from codistill.graphs.sources import Graphs
from codistill.graphs.terms import GRAPH_TERMS
from codistill.graphs.translated import turned
from codistill.graphs.triples import Triples
from codistill.graphs.world import world_of
from codistill.tasks.agent import Agent, Context
from codistill.tasks.aggregate import Aggregate, aggregate
from codistill.tasks.data.prepared import open_prepared, prepare
from codistill.tasks.knowledge import Rows, marked
from pydantic import TypeAdapter

ENTITIES, RELATIONS, WIDTH = 12, 3, 4
NAMES = ("a", "b", "c")


def knowledge_graph(seed=0):
    drawn = np.random.default_rng(seed)
    every = np.unique(drawn.integers(0, [ENTITIES, RELATIONS, ENTITIES], (90, 3)), axis=0)
    every = drawn.permutation(every)
    names = tuple(f"e{i:02}" for i in range(ENTITIES)), tuple(f"r{i}" for i in range(RELATIONS))
    return KnowledgeGraph("made up", *names, every[20:], every[:10], every[10:20])


@pytest.fixture
def graph():
    return knowledge_graph()


@pytest.fixture
def world(graph):
    ids = [torch.arange(len(x)) for x in (graph.x_train, graph.x_valid, graph.x_test)]
    holders = {name: tuple(part[place::3][:6] for part in ids) for place, name in enumerate(NAMES)}
    nothing = torch.empty(0, dtype=torch.int64)
    return world_of(graph, holders, classes=RELATIONS, public=nothing, public_labelled=False, architectures={})


@pytest.fixture
def context(world):
    return Context(world, seed=3, round=2, rounds=5, place="extract.0")


@pytest.fixture
def agents(world, embedding):
    """Agents with embeddings of what each holds, and a companion."""
    made = []
    for place, name in enumerate(NAMES):
        train, valid, test = world.holders[name]
        agent = Agent(name, "g", "learner", train, test, {}, valid_ids=valid)
        held = world.share(agent)
        sizes = {"entities": len(held.entities), "relations": len(held.relations), "dimension": WIDTH}
        agent.models = {
            "model": embedding(seed=place, **sizes),
            "companion": embedding(seed=9 + place, **sizes),
        }
        made.append(agent)
    return made


def told(agents, context, **said):
    return [marked(embeddings(one, ExtractEntityRows(**said), context), one.name) for one in agents]


def mean_by_hand(agents, world):
    sums, counts = torch.zeros(ENTITIES, WIDTH, dtype=torch.float64), torch.zeros(ENTITIES)
    for agent in agents:
        held = world.share(agent).entities
        sums[held] += agent.models["model"].entities.detach().double()
        counts[held] += 1
    return sums, counts


def test_a_graph_is_the_same_after_it_was_prepared(graph, tmp_path):
    again = open_prepared(prepare(graph, tmp_path), verify=True)
    assert again.digest() == graph.digest() and again.kind == "triples"
    assert (again.entities, again.labels) == (graph.entities, graph.labels)
    assert all((a == b).all() for (_, a), (_, b) in zip(graph.arrays(), again.arrays(), strict=True))


def test_clients_that_number_names_differently_are_put_together_by_name():
    one = Triples(("x", "y"), ("r",), *(torch.tensor([[0, 0, 1]]),) * 3)
    other = Triples(("y", "x"), ("q", "r"), *(torch.tensor([[0, 1, 1]]),) * 3)
    made = put_together(Graphs("two", {"one": one, "other": other}))
    assert made.entities == ("x", "y") and made.labels == ("q", "r")
    assert made.x_train.tolist() == [[0, 1, 1], [1, 1, 0]]
    assert made.columns_test["client"].tolist() == ["one", "other"]


@pytest.mark.parametrize("by", GRAPH_PARTITIONERS.names())
def test_every_cut_of_a_graph_deals_each_triple_out_once(graph, by):
    entry = GRAPH_PARTITIONERS[by]
    dealt = entry.function(entry.parameters(), graph, 2, np.random.default_rng(1))
    for part, parts in (("train", dealt.train), ("valid", dealt.valid), ("test", dealt.test)):
        assert np.sort(np.concatenate(parts)).tolist() == list(range(len(getattr(graph, f"x_{part}"))))
    if by == "relation":
        assert not set(graph.y_train[dealt.train[0]]) & set(graph.y_train[dealt.train[1]])


def test_the_secure_mean_is_the_plain_mean_and_no_packet_tells_a_row(agents, world, context):
    packets = told(agents, context, masked=True)
    made = secure_mean(agents[0], packets, SecureMean(), context)
    sums, counts = mean_by_hand(agents, world)
    assert made.ids.tolist() == (counts > 1).nonzero().flatten().tolist()
    expected = (sums / counts[:, None])[made.ids]
    assert (made.values.double() - expected).abs().max() <= 8.0 * 3 / 2**24 + 1e-7
    plain = told(agents, context)
    for masked, open_ in zip(packets, plain, strict=True):
        assert (masked.values / 2**24).std() > 0.2 and not torch.isclose(masked.values, open_.values, atol=1).any()


def test_masks_of_an_agent_that_did_not_come_are_made_again_and_a_lone_row_is_refused(agents, world, context):
    packets = told(agents, context, masked=True)[:2]
    made = secure_mean(agents[0], packets, SecureMean(), context)
    sums, counts = mean_by_hand(agents[:2], world)
    assert made.ids.tolist() == (counts > 1).nonzero().flatten().tolist()
    expected = (sums / counts[:, None])[made.ids]
    assert (made.values.double() - expected).abs().max() <= 8.0 * 3 / 2**24 + 1e-7
    alone = len(torch.unique(torch.cat([p.ids for p in packets]))) - made.items
    assert alone > 0 and [event.count for event in agents[0].memory.told() if event.what == "refused"] == [alone]


def test_others_mean_and_blend_make_the_mean_of_all_in_a_whole_round(agents, world, context):
    packets = told(agents, context)
    answers = others_mean(agents[0], packets, OthersMean.model_validate({"whole": {"from": 1, "every": 1}}), context)
    assert answers.addressed
    sums, counts = mean_by_hand(agents, world)
    for agent in agents:
        blend_rows(agent, answers.of(agent.name), BlendRows(), context)
        held = world.share(agent).entities
        expected = (sums / counts.clamp(min=1)[:, None])[held]
        assert torch.allclose(agent.models["model"].entities.double(), expected, atol=1e-6)


def test_of_rows_only_those_that_turned_most_are_told_and_all_in_whole_rounds(agents, context, world):
    agent, said = agents[0], Changed.model_validate({"share": 0.25, "whole": {"every": 2}})
    at = Context(world, seed=3, round=1, rounds=5, place="extract.0")
    first = embeddings(agent, ExtractEntityRows(changed=said), at)
    with torch.no_grad():
        agent.models["model"].entities[2:4] *= -1
        agent.models["model"].entities[5] *= 3
    second = embeddings(agent, ExtractEntityRows(changed=said), context)
    turned_ids = set(world.share(agent).entities[2:4].tolist()) & set(first.ids.tolist())
    assert second.items == max(1, round(0.25 * first.items)) and turned_ids <= set(second.ids.tolist())


def test_rows_of_names_that_nobody_else_holds_stay_at_home(agents, context, world):
    for agent in agents:
        rows = embeddings(agent, ExtractEntityRows(), context)
        assert (world.owner_counts["entities"][rows.ids] > 1).all()
        assert embeddings(agent, ExtractEntityRows(shared=False), context).items == len(world.share(agent).entities)


def test_replaced_rows_are_those_of_the_same_names(agents, world, context):
    agent = agents[0]
    before = agent.models["model"].entities.detach().clone()
    held = world.share(agent).entities
    ids = torch.arange(ENTITIES)[::2]
    rows = Rows("embeddings", ids, torch.randn(len(ids), WIDTH), torch.ones(len(ids)).double())
    rows.values[0] = float("nan")
    replace_rows(agent, rows, ReplaceRows(), context)
    for place, name in enumerate(held.tolist()):
        given = name % 2 == 0 and name != ids[0]
        expected = rows.values[name // 2] if given else before[place]
        assert torch.equal(agent.models["model"].entities[place], expected)
    assert [event.count for event in agent.memory.told()] == [1]


def test_packets_of_another_width_than_most_are_left_out_of_a_mean(agents, context):
    packets = told(agents, context)
    wide = marked(Rows("embeddings", torch.arange(3), torch.ones(3, 9), torch.ones(3).double()), "d")
    said = TypeAdapter(Aggregate).validate_python({"by": "mean", "weight": "agents"})
    assert torch.equal(
        aggregate(agents[0], [wide, *packets], said, context).values,
        aggregate(agents[0], packets, said, context).values,
    )
    (event,) = agents[0].memory.told()
    assert (event.what, event.count) == ("refused", 3) and "rows of d have 9 numbers" in event.sentence


def batch_of(agent, world):
    model, triples = agent.models["model"], world.share(agent).train[:5]
    candidates = torch.randint(len(model.entities), (5, 3), generator=torch.Generator().manual_seed(1))
    negative = model.score_candidates(triples, candidates, "tail")
    return Batch(Drawn(triples, "tail", candidates), model.score_triples(triples), negative)


def scores(model, batch):
    e, w = model.entities.double(), model.relations.double()
    h, r, t = batch.triples.T
    other = -(e[h] + w[r])[:, None].sub(e[batch.candidates]).abs().sum(2)
    return -(e[h] + w[r] - e[t]).abs().sum(1), other


def task(positive, negative, margin):
    weights = negative.detach().softmax(1)
    false = (weights * torch.nn.functional.logsigmoid(-margin - negative)).sum(1)
    return -(torch.nn.functional.logsigmoid(margin + positive) + false).mean() / 2


def kl(teacher, student):
    return (teacher.softmax(1) * (teacher.log_softmax(1) - student.log_softmax(1))).sum(1).mean()


def term(name, agent, context, **said):
    entry = GRAPH_TERMS[name]
    return entry.function(agent, entry.parameters(**said), Fit(), context)


def test_mutual_scores_are_the_companions_loss_and_both_divergences(agents, world, context):
    agent = agents[0]
    batch = batch_of(agent, world)
    made = term("mutual_scores", agent, context, kd_weight=2.0).loss(batch)
    mine, theirs = (torch.cat([p[:, None], n], 1) for p, n in (scores(agent.models[m], batch) for m in agent.models))
    positive, negative = scores(agent.models["companion"], batch)
    expected = task(positive, negative, agent.models["companion"].margin) + 2.0 * (kl(theirs, mine) + kl(mine, theirs))
    assert float(made.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_compressed_model_learns_from_scores_at_two_temperatures(agents, world, context):
    agent = agents[0]
    batch = batch_of(agent, world)
    made = term("compressed", agent, context, kd_weight=3.0, temperature=2.0)
    given = made.loss(batch)
    of = {name: scores(model, batch) for name in ("model", "companion") for model in [agent.models[name]]}
    tasks = {name: task(*of[name], agent.models[name].margin) for name in of}
    share = tasks["model"] / (tasks["model"] + tasks["companion"])
    student, teacher = (torch.cat([of[n][0][:, None] / 2, of[n][1] / 2], 1) for n in ("model", "companion"))
    assert float(given.detach()) == pytest.approx(
        float(tasks["companion"] + 3.0 * share * kl(teacher, student)), rel=1e-5
    )
    (learned,) = made.parameters
    assert float(torch.autograd.grad(given, learned)[0].abs()) > 0


def test_contrast_pulls_to_the_merged_rows_from_the_own_ones(agents, world, context):
    agent = agents[0]
    first = term("contrastive", agent, context)
    assert float(first.loss(batch_of(agent, world))) == 0
    own = agent.models["model"].entities.detach().clone()
    first.afterwards()
    with torch.no_grad():
        agent.models["model"].entities += torch.randn(own.shape, generator=torch.Generator().manual_seed(2))
    merged = agent.models["model"].entities.detach().clone()
    again = term("contrastive", agent, context, contrastive_weight=0.5, temperature=0.2)
    with torch.no_grad():
        agent.models["model"].entities += torch.randn(own.shape, generator=torch.Generator().manual_seed(3))
    batch, now = batch_of(agent, world), agent.models["model"].entities.detach().double()
    some = sorted(set(batch.triples[:, [0, 2]].flatten().tolist()))
    total = 0.0
    for one in some:
        near = torch.cosine_similarity(now[one], merged[one].double(), dim=0) / 0.2
        far = torch.cosine_similarity(now[one], own[one].double(), dim=0) / 0.2
        total += float(-torch.log(near.exp() / (near.exp() + far.exp())))
    assert float(again.loss(batch).detach()) == pytest.approx(0.5 * total / len(some), rel=1e-5)


def test_turned_rows_are_the_own_ones_where_a_rotation_is_all_that_lies_between(draw):
    own = draw(20, 5).float()
    rotation, _ = torch.linalg.qr(draw(5, 5))
    assert torch.allclose(turned(own @ rotation.float(), own), own, atol=1e-5)


def test_noise_has_the_scale_that_is_said(world, embedding, context):
    many = Agent("a", "g", "learner", world.holders["a"][0], world.holders["a"][2], {})
    count = len(world.share(many).entities)
    many.models = {"model": embedding(entities=count, relations=RELATIONS, dimension=4000)}
    plain, noisy = (embeddings(many, ExtractEntityRows(noise=n), context).values.double() for n in (0.0, 0.5))
    # The mean of |x| under Laplace noise of scale b is b.
    assert float((noisy - plain).abs().mean()) == pytest.approx(0.5 * float(plain.std()), rel=0.02)
