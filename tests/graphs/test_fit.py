"""Local training against the same training written out, and what it must bear."""

import copy

import pytest
import torch
from codistill.graphs.contrast import draw as draw_candidates
from codistill.graphs.contrast import side_of
from codistill.graphs.embedding import Embedding
from codistill.graphs.fit import Fit, fit, frequency_weights
from codistill.graphs.known import KnownTriples
from codistill.graphs.ranking import both_sides, rank
from codistill.graphs.scores import SCORES
from pydantic import ValidationError


def written_out(embedding, triples, settings, generator):
    """Scores one by one, autograd and torch's optimizers; the draws are those of the code under test."""
    entities, known = len(embedding.entities), KnownTriples(triples, len(embedding.entities), len(embedding.relations))
    optimizer = torch.optim.Adam(
        [
            {"params": [embedding.entities]},
            {
                "params": [embedding.relations],
                "lr": settings.lr * embedding.relation_unit,
                "eps": 1e-8 / embedding.relation_unit,
            },
        ],
        lr=settings.lr,
    )
    weights = frequency_weights(triples).double()
    step, losses = 0, []
    for _ in range(settings.epochs):
        total = 0.0
        for chosen in torch.randperm(len(triples), generator=generator).split(settings.batch):
            some, side = triples[chosen], side_of(settings, step)
            drawn = draw_candidates(settings, some, side, entities, generator, known if settings.filtered else None)
            rows = []
            for row, triple in enumerate(some):
                candidates = drawn.candidates if drawn.candidates.dim() == 1 else drawn.candidates[row]
                others = triple.repeat(len(candidates), 1)
                others[:, 0 if side == "head" else 2] = candidates
                positive, negative = embedding.score_triples(triple[None])[0], embedding.score_triples(others)
                if drawn.known is not None:
                    negative = negative[~drawn.known[row]]
                if settings.loss == "one-vs-all":
                    rows.append(torch.logsumexp(negative, 0) - positive)
                    continue
                positive, negative = positive + embedding.logit_margin, negative + embedding.logit_margin
                shares = torch.softmax(settings.temperature * negative.detach(), 0)
                sigmoid = torch.nn.functional.logsigmoid
                rows.append(-(sigmoid(positive) + (shares * sigmoid(-negative)).sum()) / 2)
            own = weights[chosen] if settings.frequency_weights else torch.ones(len(rows), dtype=torch.float64)
            loss = (torch.stack(rows) * own).sum() / own.sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(chosen)
            step += 1
        losses.append(total / len(triples))
    return losses


WAYS = {
    "own": {},
    "own, unfiltered": {"filtered": False},
    "shared": {"shared": True},
    "shared, heads, weighted": {"shared": True, "corrupt": "heads", "frequency_weights": True},
    "own, tails, weighted": {"corrupt": "tails", "frequency_weights": True, "temperature": 0.3},
    "all": {"loss": "one-vs-all"},
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("way", WAYS)
def test_training_is_what_it_is_written_out(embedding, graph, score, way):
    triples, settings = graph(), Fit(epochs=2, batch=25, negatives=6, lr=0.01, **WAYS[way])
    ours, best = embedding(score).double(), embedding(score).double()
    fitted = fit(ours, triples, settings, torch.Generator().manual_seed(3))
    losses = written_out(best, triples, settings, torch.Generator().manual_seed(3))
    assert fitted.steps == 6
    # Weights of frequency are float32.
    assert fitted.losses == pytest.approx(losses, rel=1e-6)
    torch.testing.assert_close(ours.entities, best.entities, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.relations, best.relations, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shared", [True, False])
def test_lazy_steps_leave_alone_what_they_do_not_touch_and_make_the_first_step_of_the_others(embedding, graph, shared):
    triples = graph(entities=8)
    settings = Fit(epochs=1, batch=1000, negatives=3, shared=shared, lr=0.01)
    lazy, dense = embedding(entities=30), embedding(entities=30)
    before = lazy.entities.detach().clone()
    fit(lazy, triples, settings.model_copy(update={"optimizer": "lazy-adam"}), torch.Generator().manual_seed(1))
    fit(dense, triples, settings, torch.Generator().manual_seed(1))
    torch.testing.assert_close(lazy.entities, dense.entities, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(lazy.relations, dense.relations)
    rested = (lazy.entities == before).all(1)
    assert rested.any() == shared and not rested[:8].any()


def test_a_lazy_row_rests_while_a_dense_one_goes_on(embedding, graph):
    triples = torch.tensor([[0, 0, 1], [2, 1, 3]])
    settings = Fit(epochs=8, batch=1, negatives=1, shared=True, lr=0.01)
    lazy, dense = embedding(entities=30), embedding(entities=30)
    fit(lazy, triples, settings.model_copy(update={"optimizer": "lazy-adam"}), torch.Generator().manual_seed(1))
    fit(dense, triples, settings, torch.Generator().manual_seed(1))
    assert not torch.allclose(lazy.entities, dense.entities, atol=1e-5)


@pytest.mark.parametrize("said", [{}, {"shared": True}, {"shared": True, "optimizer": "lazy-adam"}])
def test_terms_see_the_batch_and_their_gradients_count(embedding, graph, said):
    triples, settings = graph(), Fit(epochs=1, batch=1000, negatives=5, lr=0.01, filtered=False, **said)
    ours, anchor, seen = embedding(), torch.full((20, 8), 0.3), []

    def towards(batch):
        seen.append(batch)
        return 100 * (ours.entities[7:9] - anchor[7:9]).square().sum() + 0 * batch.negative.sum()

    fit(ours, triples, settings, torch.Generator().manual_seed(1), terms=[towards])
    (batch,) = seen
    assert batch.triples.shape == (60, 3) and batch.positive.shape == (60,) and batch.negative.shape == (60, 5)
    assert batch.candidates.shape == ((5,) if settings.shared else (60, 5)) and batch.side == "head"
    other = batch.triples.clone()
    other[:, 0] = batch.candidates[0] if settings.shared else batch.candidates[:, 0]
    torch.testing.assert_close(batch.negative[:, 0], embedding().score_triples(other), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(batch.positive, embedding().score_triples(batch.triples), atol=1e-6, rtol=1e-5)
    moved = (ours.entities - embedding().entities).detach()[7:9]
    assert torch.equal(moved.sign(), (anchor - embedding().entities).detach()[7:9].sign())


def test_scores_of_a_term_pull_through_the_loss(embedding, graph):
    triples, settings = graph(), Fit(epochs=30, batch=20, negatives=5, lr=0.01)
    plain, pulled = embedding(), embedding()
    fit(plain, triples, settings, torch.Generator().manual_seed(1))
    fit(pulled, triples, settings, torch.Generator().manual_seed(1), terms=[lambda batch: -10 * batch.positive.mean()])
    assert pulled.score_triples(triples).mean() > plain.score_triples(triples).mean()


@pytest.mark.parametrize("said", [{}, {"shared": True}, {"loss": "one-vs-all"}])
def test_equal_generators_make_the_same_numbers_to_the_bit(embedding, graph, said):
    made = [embedding("rotate"), embedding("rotate"), embedding("rotate")]
    for model, seed in zip(made, (1, 1, 2), strict=True):
        fit(model, graph(), Fit(epochs=2, negatives=4, batch=7, **said), torch.Generator().manual_seed(seed))
    assert torch.equal(made[0].entities, made[1].entities) and torch.equal(made[0].relations, made[1].relations)
    assert not torch.equal(made[0].entities, made[2].entities)


def test_no_triples_and_no_epochs_change_nothing_and_one_triple_is_learned(embedding, graph):
    for triples, epochs in ((graph()[:0], 3), (graph(), 0)):
        model = embedding()
        fitted = fit(model, triples, Fit(epochs=epochs), torch.Generator().manual_seed(1))
        assert fitted.steps == 0 and fitted.losses == ()
        assert torch.equal(model.entities, embedding().entities)
    one, model = torch.tensor([[3, 2, 3]]), embedding()
    fitted = fit(model, one, Fit(epochs=40, negatives=8, lr=0.05), torch.Generator().manual_seed(1))
    assert fitted.steps == 40 and fitted.losses[-1] < fitted.losses[0]


def test_a_graph_of_one_entity_has_no_negatives_but_itself(embedding):
    loop = torch.tensor([[0, 0, 0]])
    for said in ({}, {"shared": True}, {"loss": "one-vs-all"}):
        fitted = fit(embedding(entities=1), loop, Fit(epochs=2, **said), torch.Generator().manual_seed(1))
        assert fitted.steps == 2


@pytest.mark.parametrize("where", ["entities", "relations"])
def test_rows_that_are_no_numbers_are_refused_and_nothing_is_changed(embedding, graph, where):
    model = embedding()
    with torch.no_grad():
        getattr(model, where)[2, 1] = float("nan")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="after epoch 1 the loss is nan .* a lower learning rate may help"):
        fit(model, graph(), Fit(epochs=2, negatives=4), torch.Generator().manual_seed(1))
    for name, rows in model.state_dict().items():
        assert torch.equal(rows.nan_to_num(7.0), before[name].nan_to_num(7.0))


def test_rows_that_stop_being_numbers_in_the_last_step_are_refused_too(embedding, graph):
    model, triples = embedding(), graph()[:10]
    settings = Fit(epochs=1, batch=10, negatives=4)

    def infinite(batch):
        return batch.positive.sum() * float("inf")

    with pytest.raises(ValueError, match=r"after epoch 1 the loss is \d.* and not every row is a number"):
        fit(model, triples, settings, torch.Generator().manual_seed(1), terms=[infinite])
    assert torch.equal(model.entities, embedding().entities)


def test_frequent_pairs_weigh_less(graph):
    triples = graph()
    listed = triples.tolist()
    best = []
    for head, relation, tail in listed:
        first = sum(one[:2] == [head, relation] for one in listed)
        second = sum(one[1:] == [relation, tail] for one in listed)
        # As the authors count: both counts begin at 4 with the first triple, and are added.
        best.append((1 / (first + 3 + second + 3)) ** 0.5)
    torch.testing.assert_close(frequency_weights(triples), torch.tensor(best))


def test_rotates_phases_take_the_authors_steps(embedding):
    model = embedding("rotate", dimension=8, margin=6.0)
    assert model.relation_unit == pytest.approx(3.141592653589793 / (8.0 / 8))
    assert embedding("transe").relation_unit == 1.0


@pytest.mark.parametrize(
    "said",
    [{"epochs": -1}, {"batch": 0}, {"negatives": 0}, {"lr": 0.0}, {"temperature": -1.0}, {"loss": "hinge"}, {"x": 1}],
)
def test_settings_that_make_no_sense_are_refused(said):
    with pytest.raises(ValidationError):
        Fit(**said)


@pytest.mark.parametrize(
    ("score", "margin", "least"), [("transe", 9.0, 0.65), ("rotate", 9.0, 0.7), ("complex", 24.0, 0.5)]
)
def test_a_small_graph_is_learned(umls, score, margin, least):
    entities, relations, parts = umls
    generator = torch.Generator().manual_seed(1)
    model = Embedding(entities, relations, 32, score, generator, margin=margin)
    known = KnownTriples(torch.cat(list(parts.values())), entities, relations)
    before = both_sides(rank(model, parts["test"], known)).mrr
    settings = Fit(epochs=20, negatives=32, shared=True, lr=0.02)
    fitted = fit(model, parts["train"], settings, generator)
    after = both_sides(rank(model, parts["test"], known)).mrr
    assert fitted.steps == 20 * -(-len(parts["train"]) // 512)
    assert fitted.losses[-1] < fitted.losses[0]
    assert before < 0.2 and after > least
