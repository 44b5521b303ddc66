"""Training and ranking through an encoder, against the same written out edge by edge, and what must not leak."""

import copy
import pickle

import pytest
import torch
from codistill.graphs import dgl
from codistill.graphs.contrast import Batch, Drawn, side_of
from codistill.graphs.contrast import draw as draw_candidates
from codistill.graphs.encoded import graph_encoder
from codistill.graphs.encoders import Widths
from codistill.graphs.fit import Fit, fit
from codistill.graphs.known import KnownTriples
from codistill.graphs.models import EmbeddingModel
from codistill.graphs.ranking import rank
from codistill.graphs.structure import message_graph
from codistill.graphs.terms.mutual import rescored
from codistill.graphs.unlearn import Unlearn, _confusion
from codistill.tasks.models import architecture
from codistill.tests.graphs import formula_encoders
from codistill.tests.graphs.made_encoders import BACKENDS, needs_dgl
from pydantic import ValidationError

ENTITIES, RELATIONS = 9, 2
SAID = [
    ("rgcn", {"bases": 2}),
    ("compgcn", {"composition": "mul"}),
    ("compgcn", {"composition": "sub", "layers": 2}),
    ("attention", {"heads": 2}),
]
SCORES = {
    "transe": lambda h, r, t: -(h + r - t).abs().sum(),
    "distmult": lambda h, r, t: (h * r * t).sum(),
}


@pytest.fixture
def triples(graph):
    """Fourteen triples of nine entities, two of them there twice, and a self-loop."""
    made = graph(ENTITIES, RELATIONS, 11)
    return torch.cat([made, made[:2], torch.tensor([[3, 1, 3]])])


@pytest.fixture
def encoded(embedding, triples):
    """A maker of embeddings under an encoder: ``encoded("compgcn", {"layers": 2}, score="rotate")``."""

    def make(name="compgcn", said=None, score="transe", known=triples, entities=ENTITIES, seed=2):
        made = embedding(score, entities=entities, relations=RELATIONS, dimension=4, seed=seed)
        parameters = EmbeddingModel.model_validate({"dimension": 4, "encoder": {name: said or {}}})
        widths = Widths(made.entities.shape[1], made.relations.shape[1])
        graph = message_graph(known, entities, RELATIONS)
        made.encoder = graph_encoder(parameters.encoder, graph, widths, torch.Generator().manual_seed(seed))
        return made

    return make


def heard_without(triples, batch):
    """The triples that are none of the batch, by value."""
    gone = {tuple(triple) for triple in batch.tolist()}
    return torch.tensor([one for one in triples.tolist() if tuple(one) not in gone], dtype=torch.int64).view(-1, 3)


def formula_rows(embedding, name, said, triples):
    tables = embedding.entities, embedding.relations
    return formula_encoders.encode(embedding.encoder.encoder, name, triples, *tables, said.get("composition", "sub"))


def written_out(embedding, name, said, score, triples, settings, generator):
    """Each edge, message and score by itself, autograd and torch's Adam; the draws are those of the code under test."""
    known = KnownTriples(triples, ENTITIES, RELATIONS)
    optimizer, step, sigmoid = torch.optim.Adam(embedding.parameters(), settings.lr), 0, torch.nn.functional.logsigmoid
    for _ in range(settings.epochs):
        for chosen in torch.randperm(len(triples), generator=generator).split(settings.batch):
            some, side = triples[chosen], side_of(settings, step)
            drawn = draw_candidates(settings, some, side, ENTITIES, generator, known)
            entities, relations = formula_rows(embedding, name, said, heard_without(triples, some))
            losses = []
            for row, (head, relation, tail) in enumerate(some.tolist()):
                candidates = drawn.candidates if drawn.candidates.dim() == 1 else drawn.candidates[row]
                allowed = [one for at, one in enumerate(candidates) if drawn.known is None or not drawn.known[row, at]]
                pairs = [(one, tail) if side == "head" else (head, one) for one in allowed]
                positive = SCORES[score](entities[head], relations[relation], entities[tail])
                others = [SCORES[score](entities[h], relations[relation], entities[t]) for h, t in pairs]
                negative = torch.stack(others)
                if settings.loss == "one-vs-all":
                    losses.append(torch.logsumexp(negative, 0) - positive)
                    continue
                positive, negative = positive + embedding.logit_margin, negative + embedding.logit_margin
                shares = torch.softmax(settings.temperature * negative.detach(), 0)
                losses.append(-(sigmoid(positive) + (shares * sigmoid(-negative)).sum()) / 2)
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            optimizer.step()
            step += 1


def assert_alike(ours, other, most):
    other = dict(other.named_parameters())
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value, other[name], atol=most, rtol=most, msg=lambda told, at=name: f"{at}: {told}")


@pytest.mark.parametrize(("name", "said"), SAID)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("way", [{}, {"shared": True}, {"loss": "one-vs-all"}, {"batch": 100}])
def test_training_through_an_encoder_is_what_it_is_written_out(encoded, triples, name, said, score, way):
    settings = Fit(**{"epochs": 2, "batch": 5, "negatives": 3, "lr": 0.01} | way)
    ours, best = (encoded(name, said, score).double() for _ in range(2))
    before = copy.deepcopy(ours)
    fit(ours, triples, settings, torch.Generator().manual_seed(3))
    written_out(best, name, said, score, triples, settings, torch.Generator().manual_seed(3))
    assert_alike(ours, best, 1e-7)
    moved = [bool((one != other).any()) for one, other in zip(ours.parameters(), before.parameters(), strict=True)]
    alone = "batch" in way  # one batch of all triples leaves no edge to hear through
    assert all(moved) or alone


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "said"), SAID)
def test_nothing_of_a_batch_is_read_off_the_graph(encoded, triples, name, said, backend):
    batch = triples[:4]
    ours = encoded(name, said | {"backend": backend}).double()
    found, expected = ours.rows(batch), formula_rows(ours, name, said, heard_without(triples, batch))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    assert not torch.allclose(found[0], ours.rows()[0], atol=1e-3)


def test_neither_a_companion_nor_what_unlearns_reads_the_batch_off_the_graph(encoded, triples):
    batch, ours = triples[:4], encoded().double()
    blind = encoded(known=heard_without(triples, batch)).double()
    candidates = torch.arange(ENTITIES).expand(4, -1)
    seen = Batch(Drawn(batch, "tail", candidates), torch.zeros(4), torch.zeros(4, ENTITIES))
    for found, expected in zip(rescored(ours, seen), rescored(blind, seen), strict=True):
        torch.testing.assert_close(found, expected)
    lost = [_confusion(one, batch, Unlearn(), torch.Generator().manual_seed(1), "head") for one in (ours, blind)]
    torch.testing.assert_close(*lost)
    torch.testing.assert_close(ours.score_triples(batch, ours.rows(batch)), rescored(ours, seen)[0])
    assert not torch.allclose(ours.score_triples(batch), rescored(ours, seen)[0])


def test_ranks_are_those_of_the_rows_that_the_encoder_makes_of_all_triples(encoded, embedding, triples):
    ours = encoded("compgcn", {"composition": "mul"}).double()
    rows = formula_rows(ours, "compgcn", {"composition": "mul"}, triples)
    plain = embedding(entities=ENTITIES, relations=RELATIONS, dimension=4).double()
    plain.entities.data, plain.relations.data = (one.detach() for one in rows)
    asked, known = torch.tensor([[0, 0, 5], [7, 1, 2], [4, 1, 4]]), KnownTriples(triples, ENTITIES, RELATIONS)
    found, expected = rank(ours, asked, known), rank(plain, asked, known)
    assert torch.equal(found.heads, expected.heads) and torch.equal(found.tails, expected.tails)


def test_lazy_rows_rest_that_had_no_part_in_the_loss_while_dense_ones_go_on_and_neighbours_move(encoded):
    known = torch.tensor([[0, 0, 1], [1, 0, 2], [5, 1, 6]])
    lazy, dense = (encoded(known=known, entities=40) for _ in range(2))
    before = lazy.entities.detach().clone()
    settings = Fit(epochs=1, batch=1, negatives=1, shared=True, filtered=False, lr=0.01)
    moved = []
    for one, optimizer in ((lazy, "lazy-adam"), (dense, "adam")):
        said = settings.model_copy(update={"optimizer": optimizer})
        fit(one, known[:1], said, torch.Generator().manual_seed(1))
        moved.append((one.entities != before).any(1))
    torch.testing.assert_close(lazy.entities, dense.entities)  # of one step all is alike
    assert moved[0][[0, 1, 2]].all() and moved[0].sum() < 10
    for one, optimizer in ((lazy, "lazy-adam"), (dense, "adam")):
        said = settings.model_copy(update={"optimizer": optimizer, "epochs": 8})
        fit(one, known[:1], said, torch.Generator().manual_seed(2))
    assert not torch.allclose(lazy.entities, dense.entities, atol=1e-4)


@needs_dgl
@pytest.mark.parametrize("score", ["transe", "rotate", "complex"])
@pytest.mark.parametrize(("name", "said"), SAID)
def test_both_back_ends_train_alike(encoded, triples, name, said, score):
    settings = Fit(epochs=3, batch=5, negatives=3, lr=0.01)
    by_torch, by_dgl = (encoded(name, said | {"backend": backend}, score).double() for backend in ("torch", "dgl"))
    for one in (by_torch, by_dgl):
        fit(one, triples, settings, torch.Generator().manual_seed(3))
    assert_alike(by_torch, by_dgl, 1e-8)


@needs_dgl
def test_a_model_that_dgl_has_trained_holds_no_graph_of_dgls(encoded, triples):
    ours = encoded(said={"backend": "dgl"})
    fit(ours, triples, Fit(epochs=1, batch=5, negatives=3), torch.Generator().manual_seed(3))
    ours.rows()
    sent = pickle.dumps(ours)
    assert b"codistill.graphs.structure" in sent and b"dgl.hetero" not in sent and b"DGLGraph" not in sent
    assert all(isinstance(value, torch.Tensor) for value in ours.state_dict().values())
    torch.testing.assert_close(copy.deepcopy(ours).rows(), ours.rows())


def test_the_name_of_a_model_tells_its_encoder_and_not_its_back_end():
    def name(**said):
        return architecture("transe", EmbeddingModel.model_validate({"dimension": 8, **said}), (5,), 2).name

    assert name() == "transe(dimension=8,margin=8.0)"
    by_torch = name(encoder={"compgcn": {"composition": "mul"}})
    assert by_torch == "transe(dimension=8,margin=8.0,encoder=compgcn(layers=1,composition=mul))"
    assert name(encoder={"compgcn": {"composition": "mul", "backend": "dgl"}}) == by_torch


def test_heads_that_cannot_share_the_width_are_answered_with_what_can():
    with pytest.raises(ValidationError, match="6 heads of attention cannot share a dimension of 64 evenly.*`heads: 2`"):
        EmbeddingModel.model_validate({"dimension": 64, "encoder": {"attention": {"heads": 6}}})


def test_only_a_model_that_asks_for_dgl_lacks_it(monkeypatch):
    monkeypatch.setattr(dgl, "find_spec", lambda name: None)
    for said, lacks in (({}, False), ({"backend": "torch"}, False), ({"backend": "dgl"}, True)):
        sentence = EmbeddingModel.model_validate({"encoder": {"rgcn": said}}).lacking()
        assert (sentence is not None) == lacks
    assert sentence.startswith("DGL is not installed: pip install 'codistill[graphs]'")
    assert EmbeddingModel().lacking() is None
