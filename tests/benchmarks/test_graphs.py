"""What is measured does the same on both sides."""

import pytest
import torch
from codistill.graphs.contrast import LOSSES, Batch, Contrast, Drawn, scored
from codistill.graphs.known import KnownTriples
from codistill.graphs.ranking import rank_side
from codistill.graphs.triples import Triples
from codistill.tests.benchmarks import graphs


@pytest.fixture
def small():
    generator = torch.Generator().manual_seed(1)
    sizes = (30, 4, 30)
    made = torch.stack([torch.randint(size, (90,), generator=generator) for size in sizes], 1).unique(dim=0)
    made = made[torch.randperm(len(made), generator=generator)]
    names = tuple(map(str, range(30))), tuple(map(str, range(4)))
    return Triples(*names, made[:60], made[60:70], made[70:])


@pytest.mark.parametrize("score", ["transe", "rotate"])
def test_plain_torch_and_codistill_have_one_loss_and_one_ranking(small, score):
    plain = graphs.Plain(small, score)
    negatives = torch.randint(30, (20, 7), generator=torch.Generator().manual_seed(2))
    drawn = Drawn(small.train[:20], "tail", negatives)
    batch = Batch(drawn, *scored(plain.made.score, *plain.made.rows(), drawn))
    ours, theirs = LOSSES["self-adversarial"](plain.made, batch, Contrast(), None), plain.loss(drawn.triples, negatives)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(
        *(torch.autograd.grad(loss, list(plain.made.parameters())) for loss in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    known = KnownTriples(torch.cat([small.train, small.valid, small.test]), 30, 4)
    assert rank_side(plain.made, small.test, known, "tail").tolist() == plain.ranked(small.test).tolist()


def test_everything_measured_steps_and_ranks(small, capsys, monkeypatch):
    monkeypatch.setattr(graphs, "BATCH", 8)
    monkeypatch.setattr(graphs, "NEGATIVES", 4)
    graphs.beside("a small graph", [small], "transe", 1, 4, 1, 9)
    said = capsys.readouterr().out
    for name in ("plain", "own negatives", "shared negatives", "shared, lazy", "PyKEEN", "codistill"):
        assert name in said
    assert "a round of 9 steps, plain" in said and "a small graph, transe: a rank" in said
