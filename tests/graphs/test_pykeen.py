"""Scores, losses and filtered ranks are PyKEEN's on the same embeddings."""

import pytest
import torch
from codistill.graphs import ranking
from codistill.graphs.known import KnownTriples
from codistill.graphs.losses import one_vs_all_loss, self_adversarial_loss
from codistill.graphs.ranking import both_sides, heads_only, rank, tails_only
from codistill.graphs.scores import SCORES, score, score_all, score_candidates

THEIRS = {
    "transe": ("TransE", {"scoring_fct_norm": 1}),
    "transe-l2": ("TransE", {"scoring_fct_norm": 2}),
    "rotate-l2": ("RotatE", {}),
    "distmult": ("DistMult", {}),
    "complex": ("ComplEx", {}),
}
"""Which model of PyKEEN each score is. RotatE by the sum of moduli, as its authors' code has it, PyKEEN has not."""


def interaction(name):
    from pykeen.nn import modules

    return {
        "transe": lambda: modules.TransEInteraction(p=1),
        "transe-l2": lambda: modules.TransEInteraction(p=2),
        "rotate-l2": modules.RotatEInteraction,
        "distmult": modules.DistMultInteraction,
        "complex": modules.ComplExInteraction,
    }[name]()


def theirs_of(name, entities, relations):
    """Our rows as PyKEEN's interactions take them: complex numbers where they are, and rotations for phases."""
    if name == "rotate-l2":
        relations = torch.polar(torch.ones_like(relations), relations)
    elif name == "complex":
        relations = torch.complex(*relations.chunk(2, -1))
    if name in ("rotate-l2", "complex"):
        entities = torch.complex(*entities.chunk(2, -1))
    return entities, relations


@pytest.fixture
def model():
    """PyKEEN's model ``name`` whose rows are those of our embedding."""

    def make(name, embedding, known):
        from pykeen import models
        from pykeen.triples import CoreTriplesFactory

        entities, relations = len(embedding.entities), len(embedding.relations)
        kind, said = THEIRS[name]
        factory = CoreTriplesFactory(known, entities, relations)
        made = getattr(models, kind)(triples_factory=factory, embedding_dim=embedding.dimension, random_seed=0, **said)
        rows = theirs_of(name, embedding.entities.detach(), embedding.relations.detach())
        for ours, at in zip(rows, (made.entity_representations[0], made.relation_representations[0]), strict=True):
            at.constrainer = None
            ours = torch.view_as_real(ours) if ours.is_complex() else ours
            with torch.no_grad():
                at._embeddings.weight.copy_(ours.reshape(at._embeddings.weight.shape))
        return made

    return make


@pytest.mark.parametrize("name", THEIRS)
def test_scores_are_pykeens(embedding, graph, name):
    ours, triples = embedding(name), graph()
    heads, relations, tails = ours.entities[triples[:, 0]], ours.relations[triples[:, 1]], ours.entities[triples[:, 2]]
    everyone, rotations = theirs_of(name, ours.entities.detach(), ours.relations.detach())
    function = interaction(name)
    best = function(everyone[triples[:, 0]], rotations[triples[:, 1]], everyone[triples[:, 2]])
    torch.testing.assert_close(score(SCORES[name], heads, relations, tails), best, atol=1e-5, rtol=1e-5)
    best = function(everyone[triples[:, 0]][:, None], rotations[triples[:, 1]][:, None], everyone[None])
    tails_of = score_all(SCORES[name], heads, relations, ours.entities, "tail")
    torch.testing.assert_close(tails_of, best, atol=1e-5, rtol=1e-5)
    best = function(everyone[None], rotations[triples[:, 1]][:, None], everyone[triples[:, 2]][:, None])
    heads_of = score_all(SCORES[name], tails, relations, ours.entities, "head")
    torch.testing.assert_close(heads_of, best, atol=1e-5, rtol=1e-5)
    own = torch.randint(20, (len(triples), 7), generator=torch.Generator().manual_seed(3))
    some = score_candidates(SCORES[name], tails, relations, ours.entities, own, "head")
    torch.testing.assert_close(some, best.gather(1, own), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_the_self_adversarial_loss_is_pykeens(draw, temperature):
    from pykeen.losses import NSSALoss

    positive, negative = draw(12).float() * 3 - 6, draw(12, 9).float() * 3 - 7
    leaves = [[one.clone().requires_grad_() for one in (positive, negative)] for _ in range(2)]
    ours = self_adversarial_loss(*leaves[0], margin=6.0, temperature=temperature)
    theirs = NSSALoss(margin=6.0, adversarial_temperature=temperature)
    best = theirs.process_slcwa_scores(leaves[1][0][:, None], leaves[1][1])
    torch.testing.assert_close(ours, best, atol=1e-5, rtol=1e-5)
    for one, other in zip(
        *(torch.autograd.grad(*both) for both in ((ours, leaves[0]), (best, leaves[1]))), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_1_vs_all_loss_is_pykeens(draw):
    from pykeen.losses import CrossEntropyLoss

    scores, targets = draw(6, 11).float(), torch.tensor([3, 0, 10, 4, 4, 7])
    labels = torch.nn.functional.one_hot(targets, 11).float()
    best = CrossEntropyLoss().process_lcwa_scores(scores, labels)
    torch.testing.assert_close(one_vs_all_loss(scores, targets), best, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("tied", [False, True])
def test_filtered_ranks_are_pykeens(embedding, graph, model, name, tied):
    from pykeen.evaluation import RankBasedEvaluator

    ours, known = embedding(name), torch.unique(graph(count=90), dim=0)
    if tied:
        with torch.no_grad():
            ours.entities[5:12] = ours.entities[4].clone()
    test, train = known[::4], torch.cat([known[1::4], known[2::4], known[3::4]])
    evaluator = RankBasedEvaluator(filtered=True)
    found = evaluator.evaluate(model(name, ours, train), test, use_tqdm=False, additional_filter_triples=[train])
    ranks = rank(ours, test, KnownTriples(known, 20, 4))
    for side, quality in (("head", heads_only(ranks)), ("tail", tails_only(ranks)), ("both", both_sides(ranks))):
        for metric, value in (
            ("inverse_harmonic_mean_rank", quality.mrr),
            ("hits_at_1", quality.hits_at_1),
            ("hits_at_3", quality.hits_at_3),
            ("hits_at_10", quality.hits_at_10),
        ):
            assert value == pytest.approx(found.get_metric(f"{side}.realistic.{metric}"), abs=1e-5), (side, metric)
    every = torch.cat([ranks.heads, ranks.tails])
    assert float(every.mean()) == pytest.approx(found.get_metric("both.realistic.arithmetic_mean_rank"), abs=1e-5)


def test_umls_is_ranked_as_pykeen_does(umls, embedding, model, monkeypatch):
    from pykeen.evaluation import RankBasedEvaluator

    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 4000)
    entities, relations, parts = umls
    ours = embedding("rotate-l2", entities, relations, 16)
    found = RankBasedEvaluator(filtered=True).evaluate(
        model("rotate-l2", ours, parts["train"]),
        parts["test"],
        use_tqdm=False,
        additional_filter_triples=[parts["train"], parts["valid"]],
    )
    ranks = both_sides(rank(ours, parts["test"], KnownTriples(torch.cat(list(parts.values())), entities, relations)))
    assert ranks.mrr == pytest.approx(found.get_metric("both.realistic.inverse_harmonic_mean_rank"), abs=1e-5)
    assert ranks.hits_at_10 == pytest.approx(found.get_metric("both.realistic.hits_at_10"), abs=1e-5)
